"""How a machine ends: shutdown, kill, wait, the end of a `with`; what is left to see, and nothing else."""

import contextlib
import gc
import logging
import math
import os
import signal
import subprocess
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compat.conftest import MakeVM
from tests.scripts import run_script
from tests.waiting import SLACK, InThread, catches, is_alive, until
from vmfsm import Deadline
from vmfsm.compat import AbnormalShutdown, QEMUMachine, QEMUMachineError
from vmfsm.compat.errors import MisuseError
from vmfsm.testing import GUEST_ARGS


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing is logged at WARNING or above."""
    yield
    assert [
        record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.WARNING
    ] == []


def assert_over(vm: QEMUMachine, tmp_path: Path, code: int = 0) -> None:
    assert not vm._launched
    assert not vm.is_running()
    assert vm.get_pid() is None
    assert vm.exitcode() == code
    assert vm._popen is not None
    assert (vm._popen.poll(), vm._popen.returncode, vm._popen.wait(0)) == (code, code, code)
    assert not is_alive(vm._popen.pid)
    assert os.listdir(tmp_path) == []
    assert vm.get_log() is not None
    assert (vm._temp_dir, vm._qemu_log_path, vm._qemu_log_file, vm._sock_pair) == (None,) * 4
    with pytest.raises(QEMUMachineError):
        vm.qmp("query-status")
    vm.shutdown()
    vm.wait()
    vm.kill()
    assert vm.exitcode() == code


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("monitor", [True, False])
def test_shutdown(make_vm: MakeVM, tmp_path: Path, monitor: bool) -> None:
    vm = make_vm()
    vm.set_qmp_monitor(monitor)
    vm.launch()
    if not monitor:
        until(lambda: catches(vm.get_pid() or 0, signal.SIGTERM))
    vm.shutdown()
    assert_over(vm, tmp_path)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("how", ["kill", "hard", "positional"])
def test_kill(make_vm: MakeVM, tmp_path: Path, how: str) -> None:
    vm = make_vm()
    vm.launch()
    if how == "kill":
        vm.kill()
    elif how == "hard":
        vm.shutdown(hard=True)
    else:
        vm.shutdown(True)
    assert_over(vm, tmp_path, -signal.SIGKILL)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("command", ["qmp", "cmd", "command", "_qmp"])
def test_quit_already(make_vm: MakeVM, tmp_path: Path, command: str) -> None:
    vm = make_vm()
    vm.launch()
    if command == "_qmp":
        vm._qmp.cmd("quit")
    else:
        getattr(vm, command)("quit")
    vm.shutdown()
    assert_over(vm, tmp_path)


@pytest.mark.usefixtures("quiet")
def test_has_quit(make_vm: MakeVM, tmp_path: Path) -> None:
    vm = make_vm()
    vm.launch()
    vm._qmp.cmd_obj({"execute": "quit"})
    vm.shutdown(has_quit=True)
    assert_over(vm, tmp_path)


@pytest.mark.usefixtures("quiet")
def test_wait_for_the_guest(make_vm: MakeVM, tmp_path: Path) -> None:
    vm = make_vm(*GUEST_ARGS, "-S")
    vm.launch()
    waiting = InThread(vm.wait, None)
    os.kill(vm.get_pid() or 0, signal.SIGTERM)
    waiting.result()
    assert_over(vm, tmp_path)


@pytest.mark.parametrize("timeout", [0, 0.3, 1])
def test_wait_kills(make_vm: MakeVM, tmp_path: Path, timeout: float) -> None:
    vm = make_vm()
    vm.launch()
    begin = time.monotonic()
    with pytest.raises(AbnormalShutdown) as caught:
        vm.wait(timeout)
    assert timeout <= time.monotonic() - begin < timeout + 5
    assert isinstance(caught.value, QEMUMachineError)
    assert isinstance(caught.value.__cause__, subprocess.TimeoutExpired)
    asked = Deadline(timeout).timeout  # scaled
    assert str(caught.value).endswith(f": QEMU had not ended after {asked:g} s, and was killed")
    assert caught.value.__cause__.timeout == asked
    assert_over(vm, tmp_path, -signal.SIGKILL)


@pytest.mark.parametrize("monitor", [True, False])
def test_stopped_by_a_signal(make_vm: MakeVM, tmp_path: Path, monitor: bool) -> None:
    vm = make_vm()
    vm.set_qmp_monitor(monitor)
    vm.launch()
    until(lambda: catches(vm.get_pid() or 0, signal.SIGTERM))
    os.kill(vm.get_pid() or 0, signal.SIGSTOP)
    begin = time.monotonic()
    seconds = f"after {Deadline(1).timeout:g} s"
    with pytest.raises(
        AbnormalShutdown, match=f"(?-s:^.*killed.* {seconds}$|^.* {seconds}, and was killed$)"
    ):
        vm.shutdown(timeout=1)
    assert 1 <= time.monotonic() - begin < 1 + SLACK
    assert_over(vm, tmp_path, -signal.SIGKILL)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("idle", [True, False])
def test_ended_well_by_itself_before(make_vm: MakeVM, tmp_path: Path, idle: bool) -> None:
    vm = make_vm()
    vm.launch()
    os.kill(vm.get_pid() or 0, signal.SIGTERM)
    if idle:
        until(lambda: not vm.is_running())
        assert vm._launched
        with pytest.raises(QEMUMachineError, match="already"):
            vm.launch()
    vm.shutdown()
    assert_over(vm, tmp_path)


def test_ended_badly_before(make_vm: MakeVM, tmp_path: Path) -> None:
    vm = make_vm()
    vm.launch()
    os.kill(vm.get_pid() or 0, signal.SIGABRT)
    until(lambda: not vm.is_running())
    with pytest.raises(AbnormalShutdown, match=r": QEMU had ended with signal 6$"):
        vm.shutdown()
    assert_over(vm, tmp_path, -signal.SIGABRT)


def test_ended_with_a_bad_status_before(make_vm: MakeVM, tmp_path: Path) -> None:
    vm = make_vm(wrapper=["sh", "-c", '"$@"; exit 3', "sh"])
    vm.launch()
    qemu = int(subprocess.check_output(["pgrep", "-P", str(vm.get_pid())]))
    os.kill(qemu, signal.SIGKILL)
    until(lambda: not vm.is_running())
    with pytest.raises(AbnormalShutdown, match=r": QEMU had ended with status 3$"):
        vm.shutdown()
    assert_over(vm, tmp_path, 3)


@pytest.mark.parametrize("timeout", [0.3, 1])
def test_a_timeout_tells_what_was_asked(make_vm: MakeVM, timeout: float) -> None:
    vm = make_vm()
    vm.launch()
    seconds = f"timed out after {Deadline(timeout).timeout:g} s$"
    with pytest.raises(TimeoutError, match=seconds):
        vm.event_wait("STOP", timeout)
    os.kill(vm.get_pid() or 0, signal.SIGSTOP)
    vm._qmp.settimeout(timeout)
    with pytest.raises(TimeoutError, match=seconds):
        vm.qmp("query-name")
    vm._qmp.settimeout(100)
    with vm._qmp.by(Deadline(timeout)), pytest.raises(TimeoutError, match=seconds):
        vm.qmp("query-name")


class Canary:
    """What a caller holds."""


@pytest.mark.parametrize("end", ["kill", "shutdown", "killed before", "wait", "late", "no event"])
def test_nothing_that_callers_hold_is_kept_alive(make_vm: MakeVM, end: str) -> None:
    """An unclosed `makefile()`, say, goes with the frame, not by the garbage collector, which warns."""

    def use(vm: QEMUMachine, _: Canary) -> None:
        if end == "killed before":
            os.kill(vm.get_pid() or 0, signal.SIGKILL)
            until(lambda: not vm.is_running())
        if end == "wait":
            with contextlib.suppress(AbnormalShutdown):
                vm.wait(0.1)
        elif end == "late":
            os.kill(vm.get_pid() or 0, signal.SIGSTOP)
            with contextlib.suppress(AbnormalShutdown):
                vm.shutdown(timeout=0.1)
        elif end == "no event":
            with contextlib.suppress(TimeoutError):
                vm.event_wait("STOP", 0.1)
        else:
            with contextlib.suppress(AbnormalShutdown):
                (vm.kill if end == "kill" else vm.shutdown)()

    vm = make_vm()
    vm.launch()
    canary = Canary()
    kept = weakref.ref(canary)
    gc.disable()
    try:
        use(vm, canary)
        del canary
        assert kept() is None
    finally:
        gc.enable()


def test_signal_is_logged(make_vm: MakeVM, caplog: pytest.LogCaptureFixture) -> None:
    vm = make_vm()
    vm.launch()
    os.kill(vm.get_pid() or 0, signal.SIGKILL)
    vm.wait()
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.name == "qemu.machine.machine"
    assert "signal 9" in record.getMessage()
    assert " ".join(vm._qemu_full_args) in record.getMessage()


@pytest.mark.usefixtures("quiet")
def test_a_signal_before_it_is_handled_is_ours_all_the_same(make_vm: MakeVM, tmp_path: Path) -> None:
    """Without a monitor QEMU is ended by SIGTERM, whatever it has come to by then."""
    vm = make_vm(wrapper=["sh", "-c", "exec sleep 1000"])
    vm.set_qmp_monitor(False)
    vm.launch()
    vm.shutdown()
    assert_over(vm, tmp_path, -signal.SIGTERM)


@pytest.mark.usefixtures("quiet")
def test_before_a_launch(make_vm: MakeVM, tmp_path: Path) -> None:
    vm = make_vm()
    vm.wait()
    vm.shutdown()
    vm.kill()
    assert (vm.exitcode(), vm.get_pid(), vm.is_running(), vm.get_log()) == (None, None, False, None)
    vm.launch()
    begin = time.monotonic()
    vm.shutdown()  # asks QEMU, though there was a wait before
    assert time.monotonic() - begin < 20
    assert_over(vm, tmp_path)


@pytest.mark.usefixtures("quiet")
def test_with(make_vm: MakeVM, tmp_path: Path) -> None:
    with make_vm() as vm:
        assert not vm.is_running()
        vm.launch()
    assert_over(vm, tmp_path)


def test_with_tells_of_a_bad_end(make_vm: MakeVM) -> None:
    with pytest.raises(AbnormalShutdown), make_vm() as vm:  # noqa: PT012
        vm.launch()
        os.kill(vm.get_pid() or 0, signal.SIGABRT)
        until(lambda: not vm.is_running())


def test_with_keeps_what_the_test_raised(make_vm: MakeVM) -> None:
    with pytest.raises(ZeroDivisionError) as caught, make_vm() as vm:  # noqa: PT012
        vm.launch()
        os.kill(vm.get_pid() or 0, signal.SIGABRT)
        until(lambda: not vm.is_running())
        raise ZeroDivisionError
    assert "AbnormalShutdown" in "".join(caught.value.__notes__)


@pytest.mark.usefixtures("quiet")
def test_relaunch(make_vm: MakeVM, tmp_path: Path) -> None:
    vm = make_vm()
    pids = set()
    for end in (vm.shutdown, vm.kill, vm.wait, vm.shutdown):
        vm.launch()
        pids.add(vm.get_pid())
        assert (vm.exitcode(), vm.get_log()) == (None, None)
        assert vm.get_qmp_events() == []
        vm.cmd("stop")
        if end == vm.wait:
            vm.cmd("quit")
        end()
    assert len(pids) == 4
    assert_over(vm, tmp_path)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("script", ['"$@"; true', 'setsid "$@" & wait'])
def test_the_whole_group_of_a_wrapper(make_vm: MakeVM, tmp_path: Path, script: str) -> None:
    """And what it has moved out of that."""
    vm = make_vm(wrapper=["sh", "-c", script, "sh"])
    vm.launch()
    qemu = int(subprocess.check_output(["pgrep", "-P", str(vm.get_pid())]))
    vm.kill()
    assert not is_alive(qemu)
    assert_over(vm, tmp_path, -signal.SIGKILL)


@pytest.mark.usefixtures("quiet")
def test_bytes_that_are_no_text(make_vm: MakeVM, tmp_path: Path) -> None:
    vm = make_vm(wrapper=["sh", "-c", r'printf "a\377b\r\n"; exec "$@"', "sh"])
    vm.launch()
    vm.shutdown()
    assert vm.get_log() == "a\N{REPLACEMENT CHARACTER}b\n"
    assert_over(vm, tmp_path)


def test_a_clean_up_that_fails_in_one_step_is_made_all_the_same(
    make_vm: MakeVM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise OSError("no log")

    vm = make_vm()
    vm.launch()
    monkeypatch.setattr(vm, "_load_io_log", fail)
    with pytest.raises(OSError, match="no log"):
        vm.shutdown()
    monkeypatch.undo()
    assert os.listdir(tmp_path) == []
    assert not vm._launched
    vm.launch()
    vm.shutdown()
    assert_over(vm, tmp_path)


def test_limits_that_are_over(make_vm: MakeVM, tmp_path: Path) -> None:
    vm = make_vm()
    vm.launch()
    with pytest.raises(TimeoutError):
        vm.event_wait("STOP", timeout=-1)
    for timeout in (-1, 0):
        with pytest.raises(AbnormalShutdown):
            vm.shutdown(timeout=timeout)
        assert_over(vm, tmp_path, -signal.SIGKILL)
        vm.set_qmp_monitor(False)
        vm.launch()


def test_limits_that_are_none(make_vm: MakeVM, tmp_path: Path) -> None:
    vm = make_vm()
    vm.launch()
    wrong: Any
    for wrong in ("5", math.nan, []):
        for call in (vm.shutdown, vm.wait, vm._qmp.settimeout):
            with pytest.raises(MisuseError):
                call(timeout=wrong)
    with pytest.raises(MisuseError):
        vm.event_wait("STOP", math.nan)
    assert vm.qmp("query-name") == {"return": {}}
    vm.shutdown()
    assert_over(vm, tmp_path)


@pytest.mark.parametrize(
    "call",
    [
        lambda vm: vm.wait(),
        lambda vm: vm.shutdown(),
        lambda vm: vm.kill(),
        lambda vm: vm.event_wait("STOP"),
        lambda vm: vm.qmp("stop"),
    ],
    ids=["wait", "shutdown", "kill", "event_wait", "qmp"],
)
def test_killed_by_another_thread_meanwhile(
    make_vm: MakeVM, tmp_path: Path, short_dir: str, call: Callable[[QEMUMachine], object]
) -> None:
    """As a test suite's own time limit does it: who waits is let go, and may clean up at the same time."""
    vm = make_vm(monitor_address=f"{short_dir}/m")
    for _ in range(4):
        vm.launch()
        os.kill(vm.get_pid() or 0, signal.SIGSTOP)
        calling = InThread(call, vm)
        vm.kill()
        with contextlib.suppress(QEMUMachineError):
            calling.result()
        assert not vm._launched
        assert vm.exitcode() == -signal.SIGKILL
        assert os.listdir(short_dir) == []
        assert os.listdir(tmp_path) == ["s"]


FORKING = """
import os, sys
from vmfsm.compat import QEMUMachine

with QEMUMachine("qemu-system-x86_64", ["-M", "none"], base_temp_dir=sys.argv[1]) as vm:
    vm.launch()
    child = os.fork()
if child == 0:
    os._exit(5)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
print(vm.exitcode())
"""


def test_a_forked_child_ends_nothing_of_its_parents(qemu: str, tmp_path: Path) -> None:
    ran = run_script("", tmp_path, beginning=FORKING)
    assert (ran.status, ran.err, ran.out, ran.left) == (0, "", "0\n", [])
