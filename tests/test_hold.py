"""A machine that is held: none of its deadlines runs out, and what was left is left afterwards."""

import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.at_line import AtLine
from tests.conftest import MakeMachine
from tests.endings import MakeGuest, be_silent, guests, send, spoiler, stop_process, until_guest_is_up
from tests.hooked import Async, Endless, Journal
from tests.waiting import InThread, is_alive, until
from vmfsm import (
    AbnormalExit,
    ConfigError,
    GuestPanicked,
    Hold,
    LaunchError,
    LaunchPlan,
    Machine,
    MachineDied,
    MachineTimeout,
    Reason,
    State,
    TransitionError,
    Verdict,
    format_timeline,
)
from vmfsm.iothread import IOThread

TIMEOUT = 0.2
"""Of calls that time would be up for, were the machine not held."""
HELD = 0.5
"""Seconds to see that it is not."""
NOTICED = 0.001
"""Seconds by which a clock is read after what it is read for."""


@pytest.fixture
def make(qemu: str) -> Iterator[MakeGuest]:
    with guests(qemu) as make:
        yield make


@pytest.fixture
def vm(make: MakeGuest) -> Machine:
    vm = make().launch()
    until_guest_is_up(vm)
    return vm


def pass_time(seconds: float = HELD) -> None:
    begin = time.monotonic()
    until(lambda: time.monotonic() > begin + seconds)


class Said:
    """What was written to stderr of one machine, by threads of the framework's: soon."""

    def __init__(self, capfd: pytest.CaptureFixture[str], vm: Machine) -> None:
        self._capfd = capfd
        self._name = vm.name
        self.text = ""

    def has(self, words: str, times: int = 1) -> bool:
        self.text += self._capfd.readouterr().err
        return self.text.count(f"vmfsm: {self._name}{words}") == times


def kinds(vm: Machine, kind: str) -> list[Any]:
    return [record.data for record in vm.timeline if record.kind == kind]


# -- nothing is late ----------------------------------------------------------------------------------------


def _follow(vm: Machine) -> None:
    for _ in vm.log.follow(timeout=TIMEOUT):
        pass


def _expect_a_verdict(vm: Machine) -> None:
    with vm.verdicts.expected("kernel-panic", timeout=TIMEOUT):
        pass


CALLS: dict[str, Callable[[Machine], object]] = {
    "execute": lambda vm: vm.qmp.execute("query-status", timeout=TIMEOUT),
    "reconnect": lambda vm: vm.qmp.reconnect(TIMEOUT),
    "wait_event": lambda vm: vm.qmp.wait_event("RTC_CHANGE", timeout=TIMEOUT),
    "expect": lambda vm: vm.console.expect("never", timeout=TIMEOUT),
    "follow": _follow,
    "wait": lambda vm: vm.wait(TIMEOUT),
    "list": lambda vm: vm.snapshots.list(timeout=TIMEOUT),
    "expected": _expect_a_verdict,
}


@pytest.mark.parametrize("call", CALLS)
def test_a_call_has_as_much_time_as_it_had(vm: Machine, call: str) -> None:
    """On a QEMU that is stopped, so that none of them comes to anything."""
    stop_process(vm.pid)
    begin = vm._clock.now()
    with vm.hold():
        waiting = InThread(CALLS[call], vm)
        pass_time()
        assert not waiting.over
    waiting.join()
    assert type(waiting.error) is MachineTimeout
    assert waiting.error.timeout == TIMEOUT
    assert vm._clock.now() - begin >= TIMEOUT - NOTICED
    assert vm.state is State.RUNNING


def test_what_comes_meanwhile_comes(vm: Machine) -> None:
    with vm.hold():
        vm.console.sendline("ping", timeout=TIMEOUT)
        assert vm.console.expect("pong", timeout=TIMEOUT)
        assert vm.qmp.execute("query-status", timeout=TIMEOUT)["running"]
        with pytest.raises(MachineTimeout):
            vm.console.expect("never", timeout=0)


@pytest.mark.parametrize("hook", ["pre_launch", "post_launch"])
def test_a_hook_of_a_launch(make: MakeGuest, hook: str) -> None:
    endless = Endless()
    vm = make(plugins=(Async("endless", Journal(), **{hook: endless}),))
    hold = vm.hold("before the launch")
    launching = InThread(vm.launch, TIMEOUT)
    assert endless.begun.wait(60)
    pass_time()
    assert not launching.over
    assert (vm.state, vm.held) == (State.LAUNCHING, "before the launch")
    hold.release()
    launching.join()
    assert isinstance(launching.error, LaunchError)
    assert (vm.state, vm.reason) == (State.FAILED, Reason.DEADLINE)


def test_the_negotiation_with_a_monitor(make: MakeGuest) -> None:
    vm = make(options={"qmp": {"negotiate_timeout": TIMEOUT}})
    spoiler(vm).planning = be_silent
    with vm.hold():
        launching = InThread(vm.launch)
        until(lambda: vm.pid is not None)
        pass_time()
        assert not launching.over
    launching.join()
    assert "negotiate_timeout" in str(launching.error)


def test_the_ladder(vm: Machine) -> None:
    """A QEMU that does not react: no signal while it is held, all of them after that."""
    stop_process(vm.pid)
    hold = vm.hold()
    ending = InThread(vm.shutdown, timeout=TIMEOUT)
    until(lambda: kinds(vm, "stop"))
    pass_time()
    assert [data["way"] for data in kinds(vm, "stop")] == ["qmp"]
    assert vm.pid is not None
    assert not ending.over
    hold.release()
    ending.join()
    assert isinstance(ending.error, AbnormalExit)
    assert vm.reason is Reason.WEDGED
    assert kinds(vm, "stop")[-1]["way"] == "SIGKILL"


def test_a_hook_of_the_clean_up(make: MakeGuest) -> None:
    endless = Endless()
    vm = make(plugins=(Async("endless", Journal(), post_shutdown=endless),)).launch()
    with vm.hold():
        ending = InThread(vm.shutdown, timeout=TIMEOUT)
        assert endless.begun.wait(60)
        pass_time()
        assert not endless.cancelled.is_set()
    ending.join()
    assert endless.cancelled.is_set()


def test_a_companion_that_is_deaf(make: MakeGuest, tmp_path: Path) -> None:
    def plan(plan: LaunchPlan) -> None:
        program = "trap '' TERM; echo ready; while :; do sleep 0.01; done"
        companions.append(plan.companion(["sh", "-c", program], name="deaf", ready=re.compile("ready")))

    companions: list[Any] = []
    vm = make()
    spoiler(vm).planning = plan
    vm.launch()
    with vm.hold():
        ending = InThread(vm.shutdown, timeout=TIMEOUT)
        until(lambda: kinds(vm, "exit"))
        pass_time()
        assert companions[0].pid is not None
        assert not ending.over
    ending.result()
    assert companions[0].exit_status == -signal.SIGKILL


# -- holding ------------------------------------------------------------------------------------------------


def test_several_hold_and_the_last_one_lets_go(bare: MakeMachine) -> None:
    vm = bare().launch()
    first = vm.hold()
    second = InThread(vm.hold, "another").result()
    assert (first.by, first.reason, first.keep) == (threading.current_thread().name, None, False)
    assert vm.held == f"by {first.by}; another"
    assert vm.snapshot()["held"] == vm.held
    first.release()
    first.release()
    assert (first.released, second.released, vm.held) == (True, False, "another")
    assert vm.deadline(1).stands_still
    second.release()
    assert vm.held is None
    assert not vm.deadline(1).stands_still
    assert "released" in repr(first)


def test_release_ends_all_of_them(bare: MakeMachine) -> None:
    vm = bare()
    holds = [vm.hold(), vm.hold("another", keep=True), vm.hold(keep=True)]
    vm.release()
    assert all(hold.released for hold in holds)
    vm.release()
    with vm.hold() as hold:
        vm.release()
        assert hold.released


def test_the_timeline_shows_the_gap(bare: MakeMachine) -> None:
    vm = bare().launch()
    with vm.hold("a look", keep=True):
        pass_time(0.05)
    vm.shutdown()
    by = threading.current_thread().name
    assert kinds(vm, "hold") == [{"by": by, "reason": "a look", "keep": True}]
    [release] = kinds(vm, "release")
    assert release["by"] == by
    assert release["seconds"] >= 0.05
    assert "reason=a look" in format_timeline(vm.timeline)


def test_secrets_are_not_told(bare: MakeMachine, capfd: pytest.CaptureFixture[str]) -> None:
    vm = bare()
    vm.secrets.add("swordfish")
    said = Said(capfd, vm)
    with vm.hold("the password is swordfish"):
        assert "swordfish" not in (vm.held or "")
        until(lambda: said.has(" is held"))
    assert "swordfish" not in said.text
    vm.launch()
    assert "swordfish" not in format_timeline(vm.timeline)


def test_on_the_io_thread(make: MakeGuest) -> None:
    holds: list[Hold] = []

    async def hold(machine: Machine) -> None:
        with pytest.raises(TransitionError):
            machine.wait_released()
        holds.append(machine.hold("in a hook", keep=True))
        assert machine.held == "in a hook"

    vm = make(plugins=(Async("holding", Journal(), post_launch=hold),)).launch()
    assert vm.held == "in a hook"
    IOThread.get().post(holds[0].release)
    vm.wait_released(30)
    assert kinds(vm, "hold")[0]["by"] == kinds(vm, "release")[0]["by"] == IOThread.get().thread.name


def test_it_spans_launches(bare: MakeMachine) -> None:
    vm = bare()
    with vm.hold("all the time"):
        for _ in range(2):
            vm.launch()
            assert vm.held == "all the time"
            vm.shutdown()
        assert vm.held == "all the time"
    assert vm.held is None


def test_waiting_for_the_release(bare: MakeMachine) -> None:
    vm = bare()
    vm.wait_released(0)
    hold = vm.hold("a look")
    with pytest.raises(MachineTimeout, match="a look") as caught:
        vm.wait_released(0.05)
    assert (caught.value.operation, caught.value.timeout) == ("wait_released", 0.05)
    waiting = [InThread(vm.wait_released) for _ in range(3)]
    hold.release()
    for one in waiting:
        one.result()


@pytest.mark.parametrize(
    ("arguments", "field"), [({"reason": 1}, "reason"), ({"reason": b"x"}, "reason"), ({"keep": 1}, "keep")]
)
def test_what_is_refused(bare: MakeMachine, arguments: dict[str, Any], field: str) -> None:
    vm = bare()
    with pytest.raises(ConfigError) as caught:
        vm.hold(**arguments)
    assert caught.value.field == field
    assert vm.held is None
    with pytest.raises(ConfigError):
        vm.wait_released(-1)


def test_in_a_forked_child(bare: MakeMachine) -> None:
    vm = bare()
    with vm.hold("the parent's"):
        child = os.fork()
        if child == 0:  # pragma: no cover
            status = 1
            try:
                for call in (vm.hold, vm.release, vm.wait_released):
                    try:
                        call()
                    except TransitionError:
                        status += 1
                with vm._holds.held[0]:
                    pass
                status += 10 * (vm.held == "the parent's")
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 14
        assert vm.held == "the parent's"


def test_interrupts_at_each_line(bare: MakeMachine) -> None:
    """No clock stands still for ever, and no lock is left locked."""
    vm = bare()

    def each(use: Callable[[], object]) -> int:
        for number in range(1000):
            at_line = AtLine(number, KeyboardInterrupt())
            try:
                with at_line:
                    use()
            except KeyboardInterrupt:
                pass
            assert vm._clock.stands_still == bool(vm._holds.held)
            for hold in vm._holds.held:
                if hold is not others:
                    hold.release()  # its own release was hit before it began
            InThread(vm._holds.wake).join()
            if not at_line.raised:
                return number
        raise AssertionError("it does not end")

    others: Hold | None = None
    assert each(lambda: vm.hold("a look").release()) > 10
    others = vm.hold("somebody else's")
    assert each(lambda: vm.hold("a look").release()) > 10
    others.release()


def test_a_storm(vm: Machine) -> None:
    """Many hold and release, while others wait: all of it ends, and the clock has gone on."""
    over = threading.Event()

    def storm(number: int) -> None:
        while not over.is_set():
            with vm.hold(f"storm {number}", keep=number == 0):
                assert vm.deadline(1).stands_still

    storms = [InThread(storm, number) for number in range(4)]
    for _ in range(10):
        with pytest.raises(MachineTimeout):
            vm.console.expect("never", timeout=0.001)
        assert vm.qmp.execute("query-status", timeout=5)["running"]
    over.set()
    for one in storms:
        one.result()
    assert vm.held is None
    assert not vm.deadline(1).stands_still
    vm.shutdown()
    assert len(kinds(vm, "hold")) <= len(kinds(vm, "release")) + 1, "the oldest may be gone"


# -- keeping ------------------------------------------------------------------------------------------------


def is_inside(waiting: str, thread: int | None = None) -> bool:
    """Whether some thread, or this one, is in a function of this name."""
    frames = sys._current_frames()
    return any(
        caller.f_code.co_name == waiting
        for frame in (frames.values() if thread is None else [frames[thread]])
        for caller, _ in traceback.walk_stack(frame)
    )


def test_shutdown_waits_where_it_is_kept(vm: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    hold, other = vm.hold("a look", keep=True), vm.hold()
    ending = InThread(vm.shutdown)
    until(lambda: is_inside("await_unkept"))
    pass_time(0.1)
    assert vm.state is State.RUNNING
    hold.release()
    ending.result()
    assert (vm.state, vm.reason) == (State.STOPPED, Reason.REQUESTED)
    other.release()
    said = Said(capfd, vm)
    until(lambda: said.has(" is held", 1) and said.has(": shutdown waits"))
    for command in ("console", "qmp", "gdb", "release"):
        assert f" vmfsm {command} {vm.name}\n" in said.text
    assert said.text.index(" is held") < said.text.index(": shutdown waits")


@pytest.mark.parametrize(
    ("operation", "wait"),
    [
        ("shutdown: waits for the release", Machine.shutdown),
        ("wait_released", Machine.wait_released),
    ],
)
def test_who_waits_for_the_release_is_shown(
    vm: Machine, operation: str, wait: Callable[[Machine], object]
) -> None:
    hold = vm.hold("a look", keep=True)

    def shown() -> list[Any]:
        waits: Any = vm.snapshot()["waits"]
        return [one["operation"] for one in waits]

    waiting = InThread(wait, vm)
    until(lambda: shown() == [operation])
    hold.release()
    waiting.result()
    assert shown() == []


def test_a_plain_hold_is_told_once_and_keeps_nothing(vm: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        with vm.hold("a look"):
            pass
    with vm.hold():
        vm.shutdown()
    assert (vm.state, vm.reason) == (State.STOPPED, Reason.REQUESTED)
    said = Said(capfd, vm)
    vm.hold("the last words", keep=True).release()
    until(lambda: said.has(" is held (the last words)"))
    until(lambda: said.has(" is held", 2))


def test_kill_does_not_wait_and_ends_holds(vm: Machine) -> None:
    hold = vm.hold(keep=True)
    shutting_down = InThread(vm.shutdown)
    until(lambda: is_inside("await_unkept"))
    vm.kill()
    assert (vm.state, vm.reason, hold.released) == (State.STOPPED, Reason.KILLED, True)
    shutting_down.result()


def test_kill_ends_holds_before_a_launch(bare: MakeMachine) -> None:
    vm = bare()
    hold = vm.hold(keep=True)
    vm.kill()
    assert hold.released


def test_inside_of_its_own_block_nobody_waits_for_it(vm: Machine) -> None:
    with vm.hold(keep=True):
        with pytest.raises(TransitionError, match="inside the with block") as caught:
            vm.shutdown()
        assert (vm.state, caught.value.event) == (State.RUNNING, "shutdown")
        elsewhere = InThread(vm.shutdown)
        until(lambda: is_inside("await_unkept"))
    elsewhere.result()


def test_the_block_of_the_machine_ends_inside_of_that_of_a_hold(make: MakeGuest) -> None:
    vm = make()
    with vm.hold(keep=True), vm:
        vm.launch()
    assert vm.state is State.STOPPED


def test_qemu_ends_while_it_is_kept(vm: Machine) -> None:
    hold = vm.hold(keep=True)
    waiting = InThread(vm.console.expect, "never", timeout=TIMEOUT)
    shutting_down = InThread(vm.shutdown)
    until(lambda: is_inside("await_unkept"))
    send(vm.pid, signal.SIGKILL)
    waiting.join()
    assert isinstance(waiting.error, MachineDied)
    shutting_down.join()
    assert isinstance(shutting_down.error, AbnormalExit)
    assert (vm.state, vm.reason) == (State.FAILED, Reason.QEMU_SIGNAL)
    assert not hold.released
    hold.release()


def test_ctrl_c_ends_the_wait_and_the_machine(vm: Machine) -> None:
    hold = vm.hold(keep=True)
    main = threading.get_ident()

    def interrupt() -> None:
        until(lambda: is_inside("await_unkept", main) and is_inside("wait", main))
        signal.pthread_kill(main, signal.SIGINT)

    interrupting = InThread(interrupt)
    with pytest.raises(KeyboardInterrupt):
        vm.shutdown()
    interrupting.result()
    assert vm.state is State.STOPPED
    assert hold.released


def test_a_verdict_does_not_end_a_qemu_that_is_kept(vm: Machine) -> None:
    verdict = Verdict("kernel-panic", "somewhere", {})
    with vm.hold(keep=True):
        waiting = InThread(vm.console.expect, "never")
        until(lambda: vm._launch is not None and vm._launch.calls.in_progress)
        IOThread.get().post(lambda: vm.report(verdict, action="fail"))
        waiting.join()
        assert isinstance(waiting.error, GuestPanicked)
        assert vm.pid is not None
    assert kinds(vm, "verdict")[-1]["action"] == "wake"
    with vm.hold():
        IOThread.get().post(lambda: vm.report(verdict, action="fail"))
        until(lambda: vm.state is State.FAILED)


def test_a_launch_that_is_cancelled(make: MakeGuest) -> None:
    """By a shutdown, which waits for the release."""
    endless = Endless()
    vm = make(plugins=(Async("endless", Journal(), post_launch=endless),))
    launching = InThread(vm.launch)
    assert endless.begun.wait(60)
    hold = vm.hold(keep=True)
    ending = InThread(vm.shutdown)
    until(lambda: is_inside("await_unkept"))
    assert vm.state is State.LAUNCHING
    hold.release()
    ending.result()
    launching.join()
    assert isinstance(launching.error, LaunchError)
    pid = vm.pid
    assert pid is None or not is_alive(pid)
