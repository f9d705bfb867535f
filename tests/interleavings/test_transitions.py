"""At each transition of the table, just before it, in its hooks and just after it: what if just then …?"""

import collections
import itertools
from pathlib import Path

import pytest

from tests.endings import assert_path
from tests.interleavings.expected import expected, impossible
from tests.interleavings.scenes import ACTS, POINTS, Point, scene
from vmfsm import TABLE, Event, State

ORDERS = [
    *itertools.permutations(("shutdown", "kill")),
    *itertools.permutations(("shutdown", "exits 0")),
    ("exits 0", "kill"),  # the other way round it is dead already
]
CELLS = [
    (point, acts)
    for point in POINTS
    for acts in [*((act,) for act in ACTS), *ORDERS]
    if impossible(point, acts) is None
]


def name(value: Point | tuple[str, ...]) -> str:
    return str(value) if isinstance(value, Point) else ",".join(value).replace(" ", "-")


@pytest.mark.parametrize(("point", "acts"), CELLS, ids=name)
def test_just_then(tmp_path: Path, point: Point, acts: tuple[str, ...]) -> None:
    will = expected(point, acts)
    with scene(tmp_path, point) as staged:
        staged.play(acts)
        vm = staged.machine
        assert_path(vm)
        assert [transition.event for transition in vm.history] == will.events
        assert [type(error) if error else None for _, error in staged.main] == will.main
        others = [(call, type(thread.error) if thread.error else None) for call, thread in staged.others]
        assert sorted(others, key=str) == sorted(will.others, key=str)
        if will.launched_again:
            assert vm.state is State.RUNNING
            vm.kill()
        else:
            assert vm.exit_status == will.end[2]
        ending = [transition for transition in vm.history if transition.event in {Event.EXITED, Event.FAIL}]
        assert (ending[0].dest, ending[0].reason) == will.end[:2]
        ran = collections.Counter(staged.plugin.ran)
        launches = 1 + will.launched_again
        assert ran["early_cleanup"] == ran["post_shutdown"] == launches
        assert ran["defer"] == ran["pre_launch"] <= launches
        assert ran["post_launch"] <= launches


def test_every_row_of_the_table_is_covered() -> None:
    places = {(point.event, point.place) for point in POINTS}
    assert {row.event for row in TABLE} == {event for event, _ in places}
    assert len(CELLS) > 300
