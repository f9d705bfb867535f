"""Two projects outside of QEMU."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from qemu.machine.machine import VMLaunchFailure

from tests.compat.standins.conftest import RunCode
from tests.compat.standins.external import AttachedMachine, BareMachine
from tests.waiting import is_alive, until
from vmfsm.testing import GUEST_ARGS


@pytest.fixture
def attached(qemu: str, tmp_path: Path) -> Iterator[AttachedMachine]:
    vm = AttachedMachine(qemu, GUEST_ARGS, base_temp_dir=str(tmp_path))
    yield vm
    vm.kill()
    vm.forget()


@pytest.mark.parametrize("way", ["pair", "path", "without"])
def test_own_command_line_and_own_process(qemu: str, tmp_path: Path, way: str) -> None:
    args = ["-display", "none", *GUEST_ARGS]
    address = str(tmp_path / "monitor") if way == "path" else None
    vm = BareMachine(qemu, args, base_temp_dir=str(tmp_path), monitor_address=address)
    vm.set_machine("pc")
    vm.set_console(device_type="isa-serial")
    vm.set_qmp_monitor(way != "without")
    for _ in range(2):
        vm.launch()
        text = b""
        while b"ready" not in text:
            byte = vm.console_socket.recv(1)
            assert byte, text
            text += byte
        if way != "without":
            assert vm.cmd("query-status")["status"] == "running"
        assert "-vga" not in vm._qemu_full_args
        vm.console_socket.sendall(b"poweroff\n")
        vm.wait()
        assert vm.exitcode() == 0
    vm.add_args("-no-such-option")
    if way == "without":
        vm.launch()
        vm.wait()
    else:
        with pytest.raises(VMLaunchFailure, match="-no-such-option: invalid option"):
            vm.launch()
    assert vm.exitcode() == 1
    assert "-no-such-option: invalid option" in str(vm.get_log())


def test_killed_with_its_machine_running(run_code: RunCode, qemu: str, tmp_path: Path) -> None:
    result = run_code(str(Path(__file__).with_name("external_script.py")), str(tmp_path))
    assert result.returncode == -signal.SIGKILL
    pid, status = result.stdout.split()
    assert status == "running"
    until(lambda: not is_alive(int(pid)))


def test_a_thread_that_reads_the_console(attached: AttachedMachine) -> None:
    for _ in range(2):
        attached.said.clear()
        attached.launch()
        until(lambda: b"ready" in attached.said)
        attached.type(b"ping\n")
        until(lambda: b"pong" in attached.said)
        assert attached.log_so_far() == ""
        os.kill(attached.get_pid() or 0, signal.SIGTERM)
        attached.wait()
        log = attached.get_log()
        assert log is not None
        assert "terminating on signal 15" in log


def test_what_it_said_last_is_read(attached: AttachedMachine) -> None:
    attached.launch()
    until(lambda: b"ready" in attached.said)
    attached.type(b"exit 5\n")
    until(lambda: not attached.is_running())
    assert attached.exitcode() == 11
    assert attached.log_so_far() == ""
    attached.wait()
    assert b"echo: exit 5" in attached.said
