"""Observers: told everything once and in order, off the I/O thread, and never able to change anything."""

import logging
import threading
import time
from collections.abc import Callable, Sequence

import pytest

from tests.conftest import MakeMachine
from tests.waiting import LIMIT, SLACK, until
from vmfsm import LaunchError, Machine, Reason, Record, State, Transition, hookimpl
from vmfsm.observers import PATIENCE, Observers

ENDLESS = 60.0


class Observer:
    """Keeps all that it is told; may do something beside that."""

    def __init__(self, name: str = "observer", **does: Callable[[], object]) -> None:
        self.name = name
        self.does = does
        self.records_seen: list[Record] = []
        self.batches = 0
        self.transitions: list[Transition] = []
        self.threads: set[str] = set()
        self.at_once = threading.Lock()

    @hookimpl
    def records(self, machine: Machine, batch: Sequence[Record]) -> None:
        with self.alone():
            self.batches += 1
            self.records_seen += batch
            self.does.get("records", int)()

    @hookimpl
    def state_changed(self, machine: Machine, transition: Transition) -> None:
        with self.alone():
            self.transitions.append(transition)
            self.does.get("state_changed", int)()

    def alone(self) -> threading.Lock:
        self.threads.add(threading.current_thread().name)
        assert not self.at_once.locked(), "one call at a time"
        return self.at_once


class Flooding:
    """Adds records from a coroutine."""

    name = "flooding"

    @staticmethod
    async def flood(machine: Machine, number: int, size: int) -> None:
        for serial in range(number):
            machine.record("flood", {"serial": serial}, size=size)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls wait for observers for as long as those take on a busy machine."""
    monkeypatch.setattr(Observers.told, "__defaults__", (LIMIT,))


def raise_it() -> None:
    raise RuntimeError("no good")


@pytest.mark.usefixtures("patient")
def test_told_all_once_in_order_when_the_call_returns(bare: MakeMachine) -> None:
    observer = Observer()
    machine = bare(observer)
    for launch in range(1, 4):
        machine.launch()
        assert observer.transitions == list(machine.history)
        assert observer.records_seen == list(machine.timeline)
        assert len(observer.transitions) == 4 * launch - 2
        machine.shutdown()
        assert observer.transitions == list(machine.history)
        assert observer.records_seen == list(machine.timeline)
    assert all(name.startswith("vmfsm-observer-") for name in observer.threads), observer.threads


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    "end", [Machine.kill, lambda machine: machine.wait(timeout=30)], ids=["kill", "wait"]
)
def test_told_by_the_time_other_calls_return(bare: MakeMachine, end: Callable[[Machine], object]) -> None:
    observer = Observer()
    machine = bare(observer, args=["--version"])
    machine.launch()
    end(machine)
    assert observer.transitions == list(machine.history)
    assert observer.records_seen == list(machine.timeline)


@pytest.mark.usefixtures("patient")
def test_told_by_the_time_a_launch_has_failed(bare: MakeMachine) -> None:
    observer = Observer()
    machine = bare(observer, cwd="/nonexistent")
    with pytest.raises(LaunchError):
        machine.launch()
    assert [transition.dest for transition in observer.transitions] == [
        State.LAUNCHING,
        State.QUITTING,
        State.FAILED,
    ]
    assert observer.records_seen == list(machine.timeline)


@pytest.mark.usefixtures("patient")
def test_several_observers_are_told_the_same(bare: MakeMachine) -> None:
    observers = [Observer(name) for name in "abc"]
    bare(*observers).launch().shutdown()
    assert len({tuple(observer.transitions) for observer in observers}) == 1
    assert observers[0].records_seen == observers[1].records_seen == observers[2].records_seen


@pytest.mark.usefixtures("patient")
def test_many_records_arrive_once_and_in_order(bare: MakeMachine) -> None:
    observer = Observer()
    machine = bare(observer).launch()
    machine.run(Flooding.flood(machine, 10_000, 10), timeout=30, operation="flood")
    machine.shutdown()
    serials = [record.data["serial"] for record in observer.records_seen if record.kind == "flood"]
    assert serials == list(range(10_000)), "also those that the timeline has no room for any more"
    assert observer.batches < 1_000, "in batches, not one by one"


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("hook", ["records", "state_changed"])
def test_one_that_raises_is_logged_and_switched_off(
    bare: MakeMachine, caplog: pytest.LogCaptureFixture, hook: str
) -> None:
    observer, other = Observer("observer", **{hook: raise_it}), Observer("other")
    machine = bare(observer, other)
    with caplog.at_level(logging.ERROR, logger="vmfsm"):
        machine.launch()
    (logged,) = caplog.records
    assert machine.name in logged.getMessage()
    assert "'observer'" in logged.getMessage()
    assert logged.exc_info is not None
    assert isinstance(logged.exc_info[1], RuntimeError), "with its traceback"
    machine.shutdown()
    assert (machine.state, machine.reason) == (State.STOPPED, Reason.REQUESTED)
    assert len(caplog.records) == 1, "it was not called again"
    if hook == "records":
        assert observer.batches == 1
        assert observer.transitions == list(machine.history), "its other hook goes on"
    else:
        assert len(observer.transitions) == 1
        assert observer.records_seen == list(machine.timeline), "its other hook goes on"
    assert other.transitions == list(machine.history)
    assert other.records_seen == list(machine.timeline)
    machine.launch().shutdown()
    assert len(caplog.records) == 1


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("odd", [KeyboardInterrupt, SystemExit])
def test_what_is_no_exception_changes_nothing_either(
    bare: MakeMachine, caplog: pytest.LogCaptureFixture, odd: type[BaseException]
) -> None:
    def raise_odd() -> None:
        raise odd

    machine = bare(Observer(state_changed=raise_odd), Observer("other"))
    machine.launch().shutdown()
    assert machine.reason is Reason.REQUESTED
    assert len(caplog.records) == 1
    assert machine.plugin("other").transitions == list(machine.history)


@pytest.mark.usefixtures("patient")
def test_switched_off_for_this_machine_only(bare: MakeMachine, caplog: pytest.LogCaptureFixture) -> None:
    one = bare(Observer(records=raise_it)).launch()
    two = bare(healthy := Observer()).launch()
    one.shutdown()
    two.shutdown()
    assert len(caplog.records) == 1
    assert healthy.transitions == list(two.history)


def test_a_slow_one_loses_the_oldest_records_and_is_told(bare: MakeMachine) -> None:
    release = threading.Event()
    observer = Observer(records=lambda: release.wait(ENDLESS))
    machine = bare(observer)
    try:
        machine.launch()
        before, there = len(observer.records_seen), len(list(machine.timeline))
        machine.run(Flooding.flood(machine, 1_000, 1 << 20), timeout=30, operation="flood")
    finally:
        release.set()
    machine.shutdown()
    until(lambda: observer.records_seen[-1:] == list(machine.timeline)[-1:])
    seen = observer.records_seen[before:]
    floods = [record.data["serial"] for record in seen if record.kind == "flood"]
    assert 1 <= len(floods) <= 16, "16 MiB of them"
    assert floods == list(range(1_000 - len(floods), 1_000)), "the last ones, in order"
    (dropped,) = (record for record in seen if record.kind == "dropped")
    lost = dropped.data["records"]
    assert isinstance(lost, int)
    others = lost - (1_000 - len(floods))
    assert 0 <= others <= there, "a few records of the launch were waiting, too"
    assert seen == sorted(seen, key=lambda record: record.at)
    kinds = [record.kind for record in seen]
    assert kinds.index("dropped") < kinds.index("flood"), "it is told where the gap is"
    until(lambda: observer.transitions == list(machine.history))  # changes of state are never lost


def test_a_slow_one_holds_nobody_up_for_long(bare: MakeMachine) -> None:
    release = threading.Event()
    observer = Observer(records=lambda: release.wait(ENDLESS))
    machine = bare(observer)
    try:
        begin = time.monotonic()
        machine.launch()
        machine.shutdown()
        assert time.monotonic() - begin < 2 * PATIENCE + SLACK
        assert machine.reason is Reason.REQUESTED
    finally:
        release.set()
    until(lambda: observer.records_seen == list(machine.timeline))
    until(lambda: observer.transitions == list(machine.history))


@pytest.mark.usefixtures("patient")
def test_an_observer_may_read_the_machine(bare: MakeMachine) -> None:
    seen: list[object] = []
    observer = Observer()
    machine = bare(observer)
    observer.does["state_changed"] = lambda: seen.append((machine.state, machine.pid, machine.command))
    machine.launch().shutdown()
    assert len(seen) == 4


def test_an_observer_may_not_wait_for_its_machine(
    bare: MakeMachine, caplog: pytest.LogCaptureFixture
) -> None:
    observer = Observer()
    machine = bare(observer)
    observer.does["state_changed"] = machine.kill
    machine.launch().shutdown()
    (logged,) = caplog.records
    assert logged.exc_info is not None
    assert type(logged.exc_info[1]).__name__ == "TransitionError"
    assert machine.reason is Reason.REQUESTED
