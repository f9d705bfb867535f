"""Calls that begin when one launch is over, and get to the I/O thread when the next has begun."""

import functools
from collections.abc import Callable
from typing import Any

import pytest

from tests.hooked import Blocked, released
from tests.plugins.monitors import MakeMachine
from tests.waiting import InThread
from vmfsm import Machine, TransitionError, hookimpl

Call = Callable[[Any], Any]


class First:
    """Blocks the launch before the monitor's part of it, where it is told to."""

    name = "first"
    before = ("qmp",)

    def __init__(self) -> None:
        self.block: Blocked | None = None

    @hookimpl
    def pre_launch(self, machine: Machine) -> None:
        if self.block is not None:
            self.block(machine)


def first_launch_again(vm: Machine, again: Callable[[], object], patch: pytest.MonkeyPatch) -> None:
    """`again` is called in the middle of the next call of the monitor's."""
    run = vm.run

    def launch_and_run(*args: Any, **kw: Any) -> Any:
        patch.undo()
        again()
        return run(*args, **kw)

    patch.setattr(vm, "run", launch_and_run)


@pytest.mark.parametrize(
    ("call", "found"),
    [
        (lambda qmp: qmp.execute("query-status")["status"], "paused"),
        (lambda qmp: qmp.wait_event("STOP")["event"], "STOP"),
        (lambda qmp: qmp.reconnect(), None),
    ],
    ids=["execute", "wait_event", "reconnect"],
)
def test_it_is_for_the_new_qemu(
    monitored: MakeMachine, monkeypatch: pytest.MonkeyPatch, call: Call, found: object
) -> None:
    vm = monitored()
    vm.shutdown()

    def again() -> None:
        vm.launch()
        vm.qmp.execute("stop")

    first_launch_again(vm, again, monkeypatch)
    assert call(vm.qmp) == found


@pytest.mark.parametrize(
    "call",
    [
        lambda qmp: qmp.execute("query-status"),
        lambda qmp: qmp.wait_event("STOP"),
        lambda qmp: qmp.reconnect(),
    ],
    ids=["execute", "wait_event", "reconnect"],
)
def test_there_is_no_new_monitor_yet(
    monitored: MakeMachine, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    first = First()
    vm = monitored(first)
    vm.shutdown()
    first.block = blocked = Blocked()
    launching: list[InThread] = []

    def again() -> None:
        launching.append(InThread(functools.partial(vm.launch)))
        assert blocked.began.wait(30)

    first_launch_again(vm, again, monkeypatch)
    with released(blocked), pytest.raises(TransitionError, match="the monitor is not connected yet"):
        call(vm.qmp)
    launching[0].result()
