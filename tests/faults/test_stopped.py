"""SIGSTOP and SIGCONT to QEMU in each state in which there is one."""

import signal
from collections.abc import Callable

import pytest

from tests.endings import MakeGuest, assert_ended, send, spoiler, stop_process, until_guest_is_up
from tests.waiting import InThread, until
from vmfsm import AbnormalExit, LaunchError, LaunchPlan, Machine, MachineTimeout, Reason, State
from vmfsm.proc import living

FAR = 600.0
"""A deadline that no test gets to."""


def stops_itself(plan: LaunchPlan) -> None:
    plan.wrapper[:] = ["sh", "-c", 'kill -STOP $$; exec "$@"', "sh"]


def is_stopped(vm: Machine) -> bool:
    with open(f"/proc/{vm.pid}/stat", encoding="ascii", errors="replace") as file:
        return file.read().rpartition(") ")[2][0] == "T"


def test_while_launching_and_never_continued(guest: MakeGuest) -> None:
    vm = guest()
    spoiler(vm).planning = stops_itself
    timeout = 0.5
    while vm.exit_status is None:
        with pytest.raises(LaunchError) as caught:
            vm.launch(timeout)
        assert isinstance(caught.value.__cause__, MachineTimeout)
        timeout *= 2  # the machine is so busy that it was over before there was a process
    assert_ended(vm, State.FAILED, Reason.DEADLINE, -signal.SIGKILL)


def test_while_launching_and_continued(guest: MakeGuest) -> None:
    vm = guest()
    spoiler(vm).planning = stops_itself
    launching = InThread(vm.launch, timeout=FAR)
    until(lambda: vm.pid and is_stopped(vm))
    assert vm.state is State.LAUNCHING
    send(vm.pid, signal.SIGCONT)
    launching.result()
    until_guest_is_up(vm)
    vm.shutdown()
    assert_ended(vm, State.STOPPED, Reason.REQUESTED, 0)


CANCELS: dict[str, tuple[Callable[[Machine], object], Reason, int]] = {
    "shutdown": (lambda vm: vm.shutdown(timeout=1), Reason.REQUESTED, -signal.SIGKILL),
    "kill": (lambda vm: vm.kill(), Reason.KILLED, -signal.SIGKILL),
}


@pytest.mark.parametrize("name", CANCELS)
def test_while_launching_and_cancelled(guest: MakeGuest, name: str) -> None:
    cancel, reason, status = CANCELS[name]
    vm = guest()
    spoiler(vm).planning = stops_itself
    launching = InThread(vm.launch, timeout=FAR)
    until(lambda: vm.pid and is_stopped(vm))
    cancel(vm)
    assert isinstance(launching.join().error, LaunchError)
    assert_ended(vm, State.STOPPED, reason, status)


def test_while_running_and_continued(guest: MakeGuest) -> None:
    """What waits for it goes on waiting, and gets what it waited for."""
    vm = guest().launch()
    until_guest_is_up(vm)
    pid = vm.pid
    stop_process(pid)
    vm.console.sendline("ping")
    pong = InThread(vm.console.expect, "pong", timeout=FAR)
    reply = InThread(vm.qmp.execute, "query-status", timeout=FAR)
    with pytest.raises(MachineTimeout):
        vm.qmp.execute("query-name", timeout=0.1)
    assert not pong.over
    assert not reply.over
    send(pid, signal.SIGCONT)
    assert reply.result()["status"] == "running"
    pong.result()
    assert "running" not in vm.qmp.execute("query-name")  # a late reply answers nothing else
    vm.shutdown()
    assert_ended(vm, State.STOPPED, Reason.REQUESTED, 0)


def test_while_running_and_killed(guest: MakeGuest) -> None:
    vm = guest().launch()
    stop_process(vm.pid)
    vm.kill()
    assert_ended(vm, State.STOPPED, Reason.KILLED, -signal.SIGKILL)


def test_while_running_and_the_guest_is_asked(guest: MakeGuest) -> None:
    """Two polite ways in vain are still one deadline."""
    vm = guest().launch()
    stop_process(vm.pid)
    with pytest.raises(AbnormalExit):
        InThread(vm.shutdown, guest=True, timeout=1).result()
    assert_ended(vm, State.FAILED, Reason.WEDGED, -signal.SIGKILL)


def test_while_quitting_and_continued(guest: MakeGuest) -> None:
    """A QEMU that comes back in time has gone politely."""
    vm = guest().launch()
    pid = vm.pid
    stop_process(pid)
    ending = InThread(vm.shutdown, timeout=FAR)
    until(lambda: vm.state is State.QUITTING)
    send(pid, signal.SIGCONT)
    ending.result()
    assert_ended(vm, State.STOPPED, Reason.REQUESTED, 0)


def test_while_quitting_and_killed(guest: MakeGuest) -> None:
    vm = guest().launch()
    stop_process(vm.pid)
    ending = InThread(vm.shutdown, timeout=FAR)
    until(lambda: vm.state is State.QUITTING)
    vm.kill()
    ending.result()
    assert_ended(vm, State.STOPPED, Reason.KILLED, -signal.SIGKILL)


def test_only_its_wrapper(guest: MakeGuest) -> None:
    """QEMU goes politely, and its stopped wrapper only by force: who asked is told, and nothing is left."""
    vm = guest(wrapper=["sh", "-c", '"$@"; true', "sh"]).launch()
    until_guest_is_up(vm)
    inside = {process.identity.pid for process in living() if process.session == vm.pid} - {vm.pid}
    assert len(inside) == 1
    stop_process(vm.pid)
    assert vm.qmp.execute("query-status")["status"] == "running"
    with pytest.raises(AbnormalExit):
        vm.shutdown(timeout=1)
    assert_ended(vm, State.FAILED, Reason.WEDGED, -signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGCONT, signal.SIGWINCH, signal.SIGURG])
def test_signals_that_end_nobody(guest: MakeGuest, number: signal.Signals) -> None:
    vm = guest().launch()
    until_guest_is_up(vm)
    send(vm.pid, number)
    vm.console.sendline("ping")
    vm.console.expect("pong")
    assert vm.state is State.RUNNING
    vm.shutdown()
    assert_ended(vm, State.STOPPED, Reason.REQUESTED, 0)
