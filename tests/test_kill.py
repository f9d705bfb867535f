"""`kill()` in every state."""

import signal
import threading
from collections.abc import Iterator

import pytest

from tests.endings import TIMEOUT, MakeGuest, assert_ended, guests, spoiler, stop_process, up
from tests.waiting import InThread, until
from vmfsm import LaunchError, LaunchPlan, Reason, State


@pytest.fixture
def guest(qemu: str) -> Iterator[MakeGuest]:
    """Makes machines with the tiny guest."""
    with guests(qemu) as make:
        yield make


def test_configured(guest: MakeGuest) -> None:
    vm = guest()
    vm.kill()
    assert (vm.state, vm.reason, vm.exit_status, vm.history) == (State.CONFIGURED, None, None, ())


def test_launching_before_there_is_a_process(guest: MakeGuest) -> None:
    vm, began, go = guest(), threading.Event(), threading.Event()

    def planning(plan: LaunchPlan) -> None:
        began.set()
        assert go.wait(60)

    spoiler(vm).planning = planning
    launching = InThread(vm.launch)
    assert began.wait(TIMEOUT)
    killing = InThread(vm.kill)
    until(lambda: vm._launch is not None and vm._launch._killed)
    go.set()
    killing.result()
    with pytest.raises(LaunchError, match="kill"):
        launching.result()
    assert_ended(vm, State.STOPPED, Reason.KILLED, None)


@pytest.mark.parametrize("stopped", [True, False])
def test_running(guest: MakeGuest, stopped: bool) -> None:
    vm = up(guest)
    watcher = InThread(vm.wait)
    if stopped:
        stop_process(vm.pid)
    vm.kill()
    assert watcher.result() == -signal.SIGKILL
    assert_ended(vm, State.STOPPED, Reason.KILLED, -signal.SIGKILL)


def test_quitting_behind_a_hook(guest: MakeGuest) -> None:
    vm, began, go = up(guest), threading.Event(), threading.Event()

    def quitting() -> None:
        began.set()
        assert go.wait(60)

    spoiler(vm).quitting = quitting
    ending = InThread(vm.shutdown, timeout=60)
    assert began.wait(TIMEOUT)
    assert vm.state is State.QUITTING
    killing = InThread(vm.kill)
    until(lambda: vm.pid is None)
    assert not killing.over, "it waits for who cleans up"
    go.set()
    killing.result()
    ending.result()
    assert_ended(vm, State.STOPPED, Reason.KILLED, -signal.SIGKILL)


def test_quitting_in_vain(guest: MakeGuest) -> None:
    vm = up(guest)
    stop_process(vm.pid)
    ending = InThread(vm.shutdown, timeout=60)
    until(lambda: vm.state is State.QUITTING)
    vm.kill()
    ending.result()
    assert_ended(vm, State.STOPPED, Reason.KILLED, -signal.SIGKILL)


# From `launching` with a process, `stopped` and `failed`: in the tests of each ending.
