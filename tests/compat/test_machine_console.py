"""The console of a `QEMUMachine`: all of it is there from power-on, and nobody ever waits for its reader."""

import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import until
from vmfsm.compat import QEMUMachine, QEMUMachineError
from vmfsm.testing import GUEST_ARGS

MakeMachine = Callable[..., QEMUMachine]


@pytest.fixture(params=["pair", "path", "path without monitor"])
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Mapping[str, Any]:
    """How QEMU's console is reached."""
    if request.param == "pair":
        return {}
    return {"sock_dir": str(tmp_path), "qmp": request.param == "path"}


@pytest.fixture
def make(qemu: str, tmp_path: Path) -> Iterator[MakeMachine]:
    """Makes machines with a console; kills them at the end."""
    machines = []

    def make(*, qmp: bool = True, **parameters: Any) -> QEMUMachine:
        vm = QEMUMachine(qemu, GUEST_ARGS, base_temp_dir=str(tmp_path), **parameters)
        machines.append(vm)
        vm.set_console()
        vm.set_qmp_monitor(qmp)
        return vm

    yield make
    for vm in machines:
        vm.kill()


def read_until(console: socket.socket, pattern: bytes) -> bytes:
    """As old code does it: byte by byte."""
    text = b""
    while pattern not in text:
        byte = console.recv(1)
        assert byte, f"the end, after {text!r}"
        text += byte
    return text


def test_a_guest_is_talked_to(make: MakeMachine, way: Mapping[str, Any]) -> None:
    vm = make(**way)
    vm.launch()
    read_until(vm.console_socket, b"ready")
    vm.console_socket.sendall(b"ping\n")
    read_until(vm.console_socket, b"pong")
    vm.shutdown()


def test_all_since_power_on_however_late(make: MakeMachine, tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    vm = make(console_log=str(log))
    vm.launch()
    until(lambda: b"ready" in log.read_bytes())
    assert read_until(vm.console_socket, b"ready") in log.read_bytes()
    vm.shutdown()


@pytest.mark.parametrize("drain", [False, True])
def test_a_guest_that_nobody_reads_goes_on(make: MakeMachine, tmp_path: Path, drain: bool) -> None:
    """QEMU's socket takes some hundred writes of a byte; who reads at last misses nothing."""
    log = tmp_path / "console.log"
    vm = make(console_log=str(log), drain_console=drain)
    vm.launch()
    console = vm.console_socket
    read_until(console, b"ready")
    console.sendall(b"flood\n")
    until(lambda: log.stat().st_size > 50_000)
    assert vm.cmd("query-status")["running"]
    vm.cmd("stop")
    text = read_until(console, b"\n")
    while text.count(b"\n") < 1000:
        text += console.recv(65536)
    assert text in log.read_bytes()
    vm.shutdown()
    assert vm.exitcode() == 0


def test_the_file_is_written_though_nobody_asks_for_the_console(make: MakeMachine, tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    vm = make(console_log=str(log))
    for _ in range(2):
        vm.launch()
        until(lambda: b"ready" in log.read_bytes())
        vm.shutdown()
    assert log.read_bytes().count(b"ready") == 1  # of this launch alone


def test_a_file_that_cannot_be_opened(make: MakeMachine, tmp_path: Path) -> None:
    vm = make(console_log=str(tmp_path / "not" / "there"))
    with pytest.raises(QEMUMachineError, match="No such file"):
        vm.launch()
    assert not vm.is_running()


def test_what_it_said_last_is_there_after_its_end(make: MakeMachine, way: Mapping[str, Any]) -> None:
    vm = make(**way)
    vm.launch()
    console = vm.console_socket
    text = read_until(console, b"ready")
    console.sendall(b"ping\npoweroff\n")
    while byte := console.recv(1):
        text += byte
    assert b"pong" in text
    assert console.recv(1) == b""
    vm.wait()


def test_the_end_of_a_killed_qemu(make: MakeMachine, way: Mapping[str, Any]) -> None:
    vm = make(**way)
    vm.launch()
    file = vm.console_file
    assert file.read(1)
    pid = vm.get_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while file.read(1):
        pass
    assert file.read(1) == b""
    vm.kill()


def test_it_can_be_closed_and_asked_for_again(make: MakeMachine) -> None:
    vm = make()
    vm.launch()
    first = vm.console_socket
    assert vm.console_socket is first
    first.settimeout(1)
    read_until(first, b"re")
    first.close()
    vm._console_socket = None
    assert vm.console_socket.gettimeout() is None
    read_until(vm.console_socket, b"ady")
    vm.console_socket.close()
    vm.shutdown()


def test_the_raw_end(make: MakeMachine) -> None:
    """Some old code reads that one."""
    vm = make()
    vm.launch()
    assert vm._cons_sock_pair is not None
    theirs, ours = vm._cons_sock_pair
    assert theirs.fileno() == -1
    read_until(ours, b"ready")
    vm.shutdown()


def test_a_relaunch_begins_anew(make: MakeMachine, way: Mapping[str, Any]) -> None:
    vm = make(**way)
    texts = []
    for _ in range(2):
        vm.launch()
        texts.append(read_until(vm.console_socket, b"ready"))
        vm.shutdown()
    assert texts[0].count(b"ready") == texts[1].count(b"ready") == 1


def test_the_command_line(make: MakeMachine, tmp_path: Path) -> None:
    vm = make(sock_dir=str(tmp_path), name="it")
    path = f"socket,id=console,path={tmp_path}/it-console.sock,server=on,wait=off"
    vm.launch()
    assert vm._qemu_full_args[9:13] == ("-chardev", path, "-serial", "chardev:console")
    assert os.path.exists(f"{tmp_path}/it-console.sock")
    vm.shutdown()
    assert not os.path.exists(f"{tmp_path}/it-console.sock")


def test_a_machine_without_a_console(qemu: str) -> None:
    vm = QEMUMachine(qemu, GUEST_ARGS)
    with pytest.raises(QEMUMachineError, match="console"):
        _ = vm.console_socket
    vm.launch()
    with pytest.raises(QEMUMachineError, match="console"):
        _ = vm.console_file
    vm.shutdown()


def test_a_failed_launch_leaves_nothing(make: MakeMachine, way: Mapping[str, Any]) -> None:
    vm = make(**way)
    vm.add_args("-nonsense")
    if way.get("qmp", True):
        with pytest.raises(QEMUMachineError, match="nonsense"):
            vm.launch()
    else:
        vm.launch()
        vm.wait()
    assert vm.exitcode() == 1


def test_a_launch_that_never_comes_to_qemu_leaves_nothing(tmp_path: Path, way: Mapping[str, Any]) -> None:
    vm = QEMUMachine("/not/there", base_temp_dir=str(tmp_path), sock_dir=way.get("sock_dir"))
    vm.set_console()
    for log_dir in (None, "/not/there"):  # the second fails before there is a process to be started
        vm._log_dir = log_dir
        with pytest.raises(QEMUMachineError, match="FileNotFoundError"):
            vm.launch()
