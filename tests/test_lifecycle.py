"""The table of states and events, read a second time and independently; and that a machine walks it."""

import contextlib
import inspect
import os
import signal
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import MakeMachine
from tests.waiting import catches, until
from vmfsm import (
    TABLE,
    AbnormalExit,
    Event,
    Machine,
    Reason,
    State,
    Transition,
    TransitionError,
    hookimpl,
    hooks,
)
from vmfsm.lifecycle import ALIVE, INITIAL, Lifecycle

CONFIGURED, LAUNCHING, RUNNING, QUITTING, STOPPED, FAILED = State

# By hand, so that the table is compared with something; "." is not allowed.
EXPECTED = """
             configured  launching  running   quitting  stopped    failed
    launch   launching   .          .         .         launching  launching
    launched .           running    .         .         .          .
    quit     .           quitting   quitting  .         .          .
    exited   .           .          .         stopped   .          .
    fail     .           .          .         failed    .          .
"""
HOOKS = {
    "launch": ("pre_launch", "after"),
    "launched": ("post_launch", "before"),
    "quit": ("early_cleanup", "after"),
    "exited": ("post_shutdown", "before"),
    "fail": ("post_shutdown", "before"),
}
# The shortest way to each state.
PATHS: dict[State, list[Event]] = {
    CONFIGURED: [],
    LAUNCHING: [Event.LAUNCH],
    RUNNING: [Event.LAUNCH, Event.LAUNCHED],
    QUITTING: [Event.LAUNCH, Event.QUIT],
    STOPPED: [Event.LAUNCH, Event.QUIT, Event.EXITED],
    FAILED: [Event.LAUNCH, Event.QUIT, Event.FAIL],
}


def expected() -> dict[tuple[State, Event], State | None]:
    header, *rows = (line.split() for line in EXPECTED.strip().splitlines())
    return {
        (State(source), Event(event)): None if dest == "." else State(dest)
        for event, *dests in rows
        for source, dest in zip(header, dests, strict=True)
    }


def in_state(state: State) -> Lifecycle:
    lifecycle = Lifecycle("demo")
    for event in PATHS[state]:
        lifecycle.fire(event, Reason.KILLED)
    return lifecycle


def test_every_pair_is_expected_to_do_something() -> None:
    assert set(expected()) == {(state, event) for state in State for event in Event}
    assert len(expected()) == 30


@pytest.mark.parametrize(
    ("source", "event", "dest"), [(*pair, dest) for pair, dest in expected().items() if dest is not None]
)
def test_allowed(source: State, event: Event, dest: State) -> None:
    lifecycle = in_state(source)
    before = lifecycle.history
    earliest = time.monotonic()
    transition = lifecycle.fire(event, Reason.REQUESTED)
    assert (lifecycle.state, lifecycle.reason, lifecycle.since) == (dest, Reason.REQUESTED, transition.at)
    assert transition == Transition(event, source, dest, Reason.REQUESTED, transition.at)
    assert earliest <= transition.at <= time.monotonic()
    assert lifecycle.history == (*before, transition)


@pytest.mark.parametrize(
    ("source", "event"), [pair for pair, dest in expected().items() if dest is None], ids=str
)
def test_not_allowed_changes_nothing(source: State, event: Event) -> None:
    lifecycle = in_state(source)
    before = lifecycle.state, lifecycle.reason, lifecycle.since, lifecycle.history
    with pytest.raises(TransitionError) as caught:
        lifecycle.fire(event, Reason.DEADLINE)
    assert (lifecycle.state, lifecycle.reason, lifecycle.since, lifecycle.history) == before
    error = caught.value
    assert error.event == event.value
    assert error.allowed == tuple(e.value for (s, e), dest in expected().items() if s is source and dest)
    assert (error.machine, error.state) == ("demo", source)
    for said in ("demo", event.value, source.value):
        assert said in str(error)
    assert error.__suppress_context__, "what the table is made with is no concern of the user's"


@pytest.mark.parametrize("state", State)
def test_every_state_can_be_reached(state: State) -> None:
    assert in_state(state).state is state


def test_it_begins_configured_with_nothing_to_explain() -> None:
    earliest = time.monotonic()
    lifecycle = Lifecycle("demo")
    assert (INITIAL, lifecycle.state, lifecycle.reason, lifecycle.history) == (
        CONFIGURED,
        CONFIGURED,
        None,
        (),
    )
    assert earliest <= lifecycle.since <= time.monotonic()


def test_what_has_ended_can_only_be_launched_again() -> None:
    assert State.STOPPED not in ALIVE
    assert State.FAILED not in ALIVE
    for state in (STOPPED, FAILED):
        assert in_state(state).allowed() == ("launch",)


def test_every_ending_goes_through_quitting() -> None:
    """So that there is one path for cleaning up."""
    for row in TABLE:
        if row.dest in {STOPPED, FAILED}:
            assert row.sources == (QUITTING,)


def test_the_rows_name_the_hooks_and_their_side() -> None:
    assert {row.event.value: (row.hook, row.hook_runs) for row in TABLE} == HOOKS
    for row in TABLE:
        assert inspect.isfunction(getattr(hooks, row.hook))
    assert {row.hook for row in TABLE} == set(hooks.LIFECYCLE_HOOKS)


@given(st.lists(st.tuples(st.sampled_from(Event), st.sampled_from(Reason))))
def test_any_walk_agrees_with_the_table(walk: list[tuple[Event, Reason]]) -> None:
    lifecycle, table, state = Lifecycle("demo"), expected(), CONFIGURED
    taken = []
    for event, reason in walk:
        dest = table[state, event]
        if dest is None:
            with pytest.raises(TransitionError):
                lifecycle.fire(event, reason)
        else:
            lifecycle.fire(event, reason)
            taken.append((event, state, dest, reason))
            state = dest
        assert lifecycle.state is state
    assert [transition[:4] for transition in lifecycle.history] == taken
    times = [transition.at for transition in lifecycle.history]
    assert times == sorted(times)


def test_two_lifecycles_share_nothing() -> None:
    one, other = Lifecycle("one"), Lifecycle("other")
    one.fire(Event.LAUNCH)
    assert (other.state, other.history) == (CONFIGURED, ())


class Everything:
    """Implements all lifecycle hooks, and notes the state it saw in each."""

    name = "everything"

    def __init__(self) -> None:
        self.seen: list[tuple[str, State]] = []

    @hookimpl
    def pre_launch(self, machine: Machine) -> None:
        self.seen.append(("pre_launch", machine.state))

    @hookimpl
    async def post_launch(self, machine: Machine) -> None:
        self.seen.append(("post_launch", machine.state))

    @hookimpl
    async def early_cleanup(self, machine: Machine) -> None:
        self.seen.append(("early_cleanup", machine.state))

    @hookimpl
    def post_shutdown(self, machine: Machine) -> None:
        self.seen.append(("post_shutdown", machine.state))


@pytest.mark.parametrize("ending", [Event.EXITED, Event.FAIL])
def test_a_machine_runs_the_hooks_that_the_rows_say(bare: MakeMachine, ending: Event) -> None:
    plugin = Everything()
    machine = bare(plugin, expected_exits=[0] if ending is Event.EXITED else [])
    machine.launch()
    pid = machine.pid
    assert pid is not None
    until(lambda: catches(pid, signal.SIGTERM))
    os.kill(pid, signal.SIGTERM)
    with pytest.raises(AbnormalExit) if ending is Event.FAIL else contextlib.nullcontext():
        machine.wait(timeout=30)

    walk, states = [], []
    for row in TABLE:
        if row.event in {Event.LAUNCH, Event.LAUNCHED, Event.QUIT, ending}:
            hook, transition = ("hook", row.hook), ("transition", row.event.value)
            walk += [transition, hook] if row.hook_runs == "after" else [hook, transition]
            states.append((row.hook, row.dest if row.hook_runs == "after" else row.sources[-1]))
    recorded = [
        (record.kind, record.data["hook" if record.kind == "hook" else "event"])
        for record in machine.timeline
        if record.kind in {"hook", "transition"}
    ]
    assert recorded == walk
    assert [("transition", transition.event.value) for transition in machine.history] == [
        (kind, what) for kind, what in walk if kind == "transition"
    ]
    assert plugin.seen == states
