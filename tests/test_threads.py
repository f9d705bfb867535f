"""One machine and several threads: who asks at once, who waits while it ends, who reads meanwhile."""

import asyncio
import contextlib
import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from vmfsm_plugins.qmp import QMP

from tests.conftest import MakeMachine
from tests.endings import MakeGuest, assert_path, guests, send, stop_process, until_guest_is_up
from tests.hooked import (
    Async,
    Blocked,
    Endless,
    Journal,
    Plain,
    assert_cleaned_up,
    assert_works,
    released,
    three,
)
from tests.waiting import SLACK, InThread, until
from vmfsm import (
    AbnormalExit,
    LaunchError,
    Machine,
    MachineDied,
    MachineTimeout,
    PluginError,
    Reason,
    State,
    Transition,
    TransitionError,
    VMError,
    hookimpl,
)
from vmfsm.caller import GRACE

FINAL = {State.STOPPED, State.FAILED}
SET_UP = ("pre_launch", "post_launch")


@pytest.fixture
def guest(qemu: str) -> Iterator[MakeGuest]:
    """Makes machines with the tiny guest."""
    with guests(qemu) as make:
        yield make


def at_once(*calls: Callable[[], object]) -> list[InThread]:
    """Make the calls as much at the same time as threads can, and wait for all of them."""
    barrier = threading.Barrier(len(calls))

    def call(function: Callable[[], object]) -> object:
        barrier.wait(30)
        return function()

    return [thread.join() for thread in [InThread(call, one) for one in calls]]


def errors(threads: list[InThread]) -> list[BaseException | None]:
    return [thread.error for thread in threads]


# -- asking at once -----------------------------------------------------------------------------------------


def test_launches_at_once(bare: MakeMachine) -> None:
    journal = Journal()
    machine = bare(*three(journal))
    for _ in range(5):
        journal.clear()
        first, *others = sorted(at_once(*[machine.launch] * 4), key=lambda thread: thread.error is not None)
        assert first.result() is machine
        for other in others:
            assert isinstance(other.error, TransitionError)
            assert other.error.event == "launch"
        assert machine.state is State.RUNNING
        assert (journal.of("pre_launch"), journal.of("post_launch")) == ("abc", "abc")
        machine.shutdown()


def test_shutdowns_at_once(bare: MakeMachine) -> None:
    journal = Journal()
    machine = bare(QMP(), *three(journal))
    for _ in range(5):
        journal.clear()
        machine.launch()
        assert errors(at_once(*[machine.shutdown] * 5)) == [None] * 5
        assert (machine.state, machine.reason, machine.exit_status) == (State.STOPPED, Reason.REQUESTED, 0)
        assert_cleaned_up(journal)


def test_kills_at_once(bare: MakeMachine) -> None:
    journal = Journal()
    machine = bare(*three(journal))
    for _ in range(5):
        journal.clear()
        machine.launch()
        assert errors(at_once(*[machine.kill] * 5)) == [None] * 5
        assert (machine.state, machine.reason) == (State.STOPPED, Reason.KILLED)
        assert_cleaned_up(journal)


def test_a_kill_that_comes_too_late_takes_back_no_other(bare: MakeMachine) -> None:
    """Two threads kill, and the first to begin is the last to send its signal."""
    machine = bare()
    machine.launch()
    launch = machine._launch
    assert launch is not None
    force = launch.force

    def late(number: signal.Signals) -> bool:
        launch.force = force  # type: ignore[method-assign]
        launch.kill_now()
        until(lambda: launch.has_ended)
        return force(number)

    launch.force = late  # type: ignore[method-assign]
    gate = threading.Event()
    launch.io.post(lambda: gate.wait(30))  # nobody notices the end before both are done
    try:
        launch.kill_now()
    finally:
        gate.set()
    machine.kill()
    assert (machine.state, machine.reason) == (State.STOPPED, Reason.KILLED)


def test_the_deadline_of_a_kill_counts_whoever_tells_of_the_end_first(bare: MakeMachine) -> None:
    """The end that it causes is noticed before the walk hears who asked for it."""

    class Endless:
        name = "endless"

        @hookimpl
        async def post_shutdown(self) -> None:
            await asyncio.Event().wait()

    machine = bare(Endless())
    machine.launch()
    launch = machine._launch
    assert launch is not None
    ask = launch.ask

    def late(*args: Any, **kw: Any) -> None:
        if machine.state is State.RUNNING:
            launch.io.loop.call_later(0.001, functools.partial(late, *args, **kw))
        else:
            ask(*args, **kw)

    launch.ask = late  # type: ignore[method-assign]
    with pytest.raises(PluginError) as caught:
        machine.kill(timeout=0.2)
    assert isinstance(caught.value.__cause__, MachineTimeout)
    assert (machine.state, machine.reason) == (State.STOPPED, Reason.KILLED)


def test_kill_against_shutdown(bare: MakeMachine) -> None:
    """Whoever comes first, what it is called fits how QEMU went, and neither is told of anything bad."""
    machine = bare(QMP())
    for number in range(20):
        machine.launch()
        pause = number * 0.0002

        def kill(pause: float = pause) -> None:
            time.sleep(pause)
            machine.kill()

        assert errors(at_once(machine.shutdown, kill)) == [None, None]
        assert (machine.state, machine.reason, machine.exit_status) in {
            (State.STOPPED, Reason.REQUESTED, 0),
            (State.STOPPED, Reason.KILLED, -signal.SIGKILL),
            (State.STOPPED, Reason.KILLED, 0),  # it was about to exit already
        }
        assert_path(machine)


def test_ending_and_launching_again_at_once(bare: MakeMachine) -> None:
    """Everybody succeeds, is refused, or is cancelled by another's shutdown; and all goes on from there."""
    journal = Journal()
    machine = bare(*three(journal))

    def again() -> None:
        for _ in range(3):
            machine.shutdown()
            with contextlib.suppress(TransitionError, LaunchError):
                machine.launch()

    assert errors(at_once(*[again] * 3)) == [None] * 3
    machine.shutdown()
    assert machine.state is State.STOPPED
    assert_path(machine)
    assert_works(machine, journal)


# -- ending a launch ----------------------------------------------------------------------------------------


def assert_cancelled(machine: Machine, launching: InThread, reason: Reason) -> None:
    assert isinstance(launching.error, LaunchError)
    assert type(launching.error.__cause__) is not MachineTimeout
    assert launching.error.state is State.STOPPED
    assert (machine.state, machine.reason, machine.pid) == (State.STOPPED, reason, None)
    assert [transition.dest for transition in machine.history] == [
        State.LAUNCHING,
        State.QUITTING,
        State.STOPPED,
    ]


def kinds(machine: Machine) -> set[str]:
    return {record.kind for record in machine.timeline}


ENDS = pytest.mark.parametrize(("end", "reason"), [("shutdown", Reason.REQUESTED), ("kill", Reason.KILLED)])


@ENDS
@pytest.mark.parametrize("hook", SET_UP)
def test_ending_a_launch_in_an_async_hook(bare: MakeMachine, hook: str, end: str, reason: Reason) -> None:
    journal, endless = Journal(), Endless()
    machine = bare(*three(journal, Async, **{hook: endless}))
    launching = InThread(machine.launch)
    until(lambda: journal.of(hook) == "ab")
    getattr(machine, end)()
    assert_cancelled(machine, launching.join(), reason)
    assert endless.cancelled.is_set()
    assert ("spawn" in kinds(machine)) == (hook == "post_launch")
    assert_cleaned_up(journal, "ba" if hook == "pre_launch" else "cba")
    assert_works(machine, journal)


@ENDS
@pytest.mark.parametrize("hook", SET_UP)
def test_ending_a_launch_in_a_plain_hook(bare: MakeMachine, hook: str, end: str, reason: Reason) -> None:
    """The hook can't be stopped: whoever asked waits for it. But no QEMU does."""
    journal, blocked = Journal(), Blocked()
    machine = bare(*three(journal, Plain, **{hook: blocked}))
    with released(blocked):
        launching = InThread(machine.launch)
        assert blocked.began.wait(30)
        ending = InThread(getattr(machine, end), timeout=5)
        until(lambda: machine.state is State.QUITTING)
        until(lambda: machine.pid is None)
        assert not ending.over
        assert not launching.over
        assert journal.of("early_cleanup") == "", "one hook has finished before the next begins"
    assert ending.join().error is None
    assert_cancelled(machine, launching.join(), reason)
    assert ("spawn" in kinds(machine)) == (hook == "post_launch")
    assert_cleaned_up(journal, "ba" if hook == "pre_launch" else "cba")
    assert_works(machine, journal)


@pytest.mark.parametrize("hook", ["post_launch", "early_cleanup"])
def test_kill_waits_for_no_hook_before_it_kills(bare: MakeMachine, hook: str) -> None:
    journal, blocked = Journal(), Blocked()
    machine = bare(*three(journal, Plain, **{hook: blocked}))
    with released(blocked):
        walking = InThread(lambda: machine.launch().shutdown())
        assert blocked.began.wait(30)
        pid = machine.pid
        assert pid is not None
        stop_process(pid)
        begin = time.monotonic()
        with pytest.raises(MachineTimeout) as caught:
            machine.kill(timeout=0.1)
        assert time.monotonic() - begin < 0.1 + GRACE + SLACK
        assert caught.value.operation == "kill"
        assert f"{hook} of plugin 'b' is running" in str(caught.value)
        assert not os.path.exists(f"/proc/{pid}"), "gone and reaped"
        assert not walking.over
    walking.join()
    machine.wait(30)
    assert (machine.state, machine.reason) == (State.STOPPED, Reason.KILLED)
    assert_cleaned_up(journal)


# -- a death in each phase ----------------------------------------------------------------------------------


def test_death_in_an_async_post_launch(bare: MakeMachine) -> None:
    journal, endless = Journal(), Endless()
    machine = bare(*three(journal, Async, post_launch=endless))
    launching = InThread(machine.launch, timeout=300)
    until(lambda: journal.of("post_launch") == "ab")
    send(machine.pid, signal.SIGKILL)
    launching.join()
    assert isinstance(launching.error, LaunchError)
    assert launching.error.exit_status == machine.exit_status == -signal.SIGKILL
    assert (machine.state, machine.reason) == (State.FAILED, Reason.LAUNCH_ERROR)
    assert endless.cancelled.is_set()
    assert_cleaned_up(journal)
    assert_works(machine, journal)


def test_death_in_a_plain_post_launch(bare: MakeMachine) -> None:
    journal, blocked = Journal(), Blocked()
    machine = bare(*three(journal, Plain, post_launch=blocked))
    with released(blocked):
        launching = InThread(machine.launch, timeout=300)
        assert blocked.began.wait(30)
        send(machine.pid, signal.SIGKILL)
        until(lambda: (machine.state, machine.reason) == (State.QUITTING, Reason.LAUNCH_ERROR))
        assert machine.exit_status == -signal.SIGKILL
        assert not launching.over
    assert isinstance(launching.join().error, LaunchError)
    assert (machine.state, machine.reason) == (State.FAILED, Reason.LAUNCH_ERROR)
    assert_cleaned_up(journal)
    assert_works(machine, journal)


@pytest.mark.parametrize("call", ["shutdown", "kill"])
def test_an_end_that_comes_after_the_death_changes_nothing(bare: MakeMachine, call: str) -> None:
    journal, blocked = Journal(), Blocked()
    machine = bare(*three(journal, Plain, early_cleanup=blocked)).launch()
    with released(blocked):
        send(machine.pid, signal.SIGSEGV)
        assert blocked.began.wait(30)
        assert (machine.state, machine.reason) == (State.QUITTING, Reason.QEMU_SIGNAL)
        ending = InThread(getattr(machine, call))
        assert not ending.over
    ending.join()
    if call == "shutdown":
        assert isinstance(ending.error, AbnormalExit)
    else:
        assert ending.error is None
    assert (machine.state, machine.reason) == (State.FAILED, Reason.QEMU_SIGNAL)
    assert machine.exit_status == -signal.SIGSEGV
    assert_cleaned_up(journal)


def test_death_while_quitting(bare: MakeMachine) -> None:
    """Somebody else's SIGKILL is none of ours, even when it was about to be asked to go."""
    journal, blocked = Journal(), Blocked()
    machine = bare(QMP(), *three(journal, Plain, early_cleanup=blocked)).launch()
    with released(blocked):
        ending = InThread(machine.shutdown)
        assert blocked.began.wait(30)
        send(machine.pid, signal.SIGKILL)
        until(lambda: machine.pid is None)
        assert not ending.over
    with pytest.raises(AbnormalExit) as caught:
        ending.result()
    assert caught.value.reason is Reason.QEMU_SIGNAL
    assert (machine.state, machine.reason) == (State.FAILED, Reason.QEMU_SIGNAL)
    assert_cleaned_up(journal)


# -- waiting while it ends ----------------------------------------------------------------------------------


class Waiter:
    """A call that only the end of the machine ends, in a thread of its own."""

    def __init__(self, machine: Machine, call: Callable[[], object]) -> None:
        self.machine = machine
        self.seen: State | None = None
        """The machine's state when the call was over."""
        self.call = call
        self.thread = InThread(self._wait)

    def _wait(self) -> object:
        try:
            return self.call()
        finally:
            self.seen = self.machine.state

    def assert_told(self, reason: Reason) -> None:
        with pytest.raises(MachineDied) as caught:
            self.thread.result()
        assert self.seen in FINAL
        assert (caught.value.state, caught.value.reason) == (self.seen, reason)
        assert caught.value.exit_status == self.machine.exit_status

    def assert_wait_over(self) -> None:
        """It is a `wait`."""
        self.thread.join()
        assert self.seen in FINAL
        if self.machine.state is State.FAILED:
            assert type(self.thread.error) is AbnormalExit
            assert self.thread.error.reason is self.machine.reason
        else:
            assert self.thread.result() == self.machine.exit_status


def waiting(machine: Machine, **calls: Callable[[], object]) -> dict[str, Waiter]:
    """Make the calls; all of them have reached the I/O thread."""
    assert machine._launch is not None
    in_progress = machine._launch.calls.in_progress
    before = len(in_progress)
    waiters = {name: Waiter(machine, call) for name, call in calls.items()}
    until(lambda: len(in_progress) == before + len(calls))
    return waiters


ENDINGS: dict[str, tuple[Callable[[Machine], object], State, Reason]] = {
    "SIGKILL": (lambda vm: send(vm.pid, signal.SIGKILL), State.FAILED, Reason.QEMU_SIGNAL),
    "shutdown": (lambda vm: vm.shutdown(), State.STOPPED, Reason.REQUESTED),
    "kill": (lambda vm: vm.kill(), State.STOPPED, Reason.KILLED),
    "poweroff": (lambda vm: vm.console.sendline("poweroff"), State.STOPPED, Reason.GUEST_SHUTDOWN),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_all_who_wait_are_told(guest: MakeGuest, name: str) -> None:
    end, state, reason = ENDINGS[name]
    vm = guest().launch()
    until_guest_is_up(vm)
    waiters = waiting(
        vm,
        expect=lambda: vm.console.expect("never"),
        wait_event=lambda: vm.qmp.wait_event("DEVICE_DELETED"),
        wait_any=lambda: vm.qmp.wait_any([("DEVICE_DELETED", None), ("STOP", {"never": 1})]),
        unlimited=lambda: vm.qmp.wait_event("DEVICE_DELETED", timeout=None),
        wait=lambda: vm.wait(60),
        unlimited_wait=vm.wait,
    )
    end(vm)
    for call, waiter in waiters.items():
        if call in {"wait", "unlimited_wait"}:
            waiter.assert_wait_over()
        else:
            waiter.assert_told(reason)
    assert (vm.state, vm.reason) == (state, reason)


def test_a_command_that_is_not_answered_any_more(guest: MakeGuest) -> None:
    vm = guest().launch()
    stop_process(vm.pid)
    waiters = waiting(
        vm,
        execute=lambda: vm.qmp.execute("query-status"),
        execute_raw=lambda: vm.qmp.execute_raw("query-status", timeout=None),
    )
    send(vm.pid, signal.SIGKILL)
    for waiter in waiters.values():
        waiter.assert_told(Reason.QEMU_SIGNAL)


def test_the_machine_is_in_its_final_state_when_waiters_are_told(bare: MakeMachine) -> None:
    journal = Journal()
    machine = bare(QMP(), *three(journal))
    for number in range(30):
        journal.clear()
        machine.launch()
        waiters = waiting(
            machine,
            event=lambda: machine.qmp.wait_event("DEVICE_DELETED"),
            other=lambda: machine.qmp.wait_event("RESUME", timeout=None),
            end=machine.wait,
        )
        number_of_signal = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT)[number % 3]
        send(machine.pid, number_of_signal)
        waiters["event"].assert_told(Reason.QEMU_SIGNAL)
        waiters["other"].assert_told(Reason.QEMU_SIGNAL)
        waiters["end"].assert_wait_over()
        assert machine.exit_status == -number_of_signal
        assert_cleaned_up(journal)


def test_whose_deadline_is_sooner_is_told_then(bare: MakeMachine) -> None:
    """Somebody's clean-up takes long: nobody waits for it longer than he said."""
    journal, blocked = Journal(), Blocked()
    machine = bare(QMP(), *three(journal, Plain, post_shutdown=blocked)).launch()
    with released(blocked):
        waiters = waiting(
            machine,
            impatient=lambda: machine.qmp.wait_event("DEVICE_DELETED", timeout=1.5),
            patient=lambda: machine.qmp.wait_event("DEVICE_DELETED", timeout=60),
            wait=lambda: machine.wait(1.5),
        )
        began = time.monotonic()
        send(machine.pid, signal.SIGKILL)
        assert blocked.began.wait(30)
        assert (machine.state, machine.reason) == (State.QUITTING, Reason.QEMU_SIGNAL)

        late = InThread(machine.qmp.execute, "query-status", timeout=0.2)
        for thread in (waiters["impatient"].thread, late):
            with pytest.raises(MachineDied) as caught:
                thread.result()
            assert (caught.value.state, caught.value.reason) == (State.QUITTING, Reason.QEMU_SIGNAL)
            assert caught.value.exit_status == -signal.SIGKILL
        assert time.monotonic() - began < 1.5 + GRACE + SLACK
        assert waiters["impatient"].seen is State.QUITTING
        with pytest.raises(MachineTimeout):
            waiters["wait"].thread.result()
        assert not waiters["patient"].thread.over
    waiters["patient"].assert_told(Reason.QEMU_SIGNAL)
    assert_cleaned_up(journal)


def test_the_shorter_of_two_shutdowns_decides(bare: MakeMachine) -> None:
    machine = bare(QMP())
    for first, second in ((60.0, 1.0), (1.0, 60.0)):
        machine.launch()
        stop_process(machine.pid)
        begin = time.monotonic()
        one = InThread(machine.shutdown, timeout=first)
        until(lambda: machine.state is State.QUITTING)
        other = InThread(machine.shutdown, timeout=second)
        for ending in (one, other):
            with pytest.raises(AbnormalExit) as caught:
                ending.result()
            assert caught.value.reason is Reason.WEDGED
        assert time.monotonic() - begin < 1 + GRACE + SLACK
        assert (machine.state, machine.reason) == (State.FAILED, Reason.WEDGED)


def test_waiters_during_a_launch_that_fails(bare: MakeMachine) -> None:
    journal, blocked = Journal(), Blocked()
    machine = bare(QMP(), *three(journal, Plain, post_launch=blocked))
    with released(blocked):
        launching = InThread(machine.launch)
        assert blocked.began.wait(30)
        waiters = waiting(
            machine,
            event=lambda: machine.qmp.wait_event("DEVICE_DELETED"),
            wait=machine.wait,
        )
        send(machine.pid, signal.SIGKILL)
        until(lambda: machine.pid is None)
    waiters["event"].assert_told(Reason.LAUNCH_ERROR)
    waiters["wait"].assert_wait_over()
    assert isinstance(launching.join().error, LaunchError)
    with pytest.raises(TransitionError):
        machine.qmp.execute("query-status")


# -- reading meanwhile --------------------------------------------------------------------------------------


class Reader:
    """Reads all there is to be read, again and again, and checks that it fits together."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.states: set[State] = set()
        self.text = ""
        self._over = threading.Event()
        self._thread = InThread(self._read)

    def stop(self) -> None:
        self._over.set()
        self._thread.result()

    def _read(self) -> None:
        while not self._over.is_set():
            self._look()

    def _look(self) -> None:
        vm = self.machine
        before = vm.history
        facts: dict[str, Any] = {
            "state": vm.state,
            "reason": vm.reason,
            "since": vm.since,
            "exit_status": vm.exit_status,
            "pid": vm.pid,
        }
        after = vm.history
        assert after[: len(before)] == before
        self.states.add(facts["state"])
        if before == after and before:
            self._compare(facts, before[-1])
        times = [record.at for record in vm.timeline]
        assert times == sorted(times)
        self.text = vm.console.text or self.text
        assert vm.console.lines() is not None
        assert isinstance(vm.log.text + vm.log.tail() + repr(vm) + str(vm.run_state), str)
        assert all(isinstance(event["event"], str) for event in vm.qmp.events())

    @staticmethod
    def _compare(facts: dict[str, Any], last: Transition) -> None:
        """They were all read within one state."""
        assert (facts["state"], facts["reason"], facts["since"]) == (last.dest, last.reason, last.at)
        if last.dest in FINAL:
            assert facts["pid"] is None
        if facts["exit_status"] is not None:
            assert facts["pid"] is None, "pid was read after it"


@pytest.mark.parametrize("name", ENDINGS)
def test_reading_never_raises_and_fits_together(guest: MakeGuest, name: str) -> None:
    end, _, reason = ENDINGS[name]
    vm = guest().launch()
    reader = Reader(vm)
    try:
        for _ in range(3):
            until_guest_is_up(vm)
            end(vm)
            until(lambda: vm.state in FINAL)
            assert vm.reason is reason
            vm.launch()
    finally:
        reader.stop()
    assert State.RUNNING in reader.states
    assert "ready" in reader.text
    vm.shutdown()


def test_reading_before_the_first_launch(guest: MakeGuest) -> None:
    vm = guest()
    assert (vm.state, vm.reason, vm.pid, vm.exit_status) == (State.CONFIGURED, None, None, None)
    assert (vm.console.text, vm.log.text, vm.timeline, vm.history) == ("", "", (), ())
    with pytest.raises(VMError):
        vm.qmp.events()
