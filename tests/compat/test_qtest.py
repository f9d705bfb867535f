"""`QEMUQtestMachine`, on any QEMU: there need not be an accelerator of that name."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import SLACK, InThread, until
from vmfsm.compat import QEMUMachineError, VMLaunchFailure
from vmfsm.compat.qtest import QEMUQtestMachine

MakeMachine = Callable[..., QEMUQtestMachine]


class TCGMachine(QEMUQtestMachine):
    """Debian's QEMU has no qtest accelerator, but qtest's server, whatever runs the guest."""

    @property
    def _base_args(self) -> list[str]:
        *args, accelerator = super()._base_args
        assert accelerator == "qtest"
        return [*args, "tcg"]


@pytest.fixture(params=["pair", "path"])
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Mapping[str, Any]:
    """How qtest is reached."""
    return {} if request.param == "pair" else {"sock_dir": str(tmp_path)}


@pytest.fixture
def make(qemu: str, tmp_path: Path) -> Iterator[MakeMachine]:
    """Makes machines; kills them at the end."""
    machines = []

    def make(**parameters: Any) -> QEMUQtestMachine:
        args = ["-nodefaults", "-machine", "pc", "-S", *parameters.pop("args", [])]
        vm = TCGMachine(qemu, args, base_temp_dir=str(tmp_path), **parameters)
        machines.append(vm)
        return vm

    yield make
    for vm in machines:
        vm.kill()


def pid_of(vm: QEMUQtestMachine) -> int:
    pid = vm.get_pid()
    assert pid is not None
    return pid


def test_a_device_is_driven(make: MakeMachine, way: Mapping[str, Any]) -> None:
    vm = make(**way)
    for _ in range(2):  # and a relaunch begins anew
        vm.launch()
        assert vm.qtest("writel 0x1000 0x12345678") == "OK\n"
        assert vm.qtest("readl 0x1000") == "OK 0x0000000012345678\n"
        assert vm.qtest("nonsense").startswith("FAIL")
        vm.shutdown()


def test_the_log_begins_and_ends_with_the_connection(make: MakeMachine, way: Mapping[str, Any]) -> None:
    vm = make(**way)
    vm.launch()
    vm.qtest("readb 0")
    vm.shutdown()
    log = vm.get_log()
    assert log is not None
    assert re.match(r"\[I \d+\.\d+\] OPENED\n", log)
    assert re.search(r"\[I \+\d+\.\d+\] CLOSED\n\Z", log)
    assert len(re.findall("OPENED|CLOSED", log)) == 2


def test_interrupts_are_not_taken_for_answers(make: MakeMachine) -> None:
    """The timer's, which the guest's firmware sets going."""
    vm = make()
    vm.launch()
    assert vm._qtest is not None
    assert vm.qtest("irq_intercept_in ioapic") == "OK\n"
    vm.cmd("cont")
    until(lambda: vm.qtest("readb 0") and vm._qtest and vm._qtest.irqs)
    for _ in range(200):
        assert vm.qtest("writel 0x80000 7") == "OK\n"
        assert vm.qtest("readl 0x80000").startswith("OK 0x")
    vm.shutdown()


def test_the_command_line_with_a_pair(make: MakeMachine) -> None:
    vm = make()
    vm.launch()
    args = vm._qemu_full_args
    assert args[:7] == (vm.binary, "-display", "none", "-vga", "none", "-chardev", args[6])
    assert re.fullmatch(r"socket,id=qtest,fd=\d+", args[10])
    assert args[9:] == (
        *("-chardev", args[10], "-qtest", "chardev:qtest", "-accel", "tcg"),
        *("-nodefaults", "-machine", "pc", "-S"),
    )


def test_the_command_line_with_a_path(make: MakeMachine, tmp_path: Path) -> None:
    vm = make(sock_dir=str(tmp_path), name="it")
    vm.launch()
    path = f"{tmp_path}/it-qtest.sock"
    assert vm._qemu_full_args[9:13] == ("-qtest", f"unix:path={path}", "-accel", "tcg")
    assert os.path.exists(path)
    vm.shutdown()
    assert not os.path.exists(path)


def test_the_constructor_of_every_revision(qemu: str, tmp_path: Path) -> None:
    directory = str(tmp_path)
    newest = QEMUQtestMachine(qemu, ["-S"], ["env"], "it", directory, 15)
    assert (newest._wrapper, newest._name, newest._base_temp_dir) == (["env"], "it", directory)
    assert newest._qmp_timer == 15
    old = QEMUQtestMachine(
        qemu, name="it", test_dir=directory, socket_scm_helper="/bin/true", sock_dir=directory
    )
    assert (old._name, old._base_temp_dir, old.sock_dir) == ("it", directory, directory)
    assert old._qmp_timer is None
    with pytest.raises(TypeError):
        QEMUQtestMachine(qemu, monitor_address="/there")  # type: ignore[call-arg]


def test_names_that_nobody_chose_do_not_clash(make: MakeMachine, tmp_path: Path) -> None:
    first, second = make(sock_dir=str(tmp_path)), make(sock_dir=str(tmp_path))
    for vm in (first, second):
        vm.launch()
    assert first.qtest("writel 0x1000 1") == second.qtest("writel 0x1000 2") == "OK\n"
    assert first.qtest("readl 0x1000") == "OK 0x0000000000000001\n"


def test_before_and_after(make: MakeMachine, way: Mapping[str, Any]) -> None:
    vm = make(**way)
    with pytest.raises(RuntimeError) as never:
        vm.qtest("readb 0")
    vm.launch()
    vm.shutdown()
    for kind in (QEMUMachineError, AssertionError, OSError):
        assert isinstance(never.value, kind)
        with pytest.raises(kind):
            vm.qtest("readb 0")


def test_a_qemu_that_is_killed_keeps_nobody(make: MakeMachine, way: Mapping[str, Any]) -> None:
    vm = make(**way)
    vm.launch()
    os.kill(pid_of(vm), signal.SIGSTOP)
    waiting = InThread(vm.qtest, "readb 0")
    os.kill(pid_of(vm), signal.SIGKILL)
    assert waiting.result() == ""
    with pytest.raises(QEMUMachineError):
        vm.qtest("readb 0")
    vm.kill()
    log = vm.get_log()
    assert log is not None
    assert "OPENED" in log
    assert "CLOSED" not in log


def test_a_stopped_qemu_keeps_nobody_and_its_late_answer_is_dropped(make: MakeMachine) -> None:
    vm = make()
    vm.launch()
    assert vm._qtest is not None
    os.kill(pid_of(vm), signal.SIGSTOP)
    vm._qtest.settimeout(0.1)
    begin = time.monotonic()
    with pytest.raises(TimeoutError) as late:
        vm.qtest("writel 0x1000 7")
    assert time.monotonic() - begin < SLACK
    assert isinstance(late.value, QEMUMachineError)
    os.kill(pid_of(vm), signal.SIGCONT)
    vm._qtest.settimeout(30)
    assert vm.qtest("readl 0x1000") == "OK 0x0000000000000007\n"


def test_a_signal_handler_that_raises(make: MakeMachine, way: Mapping[str, Any]) -> None:
    class Interrupt(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupt

    vm = make(**way)
    vm.launch()
    os.kill(pid_of(vm), signal.SIGSTOP)
    old = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Interrupt):
            vm.qtest("writel 0x1000 7")
    finally:
        signal.signal(signal.SIGALRM, old)
    os.kill(pid_of(vm), signal.SIGCONT)
    assert vm.qtest("readl 0x1000") == "OK 0x0000000000000007\n"


@pytest.mark.parametrize("qmp", [True, False])
def test_a_qemu_that_ends_at_once(make: MakeMachine, way: Mapping[str, Any], qmp: bool) -> None:
    """Nothing waits for its qtest connection, though nothing limits the start."""
    vm = make(args=["-nonsense"], **way)
    vm.set_qmp_monitor(qmp)
    begin = time.monotonic()
    if qmp or way:
        with pytest.raises(VMLaunchFailure) as failed:
            vm.launch()
        assert failed.value.exitcode == 1
        assert "nonsense" in str(failed.value.output)
    else:
        vm.launch()
        vm.wait()
    assert vm.exitcode() == 1
    assert time.monotonic() - begin < SLACK


def test_a_binary_that_is_not_there(tmp_path: Path, way: Mapping[str, Any]) -> None:
    vm = QEMUQtestMachine("/not/there", base_temp_dir=str(tmp_path), **way)
    with pytest.raises(VMLaunchFailure, match="FileNotFoundError"):
        vm.launch()
    with pytest.raises(QEMUMachineError):
        vm.qtest("readb 0")
