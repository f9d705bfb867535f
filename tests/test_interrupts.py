"""Ctrl-C, and whatever else a signal handler raises, at any moment of a call.

The exception that comes is that very one; QEMU is never alive in a final state; nothing hangs.
"""

import gc
import itertools
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Self
from unittest import mock

import pytest

from tests.at_line import AtLine
from tests.conftest import MakeMachine
from tests.waiting import LIMIT, InThread, is_alive, until
from vmfsm import (
    Companion,
    LaunchPlan,
    Machine,
    MachineTimeout,
    PluginError,
    Reason,
    State,
    hookimpl,
    serving,
)
from vmfsm.errors import describe
from vmfsm.iothread import IOThread
from vmfsm.process import Process

SEEDS = int(os.environ.get("VMFSM_TEST_SEEDS", "60"))
"""How often the tests that leave it to chance try."""

# An interrupt can come when a coroutine is made and nobody has it yet, and in a finalizer, which swallows it.
AT_ANY_TIME = pytest.mark.filterwarnings(
    "ignore:coroutine .* was never awaited:RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)

pytestmark = pytest.mark.timeout(method="thread")  # SIGALRM is ours here

FINAL = {State.CONFIGURED, State.STOPPED, State.FAILED}


class Interrupt(BaseException):
    """What the signal handler raises."""


class TooLate(Exception):
    """Some handlers raise an ordinary exception: a test's time limit, say."""


class Alarm:
    """SIGALRM raises each of some exceptions in the main thread, once."""

    def __init__(self, *exceptions: BaseException) -> None:
        self.exception = exceptions[0]
        self._left = list(exceptions)
        self._pauses: list[float] = []

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # Not while it is disarmed, when the block is over: what is left would come at any time after it.
        if self._left and (frame is None or frame.f_code is not Alarm.__exit__.__code__):
            if self._pauses:
                self.after(*self._pauses)
            raise self._left.pop(0)

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGALRM, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self._left.clear()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)

    def after(self, seconds: float, *pauses: float) -> None:
        """Again and again, since Python does not see a signal that comes just before it falls asleep."""
        self._pauses = list(pauses)
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6), 0.02)

    def when(self, event: threading.Event) -> InThread:
        """As soon as `event` is set, in a thread of its own."""

        def wait() -> None:
            assert event.wait(LIMIT)
            self.after(0)

        return InThread(wait)


@pytest.fixture(autouse=True)
def disarmed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever an interrupt has kept from being undone."""
    before = signal.getsignal(signal.SIGALRM)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    if request.node.get_closest_marker("filterwarnings") is not None:
        gc.collect()  # what the interrupts of this test have left is not to be found in another one


@pytest.fixture(params=[KeyboardInterrupt, Interrupt, TooLate])
def alarm(request: pytest.FixtureRequest) -> Iterator[Alarm]:
    with Alarm(request.param("by SIGALRM")) as alarm:
        yield alarm


def consistent(vm: Machine) -> bool:
    """Whether the machine is where one can be between calls, with QEMU alive just where it should be."""
    if vm.state is State.RUNNING:
        return vm.pid is not None
    return vm.state in FINAL and vm.pid is None


class Halting:
    """A plugin that stops in one hook until it is let go, and knows where QEMU was."""

    name = "halting"

    def __init__(self, hook: str) -> None:
        self.hook = hook
        self.halted = threading.Event()
        self.go_on = threading.Event()
        self.ran: list[str] = []
        self.pid: int | None = None

    def _run(self, hook: str, machine: Machine) -> None:
        self.ran.append(hook)
        self.pid = machine.pid or self.pid
        if hook == self.hook and not self.go_on.is_set():
            self.halted.set()
            assert self.go_on.wait(LIMIT)

    @hookimpl
    def pre_launch(self, machine: Machine, plan: LaunchPlan) -> None:
        plan.defer(lambda: self.ran.append("defer"))
        self._run("pre_launch", machine)

    @hookimpl
    def post_launch(self, machine: Machine) -> None:
        self._run("post_launch", machine)

    @hookimpl
    def early_cleanup(self, machine: Machine) -> None:
        self._run("early_cleanup", machine)

    @hookimpl
    def post_shutdown(self, machine: Machine) -> None:
        self._run("post_shutdown", machine)


SET_UP = ["pre_launch", "post_launch"]
CLEAN_UP = ["early_cleanup", "post_shutdown", "defer"]


@pytest.mark.parametrize("hook", SET_UP)
def test_in_a_hook_of_launch(bare: MakeMachine, alarm: Alarm, hook: str) -> None:
    """The hook runs in the interrupted thread, so it is what the exception hits."""
    halting = Halting(hook)
    vm = bare(halting)
    alarm.when(halting.halted)
    if isinstance(alarm.exception, Exception):
        # An ordinary exception that leaves the hook is the hook's, as far as anybody can see.
        with pytest.raises(Exception, match="by SIGALRM") as caught:
            vm.launch()
        assert caught.value.__cause__ is not None
        assert caught.value.__cause__.__cause__ is alarm.exception
        assert vm.reason is Reason.HOOK_FAILED
    else:
        with pytest.raises(type(alarm.exception)) as interrupted:
            vm.launch()
        assert interrupted.value is alarm.exception
        assert vm.reason is Reason.LAUNCH_ERROR
    assert vm.state is State.FAILED
    assert vm.pid is None
    assert halting.ran == [*SET_UP[: SET_UP.index(hook) + 1], *CLEAN_UP]


@pytest.mark.parametrize("hook", ["early_cleanup", "post_shutdown"])
@pytest.mark.parametrize("call", ["shutdown", "kill", "__exit__"])
def test_in_a_hook_of_the_end(bare: MakeMachine, hook: str, call: str) -> None:
    interrupt = KeyboardInterrupt()
    halting = Halting(hook)
    vm = bare(halting).launch()
    end: Callable[[], object] = (
        (lambda: vm.__exit__(None, None, None)) if call == "__exit__" else getattr(vm, call)
    )
    with Alarm(interrupt) as alarm:
        alarm.when(halting.halted)
        with pytest.raises(KeyboardInterrupt) as caught:
            end()
    assert caught.value is interrupt
    assert (vm.state, vm.reason) == (State.STOPPED, Reason.KILLED if call == "kill" else Reason.REQUESTED)
    assert halting.ran == [*SET_UP, *CLEAN_UP]


class TestWaitingPoints:
    """The machine runs in a hook of its own thread's while the interrupted thread only waits."""

    def test_wait_leaves_the_machine_running(self, bare: MakeMachine, alarm: Alarm) -> None:
        vm = bare().launch()
        alarm.after(0.05)
        with pytest.raises(type(alarm.exception)) as caught:
            vm.wait()
        assert caught.value is alarm.exception
        assert vm.state is State.RUNNING
        vm.shutdown()
        assert (vm.state, vm.reason) == (State.STOPPED, Reason.REQUESTED)

    def test_launch_in_an_async_hook(self, bare: MakeMachine, alarm: Alarm) -> None:
        import asyncio

        class Slow:
            name = "slow"

            @hookimpl
            async def post_launch(self, machine: Machine) -> None:
                self.pid = machine.pid
                alarm.after(0)
                await asyncio.sleep(LIMIT)

        slow = Slow()
        vm = bare(slow)
        with pytest.raises(type(alarm.exception)) as caught:
            vm.launch()
        assert caught.value is alarm.exception
        assert (vm.state, vm.reason) == (State.FAILED, Reason.LAUNCH_ERROR)
        assert slow.pid is not None
        assert not is_alive(slow.pid)

    def test_with_block(self, bare: MakeMachine, alarm: Alarm) -> None:
        vm = bare().launch()
        alarm.after(0.05)
        with pytest.raises(type(alarm.exception)) as caught, vm:
            vm.wait()
        assert caught.value is alarm.exception
        assert vm.state is State.STOPPED
        assert not hasattr(alarm.exception, "__notes__")


@pytest.mark.parametrize("hook", ["early_cleanup", "post_shutdown"])
def test_a_second_interrupt_returns_at_once_and_the_cleanup_still_completes(
    bare: MakeMachine, hook: str
) -> None:
    first, second = KeyboardInterrupt("first"), KeyboardInterrupt("second")
    halting = Halting(hook)

    class Interrupts:
        name = "a-interrupts"

        @hookimpl
        def post_launch(self) -> None:
            raise first

    vm = bare(halting, Interrupts())
    with Alarm(second) as alarm:
        alarm.when(halting.halted)
        with pytest.raises(KeyboardInterrupt) as caught:
            vm.launch()
        assert caught.value is second
    assert vm.state is State.QUITTING
    halting.go_on.set()
    until(lambda: vm.state is State.FAILED)
    until(lambda: halting.ran[-3:] == CLEAN_UP)
    assert vm.pid is None


def test_a_kill_that_has_killed_and_not_asked_yet(bare: MakeMachine) -> None:
    """It is over when the exception is raised, as any other end that was interrupted."""
    interrupt = KeyboardInterrupt()
    halting = Halting("none")
    vm = bare(halting).launch()
    send = Process.signal

    def send_and_be_interrupted(process: Process, number: signal.Signals) -> bool:
        patch.stop()
        send(process, number)
        raise interrupt

    patch = mock.patch.object(Process, "signal", send_and_be_interrupted)
    patch.start()
    with pytest.raises(KeyboardInterrupt) as caught:
        vm.kill()
    assert caught.value is interrupt
    assert (vm.state, vm.reason) == (State.STOPPED, Reason.KILLED)
    assert halting.ran == [*SET_UP, *CLEAN_UP]


# -- at every line ------------------------------------------------------------------------------------------


@contextmanager
def expecting(*exceptions: BaseException) -> Iterator[None]:
    """That the block raises one of these very ones, or nothing."""
    try:
        yield
    except BaseException as raised:  # noqa: BLE001 - whatever it was
        assert any(raised is exception for exception in exceptions), raised  # noqa: PT017


def lines(call: Callable[[int], bool]) -> int:
    """Call with 0, 1, 2, … until the call had fewer lines than that; how many it had."""
    for number in itertools.count():
        if not call(number):
            return number
    raise AssertionError


class Bystander:
    """Has a hook of each kind, and a companion, so that the interrupted thread has something to run."""

    name = "bystander"

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.companions: list[Companion] = []

    @hookimpl
    def pre_launch(self, plan: LaunchPlan) -> None:
        self.ran.append("pre_launch")
        plan.defer(lambda: self.ran.append("defer"))
        self.companions.append(plan.companion(["sleep", "1000"], ready=lambda: True))

    @hookimpl
    def post_launch(self) -> None:
        self.ran.append("post_launch")

    @hookimpl
    def early_cleanup(self) -> None:
        self.ran.append("early_cleanup")

    @hookimpl
    def post_shutdown(self) -> None:
        self.ran.append("post_shutdown")


def check(vm: Machine, bystander: Bystander, *interrupts: BaseException) -> None:
    """After any interrupted call: every launch that was begun is cleaned up after, once, or goes on.

    A hook that the interrupt itself has hit may not have got to its first statement.
    """
    assert consistent(vm)
    assert not any(companion.pid for companion in bystander.companions) or vm.state is State.RUNNING
    hit = [
        record.data["hook"]
        for record in vm.timeline
        if record.kind == "hook" and record.data["error"] in [describe(interrupt) for interrupt in interrupts]
    ]
    assert len(hit) <= 1
    calls = [record.data["hook"] for record in vm.timeline if record.kind == "hook"]
    ran = [hook for hook in bystander.ran if hook != "defer"]
    assert ran in (calls, [hook for hook in calls if hook not in hit])
    for hook in ("early_cleanup", "post_shutdown"):
        assert calls.count(hook) == sum(transition.dest in FINAL for transition in vm.history)
    if "pre_launch" not in hit:
        assert bystander.ran.count("defer") == bystander.ran.count("pre_launch") - (vm.state is State.RUNNING)


def shut_down(vm: Machine, *interrupts: BaseException) -> None:
    """Whatever happened before, this works; a clean-up hook that an interrupt has cut short is named."""
    try:
        vm.shutdown(timeout=LIMIT / 2)
    except PluginError as error:
        assert any(error.__cause__ is interrupt for interrupt in interrupts), error.__cause__  # noqa: PT017
    assert vm.state in FINAL
    assert vm.pid is None


@AT_ANY_TIME
class TestAtEveryLine:
    def test_launch(self, bare: MakeMachine) -> None:
        def call(number: int) -> bool:
            interrupt = KeyboardInterrupt()
            bystander = Bystander()
            vm = bare(bystander)
            at_line = AtLine(number, interrupt)
            with expecting(interrupt), at_line:
                vm.launch()
            check(vm, bystander, interrupt)
            assert at_line.raised or vm.state is State.RUNNING
            vm.kill()
            assert vm.pid is None
            return at_line.raised

        assert lines(call) > 30

    @pytest.mark.parametrize("call_name", ["shutdown", "kill"])
    @pytest.mark.parametrize("limited", [True, False])
    def test_the_end(self, bare: MakeMachine, call_name: str, limited: bool) -> None:
        def call(number: int) -> bool:
            interrupt = KeyboardInterrupt()
            bystander = Bystander()
            vm = bare(bystander).launch()
            at_line = AtLine(number, interrupt)
            end = getattr(vm, call_name)
            with expecting(interrupt), at_line:
                end(timeout=LIMIT if limited else None)
            check(vm, bystander, interrupt)
            assert at_line.raised or vm.state is State.STOPPED
            shut_down(vm, interrupt)
            assert vm.state is State.STOPPED
            return at_line.raised

        assert lines(call) > 20

    def test_wait(self, bare: MakeMachine) -> None:
        vm = bare().launch()

        def call(number: int) -> bool:
            at_line = AtLine(number, KeyboardInterrupt())
            with pytest.raises((KeyboardInterrupt, MachineTimeout)) as caught, at_line:
                vm.wait(0)
            assert at_line.raised == (caught.type is KeyboardInterrupt)
            assert vm.state is State.RUNNING
            return at_line.raised

        assert lines(call) > 20


# -- at any time --------------------------------------------------------------------------------------------


@AT_ANY_TIME
@pytest.mark.parametrize("seed", range(SEEDS))
def test_at_random(bare: MakeMachine, seed: int) -> None:
    """One interrupt, some time in launch, a wait, and shutdown."""
    chance = random.Random(seed)
    interrupt = chance.choice([KeyboardInterrupt, Interrupt])()
    bystander = Bystander()
    vm = bare(bystander)
    with expecting(interrupt), Alarm(interrupt) as alarm:
        alarm.after(chance.uniform(0, 0.025))
        with vm:
            vm.launch()
            with suppress(MachineTimeout):
                vm.wait(0.002)
            vm.shutdown()
    check(vm, bystander, interrupt)
    shut_down(vm, interrupt)


@AT_ANY_TIME
@pytest.mark.parametrize("seed", range(SEEDS))
def test_twice_at_random(bare: MakeMachine, seed: int) -> None:
    """Whether or not anybody still waits for it, the machine comes to its end."""
    chance = random.Random(seed)
    interrupts = KeyboardInterrupt("first"), chance.choice([KeyboardInterrupt, Interrupt])("second")
    bystander = Bystander()
    vm = bare(bystander)
    with expecting(*interrupts), Alarm(*interrupts) as alarm:
        alarm.after(chance.uniform(0, 0.025), chance.uniform(0, chance.choice([0.0003, 0.003])))
        vm.launch()
        vm.shutdown()
    shut_down(vm, *interrupts)
    check(vm, bystander, *interrupts)


@pytest.mark.parametrize("end", [Machine.shutdown, Machine.kill])
@pytest.mark.parametrize("launches", [0, 1])
def test_twice_before_it_has_begun(
    bare: MakeMachine, monkeypatch: pytest.MonkeyPatch, end: Callable[[Machine], None], launches: int
) -> None:
    """The I/O thread is late: who ends the machine ends the launch that is still to come, too."""
    vm = bare()
    for _ in range(launches):
        vm.launch().shutdown()
    go = threading.Event()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(serving, "serve", interrupted)
        patch.setattr(serving, "hand_over", interrupted)
        IOThread.get().post(go.wait, LIMIT)
        with pytest.raises(KeyboardInterrupt):
            vm.launch()
    threading.Timer(0.2, go.set).start()
    end(vm)
    assert [one.dest for one in vm.history].count(State.LAUNCHING) == launches + 1
    assert vm.state in FINAL
    assert vm.pid is None


class Traced:
    """The functions that run in this thread, with their modules' names."""

    def __init__(self) -> None:
        self.functions: set[tuple[str, str]] = set()

    def _trace(self, frame: FrameType, event: str, arg: object) -> None:
        self.functions.add((frame.f_globals.get("__name__", ""), frame.f_code.co_name))

    def __enter__(self) -> Self:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)


def test_nothing_runs_in_the_callers_thread_that_keeps_exceptions_to_itself(qemu: str) -> None:
    """asyncio ignores an OSError as it wakes a loop; Python, what is raised in a weak set's callback."""
    vm = Machine(qemu, ["-M", "none", "-nodefaults"])
    with vm.launch(), Traced() as traced:
        for _ in range(20):
            vm.qmp.execute("query-name")
            with suppress(MachineTimeout):
                vm.qmp.wait_event("STOP", timeout=0)
            with suppress(MachineTimeout):
                vm.console.expect("nothing", timeout=0)
            with suppress(MachineTimeout):
                vm.wait(0)
        vm.shutdown()
        vm.launch()
        vm.kill()
    assert ("vmfsm.iothread", "post") in traced.functions
    assert not [module for module, _ in traced.functions if module.startswith("asyncio")]
    assert ("_weakrefset", "_remove") not in traced.functions
