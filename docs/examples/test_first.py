"""A first test of a virtual machine, for pytest."""

from collections.abc import Iterator

import pytest

from vmfsm import Machine, MachineTimeout, Reason, State, format_timeline
from vmfsm.testing import GUEST_ARGS


@pytest.fixture
def vm() -> Iterator[Machine]:
    """A machine that is up: each test gets one of its own, and nothing of it is left after the test."""
    machine = Machine("qemu-system-x86_64", GUEST_ARGS)
    try:
        with machine:
            machine.launch()
            machine.console.expect("guest ready")
            yield machine
    finally:
        print(format_timeline(machine.timeline))  # pytest shows this for tests that fail


def test_the_guest_answers(vm: Machine) -> None:
    vm.console.sendline("ping")
    vm.console.expect("pong", timeout=10)


def test_a_paused_guest_is_silent(vm: Machine) -> None:
    vm.qmp.execute("stop")
    vm.console.sendline("ping")
    with pytest.raises(MachineTimeout):
        vm.console.expect("pong", timeout=0.5)
    vm.qmp.execute("cont")
    vm.console.expect("pong", timeout=10)


def test_the_guest_powers_off(vm: Machine) -> None:
    vm.console.sendline("poweroff")
    assert vm.wait(timeout=30) == 0
    assert (vm.state, vm.reason) == (State.STOPPED, Reason.GUEST_SHUTDOWN)
