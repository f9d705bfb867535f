"""A signal handler that raises, at any point: the exception arrives, nothing is lost, nothing is left."""

import itertools
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from vmfsm_plugins.qmp import HandedQMP

from tests.compat.conftest import Interrupt, MakeVM
from tests.waiting import SLACK, is_alive, until
from vmfsm import Machine, hookimpl
from vmfsm.compat import QEMUMachine, VMLaunchFailure

InterruptAfter = Callable[[float], None]
pytestmark = pytest.mark.timeout(method="thread")  # SIGALRM is ours here

SEEDS = int(os.environ.get("VMFSM_TEST_SEEDS", "15"))


def qemus_of(directory: Path) -> list[str]:
    """The processes whose command line names this directory."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(f"guest={directory}") in words and is_alive(int(pid)):
            found.append(pid)
    return found


def test_during_a_command(make_vm: MakeVM, interrupt_after: InterruptAfter) -> None:
    vm = make_vm()
    vm.launch()
    os.kill(vm.get_pid() or 0, signal.SIGSTOP)
    for command in ("query-name", "nonsense"):
        interrupt_after(0.1)
        with pytest.raises(Interrupt):
            vm.qmp(command)
    os.kill(vm.get_pid() or 0, signal.SIGCONT)
    assert vm.qmp("query-status")["return"]["running"]
    assert vm.qmp("query-name") == {"return": {}}


def test_during_a_wait_for_an_event(make_vm: MakeVM, interrupt_after: InterruptAfter) -> None:
    vm = make_vm("-M", "pc")
    vm.launch()
    for wait in (vm.get_qmp_event, vm.get_qmp_events, lambda timeout: vm.event_wait("STOP", timeout)):
        interrupt_after(0.1)
        with pytest.raises(Interrupt):
            wait(True)
    vm.cmd("stop")
    assert vm.event_wait("STOP") is not None


@pytest.mark.parametrize("address", [None, "path"])
def test_during_a_launch(
    make_vm: MakeVM, interrupt_after: InterruptAfter, short_dir: str, address: str | None
) -> None:
    vm = make_vm(
        wrapper=["sh", "-c", "sleep 1000"],
        qmp_timer=None,
        monitor_address=f"{short_dir}/m" if address else None,
    )
    interrupt_after(0.2)
    with pytest.raises(VMLaunchFailure) as caught:
        vm.launch()
    assert isinstance(caught.value.__cause__, Interrupt)
    assert vm._popen is None or not is_alive(vm._popen.pid)
    vm._wrapper = []
    vm.launch()
    vm.shutdown()
    assert vm.exitcode() == 0


def test_ctrl_c_during_a_launch(make_vm: MakeVM) -> None:
    def handler(*_: object) -> None:
        raise KeyboardInterrupt

    vm = make_vm(wrapper=["sh", "-c", "sleep 1000"], qmp_timer=None)
    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            vm.launch()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert not vm._launched
    assert vm._popen is not None
    assert not is_alive(vm._popen.pid)


@pytest.mark.parametrize("call", ["shutdown", "wait"])
def test_during_a_shutdown(
    make_vm: MakeVM, interrupt_after: InterruptAfter, tmp_path: Path, call: str
) -> None:
    vm = make_vm()
    vm.launch()
    assert vm._popen is not None
    os.kill(vm._popen.pid, signal.SIGSTOP)
    interrupt_after(0.2)
    begin = time.monotonic()
    with pytest.raises(Interrupt):
        getattr(vm, call)(timeout=None)
    assert time.monotonic() - begin < SLACK
    assert not is_alive(vm._popen.pid)
    assert vm.exitcode() == -signal.SIGKILL
    assert not vm._launched
    assert os.listdir(tmp_path) == []
    vm.launch()
    vm.shutdown()
    assert vm.exitcode() == 0


# What is just being opened is closed by Python, which warns of that.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("seed", range(SEEDS))
def test_at_any_point(make_vm: MakeVM, interrupt_after: InterruptAfter, tmp_path: Path, seed: int) -> None:
    """Again and again, until a whole life got through."""
    chance = random.Random(seed)
    vm = make_vm("-M", "none", "-nodefaults", "-name", f"guest={tmp_path}")

    def live() -> None:
        vm.launch()
        for _ in range(5):
            assert vm.qmp("stop") == {"return": {}}
            assert vm.qmp("query-name")["return"] == {"name": str(tmp_path)}
            assert vm.event_wait("STOP") is not None
            assert vm.qmp("cont") == {"return": {}}
        vm.shutdown()

    for attempt in itertools.count():
        if attempt == 10:
            interrupt_after(0)
        else:
            interrupt_after(chance.uniform(0.0005, 0.15))
        error: BaseException | None = None
        try:
            live()
            break
        except (Interrupt, VMLaunchFailure) as raised:
            error = raised if isinstance(raised, Interrupt) else raised.__cause__
        finally:
            interrupt_after(0)
        assert isinstance(error, Interrupt)
        vm.kill()
        assert not vm._launched
        until(lambda: not qemus_of(tmp_path))
    assert vm.exitcode() == 0
    until(lambda: not qemus_of(tmp_path))
    assert os.listdir(tmp_path) == []


def test_in_a_hook_of_ours(make_vm: MakeVM, monkeypatch: pytest.MonkeyPatch) -> None:
    """What hits a plugin of the drop-in's own is no error of that plugin."""

    @hookimpl
    def configured(_plugin: HandedQMP, machine: Machine) -> None:
        raise Interrupt

    vm = make_vm()
    monkeypatch.setattr(HandedQMP, "configured", configured)
    with pytest.raises(VMLaunchFailure) as caught:
        vm.launch()
    assert isinstance(caught.value.__cause__, Interrupt)


class OwnLaunch(QEMUMachine):
    def _launch(self) -> None:
        self._pre_launch()
        self._popen = subprocess.Popen(self._qemu_full_args, stdin=subprocess.DEVNULL, close_fds=False)
        raise Interrupt


def test_between_the_process_and_what_a_subclass_does_next(make_vm: MakeVM, tmp_path: Path) -> None:
    vm = make_vm(kind=OwnLaunch)
    with pytest.raises(VMLaunchFailure):
        vm.launch()
    assert vm.exitcode() == -signal.SIGKILL
    assert os.listdir(tmp_path) == []
