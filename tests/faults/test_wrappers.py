"""Wrappers that do not pass on what they get. Those that do are in `test_process.py`."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.endings import MakeGuest, assert_ended, until_guest_is_up
from vmfsm import AbnormalExit, LaunchError, MachineDied, Reason, State
from vmfsm.proc import Identity, living
from vmfsm.registry import MARK, machines


def inside(name: str) -> set[Identity]:
    """The processes of a machine."""
    marks = {entry.mark for entry in machines() if entry.name == name}
    return {process.identity for process in living() if process.environment(MARK) in marks}


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Path]:
    """What a wrapper reads from until something is written to it."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR)
    yield path
    os.close(fd)


SWALLOWS = ["sh", "-c", 'trap "" INT TERM HUP; "$@" & wait; exit 0', "sh"]


def test_one_that_swallows_signals(guest: MakeGuest) -> None:
    """QEMU inherits that they are ignored, but for those that it handles itself."""
    vm = guest(wrapper=SWALLOWS).launch()
    until_guest_is_up(vm)
    vm.shutdown()
    assert_ended(vm, State.STOPPED, Reason.REQUESTED, 0)


def test_one_that_swallows_signals_and_outlives_qemu(guest: MakeGuest) -> None:
    """It has to be killed, and whoever asked for the end is told."""
    wrapper = ["sh", "-c", 'trap "" INT TERM HUP; "$@" & while :; do sleep 1000; done', "sh"]
    vm = guest(wrapper=wrapper).launch()
    until_guest_is_up(vm)
    with pytest.raises(AbnormalExit, match="SIGKILL"):
        vm.shutdown(timeout=1)
    assert_ended(vm, State.FAILED, Reason.WEDGED, -signal.SIGKILL)


def test_one_that_ends_before_qemu(guest: MakeGuest, fifo: Path) -> None:
    """It is what the machine lives by: QEMU goes with it."""
    vm = guest(name="left", wrapper=["sh", "-c", f'"$@" & read line < {fifo}; exit 4', "sh"]).launch()
    until_guest_is_up(vm)
    processes = inside("left")
    assert len(processes) == 2
    fifo.write_text("go\n")
    with pytest.raises(MachineDied) as died:
        vm.console.expect("never", timeout=600)
    assert (died.value.exit_status, died.value.reason) == (4, Reason.QEMU_EXIT)
    assert not any(process.is_alive for process in processes)
    assert_ended(vm, State.FAILED, Reason.QEMU_EXIT, 4)


def test_one_that_ends_at_once(guest: MakeGuest) -> None:
    vm = guest(wrapper=["sh", "-c", '"$@" & exit 5', "sh"])
    with pytest.raises(LaunchError, match="status 5") as caught:
        vm.launch(timeout=600)
    assert caught.value.exit_status == 5
    assert_ended(vm, State.FAILED, Reason.LAUNCH_ERROR, 5)


def test_one_that_ends_before_a_qemu_in_a_session_of_its_own(guest: MakeGuest, fifo: Path) -> None:
    """QEMU is not in its process group any more, and found by its environment."""
    vm = guest(name="moved", wrapper=["sh", "-c", f'setsid "$@" & read line < {fifo}; exit 4', "sh"]).launch()
    until_guest_is_up(vm)
    processes = inside("moved")
    assert len(processes) == 2
    assert {process.session for process in living() if process.identity in processes} != {vm.pid}
    fifo.write_text("go\n")
    with pytest.raises(AbnormalExit, match="status 4"):
        vm.wait(600)
    assert not any(process.is_alive for process in processes)
    assert_ended(vm, State.FAILED, Reason.QEMU_EXIT, 4)


def test_one_that_detaches_qemu_at_once(guest: MakeGuest) -> None:
    vm = guest(wrapper=["setsid", "--fork"])
    with pytest.raises(LaunchError, match="status 0"):
        vm.launch(timeout=600)
    assert_ended(vm, State.FAILED, Reason.LAUNCH_ERROR, 0)


def test_one_that_ends_before_qemu_while_launching_again(guest: MakeGuest, fifo: Path) -> None:
    """The next launch is not disturbed by what the last one left."""
    vm = guest(wrapper=["sh", "-c", f'"$@" & read line < {fifo}; exit 4', "sh"])
    for _ in range(3):
        vm.launch()
        until_guest_is_up(vm)
        fifo.write_text("go\n")
        with pytest.raises(AbnormalExit):
            vm.wait(600)
        assert_ended(vm, State.FAILED, Reason.QEMU_EXIT, 4)
