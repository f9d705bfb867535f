"""Monitors: what the old machine could not read, kept for ever, or waited for."""

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from vmfsm_plugins.qmp.events import SIZE

from tests.compat.conftest import MakeVM
from tests.waiting import SLACK, InThread
from vmfsm.compat import (
    AbnormalShutdown,
    QEMUMachine,
    QEMUMachineError,
    QMPTimeoutError,
    VMLaunchFailure,
)
from vmfsm.testing import FakeQEMU
from vmfsm.testing import actions as do


@contextmanager
def another_monitor(path: str) -> Iterator[socket.socket]:
    """A connection to one that QEMU listens at, ready for commands."""
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.connect(path)
        monitor.settimeout(60)
        assert b"QMP" in monitor.recv(65536)
        monitor.sendall(b'{"execute": "qmp_capabilities"}')
        assert b"return" in monitor.recv(65536)
        yield monitor


def test_a_reply_of_more_than_ten_megabytes(make_vm: MakeVM) -> None:
    vm = make_vm("-M", "pc", "-m", "64", "-S")
    vm.launch()
    text = vm.cmd("human-monitor-command", command_line="xp /700000xw 0")
    assert len(text) > 10 * 1024 * 1024
    assert vm.cmd("query-status")["status"] == "prelaunch"


def test_events_that_nobody_takes(make_vm: MakeVM, short_dir: str) -> None:
    """While there is no call: QEMU is not held up by them, and only the last are kept."""
    pairs = SIZE // 2 + 100
    vm = make_vm("-M", "none", "-nodefaults", "-qmp", f"unix:path={short_dir}/q,server=on,wait=off")
    vm.launch()
    with another_monitor(f"{short_dir}/q") as monitor, monitor.makefile("rb") as lines:
        asking = InThread(monitor.sendall, b'{"execute": "stop"}{"execute": "cont"}' * pairs)
        answers = 0
        while answers < 2 * pairs:
            answers += b'"return"' in lines.readline()
        asking.result()
    assert vm.cmd("query-status")["running"]
    events = vm.get_qmp_events()
    assert len(events) == SIZE
    assert [event["event"] for event in events[-2:]] == ["STOP", "RESUME"]


def test_inside_of_an_event_loop(make_vm: MakeVM) -> None:
    vm = make_vm()

    async def live() -> int | None:
        vm.launch()
        assert vm.cmd("query-status")["running"]
        vm.shutdown()
        return vm.exitcode()

    assert asyncio.run(live()) == 0


def test_in_any_thread(make_vm: MakeVM) -> None:
    vm = make_vm()
    InThread(vm.launch).result()
    calls = [InThread(vm.cmd, "query-status") for _ in range(4)]
    assert all(call.result()["running"] for call in calls)
    InThread(vm.shutdown).result()
    assert vm.exitcode() == 0


class WithOtherChild(QEMUMachine):
    """Another child is started between the sockets and QEMU, and inherits what it must not."""

    child: subprocess.Popen[bytes] | None = None

    def _pre_launch(self) -> None:
        super()._pre_launch()
        self.child = subprocess.Popen(["sleep", "1000"], close_fds=False)


@pytest.fixture
def with_other_child(make_vm: MakeVM) -> Iterator[WithOtherChild]:
    vm = make_vm(kind=WithOtherChild)
    assert isinstance(vm, WithOtherChild)
    yield vm
    assert vm.child is not None
    vm.child.kill()
    vm.child.wait()


def test_a_death_while_another_child_has_the_sockets(with_other_child: WithOtherChild) -> None:
    vm = with_other_child
    vm.launch()
    waiting = InThread(vm.event_wait, "STOP", True)
    os.kill(vm.get_pid() or 0, signal.SIGKILL)
    with pytest.raises(QEMUMachineError):
        waiting.result()


def test_a_failed_launch_while_another_child_has_the_sockets(with_other_child: WithOtherChild) -> None:
    with_other_child.args.append("-unknown")
    launching = InThread(with_other_child.launch)
    with pytest.raises(VMLaunchFailure):
        launching.result()


def test_a_killed_qemu_that_had_not_read_everything(make_vm: MakeVM) -> None:
    vm = make_vm()
    vm.launch()
    vm._qmp.settimeout(0.1)
    os.kill(vm.get_pid() or 0, signal.SIGSTOP)
    for _ in range(3):
        with pytest.raises(QMPTimeoutError):
            vm.qmp("query-status")
    os.kill(vm.get_pid() or 0, signal.SIGKILL)
    vm.wait()
    assert vm.exitcode() == -signal.SIGKILL


def test_a_slow_host_scales_the_time_for_the_launch(make_vm: MakeVM, monkeypatch: pytest.MonkeyPatch) -> None:
    vm = make_vm(wrapper=["sh", "-c", 'sleep 0.6; exec "$@"', "sh"], qmp_timer=0.3)
    with pytest.raises(VMLaunchFailure):
        vm.launch()
    monkeypatch.setenv("VMFSM_TIMEOUT_SCALE", "100")
    vm.launch()
    assert vm.cmd("query-status")["running"]


def test_a_monitor_that_is_lost_while_qemu_lives(make_vm: MakeVM) -> None:
    """It is said at once, and nothing waits for a monitor that is not there."""
    with FakeQEMU(on={"trouble": [do.hang_up()]}) as fake:
        vm = make_vm(binary=fake.binary)
        vm.launch()
        for _ in range(2):
            with pytest.raises(QEMUMachineError):
                vm.qmp("trouble")
            assert vm.is_running()
        begin = time.monotonic()
        with pytest.raises(AbnormalShutdown):
            vm.shutdown(timeout=None)
        assert time.monotonic() - begin < SLACK
        assert not vm.is_running()
