"""Steps and notes: on the timeline of their machine, from anywhere, at any time."""

import asyncio
import os
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from tests.conftest import MakeMachine
from tests.waiting import InThread, until
from vmfsm import ConfigError, Machine, Record, TransitionError, format_timeline, hookimpl
from vmfsm.iothread import IOThread

LONG = 600.0
KINDS = {"step-begin", "step", "note"}


def marks(vm: Machine) -> list[tuple[str, Mapping[str, object]]]:
    return [(record.kind, record.data) for record in vm.timeline if record.kind in KINDS]


def words(vm: Machine) -> list[str]:
    return [str(data.get("step") or data.get("text")) for _, data in marks(vm)]


def test_steps_nested(bare: MakeMachine) -> None:
    vm = bare()
    with vm.trace("outer", size=1, path=b"raw"), vm.trace("inner"):
        vm.note("here", found=[1, 2])
    thread = threading.current_thread().name
    (begin, begin_inner, note, inner, outer) = marks(vm)
    assert begin == ("step-begin", {"step": "outer", "size": 1, "path": "raw", "thread": thread})
    assert begin_inner == ("step-begin", {"step": "inner", "thread": thread})
    assert note == ("note", {"text": "here", "found": [1, 2], "thread": thread})
    for (kind, data), name in ((inner, "inner"), (outer, "outer")):
        assert (kind, data["step"], data["error"], data["thread"]) == ("step", name, None, thread)
    seconds: Any = (inner[1]["seconds"], outer[1]["seconds"])
    assert 0 <= seconds[0] <= seconds[1]
    times = [record.at for record in vm.timeline]
    assert times == sorted(times)
    lines = format_timeline(vm.timeline).splitlines()
    assert "> outer  size=1  path=raw" in lines[0]
    assert "here  found=[1, 2]" in lines[2]
    assert lines[4].endswith("< outer")


def test_an_exception_is_recorded_and_goes_on(bare: MakeMachine) -> None:
    vm = bare()
    error = ValueError("not\nthis")
    with pytest.raises(ValueError, match="not") as caught, vm.trace("doomed"):
        raise error
    assert caught.value is error
    assert marks(vm)[-1][1]["error"] == "ValueError: not"
    assert format_timeline(vm.timeline).endswith("< doomed  left by ValueError: not")


def test_it_is_there_at_once_whatever_holds_up_the_io_thread(bare: MakeMachine) -> None:
    vm, go, held = bare(), threading.Event(), threading.Event()
    IOThread.get().post(held.set)
    IOThread.get().post(go.wait, LONG)
    assert held.wait(LONG)
    try:
        with vm.trace("held up"):
            vm.note("so what")
        assert words(vm) == ["held up", "so what", "held up"]
        timeline: Any = vm.snapshot()["timeline"]
        assert [record["kind"] for record in timeline] == ["step-begin", "note", "step"]
    finally:
        go.set()
    over = threading.Event()
    IOThread.get().post(over.set)
    assert over.wait(LONG)
    assert words(vm) == ["held up", "so what", "held up"], "once"


def test_in_every_state_in_hooks_and_on_the_io_thread(bare: MakeMachine) -> None:
    told: list[Record] = []

    class Notes:
        name = "notes"

        @hookimpl
        def pre_launch(self, machine: Machine) -> None:
            machine.note("pre_launch")

        @hookimpl
        async def post_launch(self, machine: Machine) -> None:
            with machine.trace("post_launch"):
                await asyncio.sleep(0)

        @hookimpl
        def records(self, batch: list[Record]) -> None:
            told.extend(record for record in batch if record.kind in KINDS)

    vm = bare(Notes())
    vm.note("before")
    vm.launch()
    vm.note("up")
    vm.kill()
    vm.note("after")
    expected = ["before", "pre_launch", "post_launch", "post_launch", "up", "after"]
    assert words(vm) == expected
    until(lambda: len(told) == len(expected))
    assert [str(record.data.get("step") or record.data.get("text")) for record in told] == expected
    assert marks(vm)[2][1]["thread"] == "vmfsm-io"


def test_of_many_threads(bare: MakeMachine) -> None:
    vm = bare()

    def mark(name: str) -> None:
        for number in range(50):
            with vm.trace(name, number=number):
                pass

    for marking in [InThread(mark, f"t{number}") for number in range(4)]:
        marking.result()
    for number in range(4):
        begun = [data for kind, data in marks(vm) if (kind, data["step"]) == ("step-begin", f"t{number}")]
        assert [data["number"] for data in begun] == list(range(50))
    assert len(marks(vm)) == 4 * 50 * 2


def test_no_secret_is_in_it(bare: MakeMachine) -> None:
    vm = bare()
    vm.secrets.add("open-sesame")
    vm.note("it is open-sesame", data={"deep": ["open-sesame"]})
    assert "open-sesame" not in repr(vm.timeline)


@pytest.mark.parametrize(
    ("mark", "field"),
    [
        (lambda vm: vm.trace(1), "step"),
        (lambda vm: vm.note(None), "text"),
        (lambda vm: vm.trace("a", seconds=1), "seconds"),
        (lambda vm: vm.note("a", thread=1), "thread"),
    ],
)
def test_what_is_refused(bare: MakeMachine, mark: Any, field: str) -> None:
    vm = bare()
    with pytest.raises(ConfigError) as refused:
        mark(vm)
    assert refused.value.field == field
    assert vm.timeline == ()


def test_in_a_forked_child(bare: MakeMachine) -> None:
    vm = bare()
    with vm.trace("forks"):
        child = os.fork()
        if not child:
            status = 1
            try:
                for mark in (vm.note, vm.trace):
                    with pytest.raises(TransitionError):
                        mark("not mine")
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert words(vm) == ["forks", "forks"]
