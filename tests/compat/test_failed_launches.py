"""Launches that fail: at once, with QEMU's words, and with nothing left."""

import errno
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from qemu.qmp import ConnectError

from tests.compat.conftest import MakeVM
from tests.waiting import SLACK, is_alive
from vmfsm import MachineDied, MachineTimeout
from vmfsm.compat import QEMUMachine, QEMUMachineError, VMLaunchFailure

MODES = ["pair", "path", "port", "sock_dir"]


def mode(name: str, directory: str) -> dict[str, Any]:
    modes: dict[str, dict[str, Any]] = {
        "pair": {},
        "path": {"monitor_address": f"{directory}/m"},
        "port": {"monitor_address": ("localhost", 0)},
        "sock_dir": {"sock_dir": directory},
    }
    return modes[name]


def failure(vm: QEMUMachine) -> VMLaunchFailure:
    with pytest.raises(VMLaunchFailure) as caught:
        vm.launch()
    assert not vm._launched
    assert not vm.is_running()
    assert vm.get_pid() is None
    vm.shutdown()  # nothing is to be done
    vm.wait()
    vm.kill()
    return caught.value


@pytest.mark.parametrize("where", MODES)
def test_unknown_option(make_vm: MakeVM, qemu: str, short_dir: str, tmp_path: Path, where: str) -> None:
    vm = make_vm("-unknown", qmp_timer=None, **mode(where, short_dir))
    begin = time.monotonic()
    error = failure(vm)
    assert time.monotonic() - begin < SLACK  # and not 30 s, or for ever
    assert error.exitcode == vm.exitcode() == 1
    assert error.command == " ".join(vm._qemu_full_args)
    assert error.args == (1, error.command, error.output)
    assert error.output == vm.get_log() == f"{qemu}: -unknown: invalid option\n"
    assert isinstance(error, QEMUMachineError)
    cause = error.__cause__
    assert isinstance(cause, ConnectError)
    assert isinstance(cause.exc, EOFError)
    assert isinstance(cause.__cause__, MachineDied) or cause.__cause__ is not None
    assert str(error).splitlines() == [
        f"ConnectError: {cause}",
        "\tExit code: 1",
        f"\tCommand: {error.command}",
        f"\tOutput: {qemu}: -unknown: invalid option",
    ]
    assert os.listdir(short_dir) == []
    assert os.listdir(tmp_path) == ["s"]
    vm.args[:] = ["-M", "none"]
    vm.launch()
    assert vm.exitcode() is None
    assert vm.get_log() is None


@pytest.mark.parametrize("where", MODES)
def test_silent(make_vm: MakeVM, short_dir: str, where: str) -> None:
    vm = make_vm(wrapper=["sh", "-c", "echo hello; exec sleep 1000"], qmp_timer=0.3, **mode(where, short_dir))
    begin = time.monotonic()
    error = failure(vm)
    assert 0.3 <= time.monotonic() - begin < 0.3 + SLACK
    assert isinstance(error.__cause__, TimeoutError)
    assert isinstance(error.__cause__.__cause__, MachineTimeout)
    assert error.exitcode == vm.exitcode() == -signal.SIGKILL
    assert error.output == "hello\n"
    assert not is_alive(vm._popen.pid)  # type: ignore[union-attr]


@pytest.mark.parametrize("where", MODES)
def test_stopped(make_vm: MakeVM, short_dir: str, where: str) -> None:
    vm = make_vm(
        wrapper=["sh", "-c", 'kill -STOP $$; exec "$@"', "sh"], qmp_timer=0.3, **mode(where, short_dir)
    )
    assert isinstance(failure(vm).__cause__, TimeoutError)


@pytest.mark.parametrize("where", MODES)
def test_not_qmp(make_vm: MakeVM, short_dir: str, where: str) -> None:
    vm = make_vm(wrapper=["sh", "-c", "exit 0"], **mode(where, short_dir))
    error = failure(vm)
    assert (error.exitcode, error.output) == (0, "")
    assert isinstance(error.__cause__, ConnectError)


def test_missing_binary(make_vm: MakeVM) -> None:
    vm = make_vm(binary="/nowhere/qemu")
    error = failure(vm)
    assert (error.exitcode, error.output) == (None, "")
    assert isinstance(error.__cause__, FileNotFoundError)
    assert str(error).startswith("FileNotFoundError: ")
    assert "Exit code" not in str(error)


def test_not_executable(make_vm: MakeVM, tmp_path: Path) -> None:
    (tmp_path / "qemu").write_text("")
    assert isinstance(failure(make_vm(binary=str(tmp_path / "qemu"))).__cause__, PermissionError)


def test_log_dir_missing(make_vm: MakeVM, tmp_path: Path) -> None:
    vm = make_vm(log_dir=str(tmp_path / "nowhere"))
    error = failure(vm)
    assert isinstance(error.__cause__, FileNotFoundError)
    assert error.args == (None, "", None)


def test_base_dir_missing(make_vm: MakeVM, tmp_path: Path) -> None:
    error = failure(make_vm(base_temp_dir=str(tmp_path / "nowhere")))
    assert isinstance(error.__cause__, FileNotFoundError)


def test_path_too_long(make_vm: MakeVM, tmp_path: Path) -> None:
    cause = failure(make_vm(monitor_address=f"/tmp/{'x' * 200}")).__cause__
    assert isinstance(cause, OSError)
    assert (cause.errno, cause.filename) == (errno.ENAMETOOLONG, f"/tmp/{'x' * 200}")


def test_port_in_use(make_vm: MakeVM) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        error = failure(make_vm(monitor_address=("127.0.0.1", other.getsockname()[1])))
    assert isinstance(error.__cause__, OSError)


def test_path_in_use_by_a_living_listener(make_vm: MakeVM, short_dir: str) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(f"{short_dir}/m")
        other.listen()
        error = failure(make_vm(monitor_address=f"{short_dir}/m"))
        assert isinstance(error.__cause__, OSError)


def test_path_is_a_file(make_vm: MakeVM, short_dir: str) -> None:
    path = Path(short_dir, "m")
    path.write_text("precious")
    error = failure(make_vm(monitor_address=str(path)))
    assert isinstance(error.__cause__, OSError)
    assert path.read_text() == "precious"


def test_stale_socket(make_vm: MakeVM, short_dir: str) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(f"{short_dir}/m")
    vm = make_vm(monitor_address=f"{short_dir}/m")
    vm.launch()
    assert vm.is_running()


@pytest.mark.parametrize("where", ["path", "port"])
def test_strangers_are_not_taken_for_qemu(make_vm: MakeVM, short_dir: str, where: str) -> None:
    """Before QEMU comes, others have: one that says nothing, and one that goes."""
    program = (
        "import os, socket, sys, time\n"
        "chardev = next(a for a in sys.argv if a.startswith('socket,id=mon'))\n"
        "parts = dict(p.split('=', 1) for p in chardev.split(',')[1:])\n"
        "def connect():\n"
        "    if 'path' in parts:\n"
        "        s = socket.socket(socket.AF_UNIX); s.connect(parts['path']); return s\n"
        "    return socket.create_connection((parts['host'], int(parts['port'])))\n"
        "connect().close(); silent = connect(); os.set_inheritable(silent.fileno(), True)\n"
        "os.execvp(sys.argv[1], sys.argv[1:])\n"
    )
    vm = make_vm(wrapper=[sys.executable, "-c", program], **mode(where, short_dir))
    vm.launch()
    assert vm.cmd("query-status")["running"]


def test_relaunch_that_fails_tells_nothing_of_the_run_before(make_vm: MakeVM, qemu: str) -> None:
    vm = make_vm()
    vm.launch()
    vm.kill()
    assert vm.exitcode() == -9
    vm._binary = "/nowhere/qemu"
    error = failure(vm)
    assert error.exitcode is None
    assert vm.exitcode() is None


def test_without_a_monitor_a_launch_does_not_wait(make_vm: MakeVM) -> None:
    vm = make_vm("-unknown")
    vm.set_qmp_monitor(False)
    vm.launch()
    vm.wait()
    assert vm.exitcode() == 1
    log = vm.get_log()
    assert log is not None
    assert log.endswith("invalid option\n")


def test_what_the_argument_list_can_hold(make_vm: MakeVM) -> None:
    for wrong in (5, None, b"x", "\0"):
        vm = make_vm()
        vm.args.append(wrong)  # type: ignore[arg-type]
        error = failure(vm)
        assert isinstance(error.__cause__, QEMUMachineError)
    assert isinstance(failure(make_vm("-daemonize")).__cause__, QEMUMachineError)


@pytest.mark.parametrize("limit", [0, 0.001, 0.01])
def test_no_time(make_vm: MakeVM, tmp_path: Path, limit: float) -> None:
    error = failure(make_vm(qmp_timer=limit))
    assert isinstance(error.__cause__, TimeoutError)
    assert error.exitcode in {None, -signal.SIGKILL}
    assert os.listdir(tmp_path) == []
