"""A guest that panics: a verdict that who waits for the guest is told of, and no ending."""

from collections.abc import Callable, Iterator

import pytest

from tests.endings import TIMEOUT, MakeGuest, assert_ended, guests, until_guest_is_up
from tests.waiting import InThread, until
from vmfsm import GuestPanicked, Machine, MachineTimeout, Reason, State

WAITS: dict[str, Callable[[Machine, float], object]] = {
    "wait": lambda vm, timeout: vm.wait(timeout),
    "expect": lambda vm, timeout: vm.console.expect("never", timeout=timeout),
    "wait_event": lambda vm, timeout: vm.qmp.wait_event("DEVICE_DELETED", timeout=timeout),
    "wait_any": lambda vm, timeout: vm.qmp.wait_any([("DEVICE_DELETED", None)], timeout=timeout),
}
PANIC = {"more": ["-action", "panic=pause"]}


@pytest.fixture
def guest(qemu: str) -> Iterator[MakeGuest]:
    """Makes machines with the tiny guest."""
    with guests(qemu) as make:
        yield make


def assert_lives_on(vm: Machine) -> None:
    """The verdict was told: the machine runs, later calls work, and it ends well."""
    assert (vm.state, vm.run_state) == (State.RUNNING, "guest-panicked")
    for wait in WAITS.values():
        with pytest.raises(MachineTimeout):
            wait(vm, 0.01)
    assert vm.qmp.execute("query-status")["status"] == "guest-panicked"
    vm.shutdown()
    assert vm.wait(TIMEOUT) == 0
    assert_ended(vm, State.STOPPED, Reason.REQUESTED, 0)


def assert_verdict(error: GuestPanicked, vm: Machine) -> None:
    assert (error.machine, error.state) == (vm.name, State.RUNNING)
    assert error.verdict is not None
    assert (error.verdict.kind, error.verdict.where) == ("guest-panicked", "qmp")
    assert error.verdict.what["event"] == "GUEST_PANICKED"
    assert "ready" in error.evidence.console
    assert "GUEST_PANICKED" in [event["event"] for event in error.evidence.events]


def test_all_who_wait_are_told_of_a_panic(guest: MakeGuest) -> None:
    vm = guest(**PANIC).launch()
    until_guest_is_up(vm)
    waiting = [InThread(wait, vm, TIMEOUT) for wait in WAITS.values()]
    assert vm._launch is not None
    calls = vm._launch.calls
    until(lambda: len(calls.in_progress) == len(waiting))
    vm.console.sendline("panic")
    for call in waiting:
        with pytest.raises(GuestPanicked) as caught:
            call.result()
        assert_verdict(caught.value, vm)
    assert_lives_on(vm)


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_who_waits_after_a_panic_is_told_once(
    guest: MakeGuest, wait: Callable[[Machine, float], object]
) -> None:
    vm = guest(**PANIC).launch()
    until_guest_is_up(vm)
    vm.console.sendline("panic")
    until(lambda: vm.run_state == "guest-panicked")
    with pytest.raises(GuestPanicked) as caught:
        wait(vm, TIMEOUT)
    assert_verdict(caught.value, vm)
    assert_lives_on(vm)


def test_a_panic_that_nobody_waited_for_spoils_no_shutdown(guest: MakeGuest) -> None:
    with guest(**PANIC).launch() as vm:
        until_guest_is_up(vm)
        vm.console.sendline("panic")
        until(lambda: vm.run_state == "guest-panicked")
    assert_ended(vm, State.STOPPED, Reason.REQUESTED, 0)
    assert vm.wait(TIMEOUT) == 0
