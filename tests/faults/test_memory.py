"""A QEMU that is not given the memory it asks for. For the one that is killed: `test_out_of_memory.py`."""

import pytest
from vmfsm_plugins.qmp import QMPCommandError

from tests.endings import MakeGuest, assert_ended, until_guest_is_up
from vmfsm import LaunchError, Reason, State

LIMIT = 3 << 30
"""Of its address space: a QEMU as such takes less than one third of it."""
LIMITED = ["prlimit", f"--as={LIMIT}"]


def test_at_launch(guest: MakeGuest) -> None:
    vm = guest(wrapper=LIMITED, more=["-m", "8G"])
    with pytest.raises(LaunchError, match="Cannot allocate memory") as caught:
        vm.launch()
    assert caught.value.exit_status == 1
    assert "Cannot allocate memory" in caught.value.output
    assert_ended(vm, State.FAILED, Reason.LAUNCH_ERROR, 1)


def test_while_it_runs(guest: MakeGuest) -> None:
    """It says so, and goes on."""
    vm = guest(wrapper=LIMITED).launch()
    until_guest_is_up(vm)
    with pytest.raises(QMPCommandError, match=r"Cannot allocate memory|cannot set up guest memory"):
        vm.qmp.execute("object-add", qom_type="memory-backend-ram", id="big", size=2 * LIMIT)
    vm.console.sendline("ping")
    vm.console.expect("pong")
    vm.shutdown()
    assert_ended(vm, State.STOPPED, Reason.REQUESTED, 0)
