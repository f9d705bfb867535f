"""What a drop-in must do, point by point: which test shows it; and, below, what no other one does."""

import os
import re
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.compat.conftest import MakeVM
from tests.waiting import is_alive, until
from vmfsm.compat import (
    AbnormalShutdown,
    QEMUMachine,
    QEMUMachineAddDeviceError,
    QEMUMachineError,
    QEMUQtestMachine,
    VMLaunchFailure,
)
from vmfsm.testing import GUEST_ARGS

HERE = Path(__file__).parent

POINTS = {
    "import paths": [
        "installing::test_old_imports",
        "acceptance::test_exceptions",
        "standins/functional::test_functional",
    ],
    "the command line": [
        "command_line::test_everything",
        "command_line::test_sock_dir",
        "qtest::test_the_command_line_with_a_pair",
        "qtest::test_the_command_line_with_a_path",
        "subclasses::test_extending",
    ],
    "every parameter": [
        "constructor::test_positions",
        "acceptance::test_every_parameter",
        "qtest::test_the_constructor_of_every_revision",
    ],
    "an unknown option": [
        "failed_launches::test_unknown_option",
        "standins/combinations::test_verdicts_are_qemus",
    ],
    "a silent binary": [
        "failed_launches::test_silent",
        "failed_launches::test_stopped",
    ],
    "a stopped QEMU": [
        "shutdown::test_stopped_by_a_signal",
        "acceptance::test_a_stopped_qemu",
    ],
    "a killed QEMU": [
        "events::test_qemu_is_killed",
        "commands::test_qemu_is_killed",
    ],
    "timeouts": [
        "events::test_timeout",
        "events::test_other_events_do_not_make_it_longer",
        "events::test_waiting",
    ],
    "output that is no text": [
        "shutdown::test_bytes_that_are_no_text",
        "acceptance::test_a_failure_that_is_no_text",
    ],
    "interrupts": [
        "interrupts::test_during_a_command",
        "interrupts::test_during_a_wait_for_an_event",
        "interrupts::test_during_a_launch",
        "interrupts::test_during_a_shutdown",
        "interrupts::test_at_any_point",
        "standins/block_layer::test_a_call_that_takes_too_long",
    ],
    "in any order": [
        "shutdown::test_before_a_launch",
        "events::test_none_of_the_run_before",
        "failed_launches::test_relaunch_that_fails_tells_nothing_of_the_run_before",
        "acceptance::test_one_machine_through_everything",
    ],
    "a draining console": [
        "console_socket::test_the_end_is_told",
        "console_socket::test_idle_takes_no_processor_time",
        "console_socket::test_recv_gives_what_there_is",
        "console_socket::test_as_a_file",
        "console_socket::test_not_blocking_is_an_error_at_once",
        "acceptance::test_a_console_is_a_socket",
    ],
    "a console that nobody reads": [
        "machine_console::test_a_guest_that_nobody_reads_goes_on",
        "acceptance::test_a_guest_that_says_much_is_not_held_up",
    ],
}


@pytest.mark.parametrize("point", POINTS)
def test_is_shown_by(point: str) -> None:
    for name in POINTS[point]:
        file, _, test = name.partition("::")
        path = HERE / Path(file).with_name(f"test_{Path(file).name}.py")
        assert f"def {test}(" in path.read_text(), name


def test_exceptions() -> None:
    for kind in (VMLaunchFailure, AbnormalShutdown, QEMUMachineAddDeviceError):
        assert issubclass(kind, QEMUMachineError)
    assert issubclass(QEMUMachineError, Exception)


@pytest.mark.parametrize("log", ["log", None])
def test_every_parameter(qemu: str, tmp_path: Path, log: str | None) -> None:
    """All of them in one machine, which does run."""
    for name in ("base", "sockets", "log"):
        (tmp_path / name).mkdir()
    vm = QEMUMachine(
        qemu,
        GUEST_ARGS,
        ("env", "-u", "NOTHING"),
        "m",
        str(tmp_path / "base"),
        str(tmp_path / "sockets" / "monitor"),
        sock_dir=str(tmp_path / "sockets"),
        socket_scm_helper=None,
        drain_console=True,
        console_log=str(tmp_path / "console"),
        log_dir=log and str(tmp_path / log),
        qmp_timer=20.0,
    )
    vm.set_console()
    with vm:
        vm.launch()
        assert vm._qemu_full_args[:4] == ("env", "-u", "NOTHING", qemu)
        assert sorted(os.listdir(tmp_path / "sockets")) == ["m-console.sock", "monitor"]
        until(lambda: b"ready" in (tmp_path / "console").read_bytes())
    assert vm.exitcode() == 0
    assert os.listdir(tmp_path / "sockets") == os.listdir(tmp_path / "base") == []
    assert os.listdir(tmp_path / "log") == (["m.log"] if log else [])


WAYS: dict[str, Callable[[str], dict[str, Any]]] = {
    "pair": lambda _: {},
    "path": lambda directory: {"monitor_address": f"{directory}/monitor"},
    "sock_dir": lambda directory: {"sock_dir": directory},
    "port": lambda _: {"monitor_address": ("127.0.0.1", 0)},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_stopped_qemu(make_vm: MakeVM, short_dir: str, way: str) -> None:
    """Also while somebody reads its console."""
    vm = make_vm(*GUEST_ARGS, **WAYS[way](short_dir))
    vm.set_console()
    vm.launch()
    assert vm.console_file.read(1)
    pid = vm.get_pid()
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    begin = time.monotonic()
    with pytest.raises(AbnormalShutdown):
        vm.shutdown(timeout=2)
    assert 2 <= time.monotonic() - begin < 20
    assert not is_alive(pid)
    assert os.listdir(short_dir) == []


def test_a_failure_that_is_no_text(make_vm: MakeVM, tmp_path: Path) -> None:
    vm = make_vm(wrapper=["sh", "-c", r"printf 'b\351\377d\n' >&2; exit 3"])
    with pytest.raises(VMLaunchFailure) as caught:
        vm.launch()
    assert caught.value.output == vm.get_log() == "b\ufffd\ufffdd\n"
    assert caught.value.exitcode == 3
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [QEMUMachine, QEMUQtestMachine])
def test_one_machine_through_everything(
    make_vm: MakeVM, short_dir: str, tmp_path: Path, kind: type[QEMUMachine], way: str
) -> None:
    if kind is QEMUQtestMachine:

        class WithoutQtestAccelerator(QEMUQtestMachine):
            @property
            def _base_args(self) -> list[str]:
                return super()._base_args[:-2]

        if "monitor_address" in WAYS[way](short_dir):
            return  # it takes none
        kind = WithoutQtestAccelerator
    vm = make_vm(kind=kind, **WAYS[way](short_dir))

    def fails() -> None:
        vm.args.append("-unknown")
        with pytest.raises(VMLaunchFailure) as caught:
            vm.launch()
        vm.args.pop()
        assert caught.value.exitcode == vm.exitcode() == 1
        assert "-unknown: invalid option" in (vm.get_log() or "")

    def runs(end: Callable[[], None], status: int) -> None:
        vm.launch()
        assert vm.get_log() is None
        assert vm.exitcode() is None
        assert vm.get_qmp_events() == []
        with pytest.raises(QEMUMachineError):
            vm.launch()
        vm.cmd("stop")
        vm.cmd("cont")
        assert vm.event_wait("RESUME", timeout=0) is not None  # STOP is left over
        end()
        assert vm.exitcode() == status
        for again in (vm.shutdown, vm.wait, vm.kill):
            again()
        assert vm.exitcode() == status
        assert os.listdir(tmp_path) == ["s"]
        assert os.listdir(short_dir) == []

    def quits() -> None:
        vm.cmd("quit")
        vm.wait()

    def ends_by_itself() -> None:
        os.kill(vm.get_pid() or 0, signal.SIGTERM)
        vm.wait()

    def is_killed_by_others() -> None:
        os.kill(vm.get_pid() or 0, signal.SIGKILL)
        vm.wait()

    vm.wait()
    fails()
    runs(vm.shutdown, 0)
    fails()
    runs(vm.kill, -9)
    runs(quits, 0)
    runs(ends_by_itself, 0)
    runs(is_killed_by_others, -9)
    fails()
    runs(vm.shutdown, 0)


@pytest.mark.parametrize("drain", [False, True])
def test_a_console_is_a_socket(make_vm: MakeVM, drain: bool) -> None:
    vm = make_vm(*GUEST_ARGS, drain_console=drain)
    vm.set_console()
    vm.launch()
    console = vm.console_socket
    with console.makefile("rb") as file:
        assert file.readline() == b"vmfsm guest ready\r\n"
        file.read1()  # the prompt, as far as it is there
    until_quiet(console)
    console.setblocking(False)
    begin = time.monotonic()
    with pytest.raises(BlockingIOError):
        console.recv(1)
    assert time.monotonic() - begin < 20
    console.setblocking(True)
    console.sendall(b"exit 0\n")
    text = b""
    while data := console.recv(100):
        text += data
    assert b"echo: exit 0" in text
    assert console.recv(1) == b""
    vm.wait()
    assert vm.exitcode() == 1


def until_quiet(console: socket.socket) -> None:
    """Read until the guest waits for a command: what it was sent comes back."""
    console.sendall(b"hello\n")
    text = b""
    while not re.search(rb"echo: hello\r\n> ", text):
        text += console.recv(1)


MUCH = 250_000
"""Bytes: more than a socket holds."""


@pytest.mark.parametrize("way", ["pair", "sock_dir"])
def test_a_guest_that_says_much_is_not_held_up(make_vm: MakeVM, short_dir: str, way: str) -> None:
    """It powers off at last, though nobody has read a byte of what it said until then."""
    log = f"{short_dir}/console"
    vm = make_vm(*GUEST_ARGS, console_log=log, **WAYS[way](short_dir))
    vm.set_console()
    vm.launch()
    until(lambda: b"ready" in Path(log).read_bytes())
    vm.console_socket.sendall(b"flood\n")
    until(lambda: os.stat(log).st_size > MUCH, limit=200)
    assert vm.cmd("query-status")["running"]
    vm.cmd("system_reset")
    until(lambda: b"ready" in Path(log).read_bytes()[MUCH:])
    vm.console_socket.sendall(b"poweroff\n")
    vm.wait()
    assert vm.exitcode() == 0
