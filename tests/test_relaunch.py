"""The same machine is launched again, however it ended, and nothing of its last life is in the next one."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest
from vmfsm_plugins.qmp import QMP

from tests.conftest import MakeMachine
from tests.endings import (
    ENDINGS,
    LAUNCH_FAILURES,
    TIMEOUT,
    MakeGuest,
    assert_ended,
    assert_path,
    guests,
    spoiler,
    until_guest_is_up,
)
from tests.waiting import until
from vmfsm import AbnormalExit, Machine, Reason, State, TransitionError

FIRST_LIFE = "first life"
SAY_AND_EXEC = ["sh", "-c", 'echo "life of $$"; exec "$@"', "sh"]


@pytest.fixture
def guest(qemu: str) -> Iterator[MakeGuest]:
    """Makes machines with the tiny guest."""
    with guests(qemu) as make:
        yield make


def live(vm: Machine, name: str) -> None:
    """Launch it and use everything that it has; the guest and QEMU say what is of this life."""
    before = len(vm.history)
    assert vm.launch() is vm
    assert (vm.state, vm.reason, vm.exit_status) == (State.RUNNING, None, None)
    assert [transition.dest for transition in vm.history[before:]] == [State.LAUNCHING, State.RUNNING]
    assert vm.pid is not None
    until_guest_is_up(vm)
    vm.console.sendline(name)
    vm.console.expect(f"echo: {name}", timeout=TIMEOUT)
    vm.console.sendline("ping")
    vm.console.expect("pong", timeout=TIMEOUT)
    assert vm.qmp.execute("query-status")["status"] == "running"
    vm.qmp.execute("stop")
    vm.qmp.wait_event("STOP", timeout=TIMEOUT)
    vm.qmp.execute("cont")
    assert vm.run_state == "running"
    until(lambda: f"life of {vm.pid}" in vm.log.text)


def assert_afresh(vm: Machine, last_pid: int | None) -> None:
    """What is running now shows nothing of the last life."""
    assert FIRST_LIFE not in vm.console.text
    assert vm.console.text.count("ready") == 1
    assert f"life of {vm.pid}" in vm.log.text
    assert vm.log.text.count("life of") == 1
    assert vm.pid != last_pid
    events = [event["event"] for event in vm.qmp.events(since=None)]
    assert "SHUTDOWN" not in events
    assert "RESUME" in events


def finish(vm: Machine) -> None:
    """It ends well, and nothing of the last ending is told in this one."""
    with vm:
        pass
    assert vm.wait(TIMEOUT) == 0
    assert_ended(vm, State.STOPPED, Reason.REQUESTED, 0)


@pytest.mark.parametrize("name", ENDINGS)
def test_after_an_ending(guest: MakeGuest, name: str) -> None:
    ending = ENDINGS[name]
    vm = guest(wrapper=SAY_AND_EXEC, **ending.settings)
    live(vm, FIRST_LIFE)
    last_pid = vm.pid
    ending.come(vm)
    until(lambda: vm.state in {State.STOPPED, State.FAILED})
    assert_ended(vm, ending.state, ending.reason, ending.status)
    assert FIRST_LIFE in vm.console.text
    assert f"life of {last_pid}" in vm.log.text

    live(vm, "second life")
    assert_afresh(vm, last_pid)
    assert_path(vm)
    if ending.settings.get("expected_exits", (0,)) == (7,):
        vm.console.sendline("exit 3")
        assert vm.wait(TIMEOUT) == 7
        assert_ended(vm, State.STOPPED, Reason.QEMU_EXIT, 7)
    else:
        finish(vm)


@pytest.mark.parametrize("name", LAUNCH_FAILURES)
def test_after_a_launch_that_failed(guest: MakeGuest, name: str) -> None:
    failure = LAUNCH_FAILURES[name]
    vm = guest(wrapper=SAY_AND_EXEC)
    failure.come(vm)
    assert_ended(vm, failure.state, failure.reason, failure.status)
    spoiler(vm).clear()
    live(vm, "second life")
    assert_afresh(vm, None)
    assert_path(vm)
    finish(vm)


def test_after_a_failed_launch_after_a_good_one(guest: MakeGuest) -> None:
    """Nothing of the last QEMU is taken for the next one, which never came to be."""
    vm = guest(wrapper=SAY_AND_EXEC)
    live(vm, FIRST_LIFE)
    vm.shutdown()
    error = LAUNCH_FAILURES["bad-option"].come(vm)
    assert_ended(vm, State.FAILED, Reason.LAUNCH_ERROR, 1)
    evidence = getattr(error, "evidence", None)
    assert evidence is not None
    assert FIRST_LIFE not in evidence.console
    assert evidence.events == ()
    spoiler(vm).clear()
    live(vm, "third life")
    assert_afresh(vm, None)
    finish(vm)


def test_a_bad_ending_that_nobody_was_told_of_is_not_told_of_the_next(bare: MakeMachine) -> None:
    vm = bare(QMP()).launch()
    vm.qmp.execute("quit")
    vm.wait(TIMEOUT)
    for _ in range(2):
        vm.launch()
        assert vm.pid is not None
        os.kill(vm.pid, signal.SIGKILL)
        until(lambda: vm.state is State.FAILED)
    with pytest.raises(AbnormalExit):
        vm.shutdown()
    vm.launch()
    vm.shutdown()
    assert vm.wait(TIMEOUT) == 0


def test_only_from_where_the_table_allows_it(bare: MakeMachine) -> None:
    vm = bare(QMP()).launch()
    before = vm.history, vm.pid
    with pytest.raises(TransitionError) as caught:
        vm.launch()
    assert caught.value.event == "launch"
    assert caught.value.allowed == ("quit",)
    assert (vm.history, vm.pid) == before
    vm.qmp.execute("query-status")
    vm.shutdown()


def test_many_lives_of_one_machine_leave_nothing(guest: MakeGuest) -> None:
    vm = guest()

    def present() -> tuple[list[str], int]:
        return sorted(os.listdir("/proc/self/fd")), threading.active_count()

    def live_and_end() -> None:
        vm.launch()
        vm.qmp.execute("query-status")
        vm.shutdown()

    live_and_end()  # what stands for as long as the process has come to be
    before = present()
    for _ in range(30):
        live_and_end()
        until(lambda: present() == before)
    assert vm.state is State.STOPPED
    assert_path(vm)
    assert len(vm.history) == 31 * 4
