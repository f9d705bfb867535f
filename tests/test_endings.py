"""Every row of the table of endings, on a real QEMU: what a machine ends as, and who is told how."""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator

import pytest
from vmfsm_plugins.qmp import QMP

from tests.conftest import MakeMachine
from tests.endings import (
    ENDINGS,
    TIMEOUT,
    Ending,
    MakeGuest,
    assert_ended,
    assert_no_note_of,
    assert_path,
    be_wedged,
    guests,
    send,
    stop_process,
    until_guest_is_up,
    up,
)
from tests.waiting import InThread, catches, until
from vmfsm import AbnormalExit, LaunchPlan, Machine, MachineDied, MachineTimeout, Reason, State, hookimpl

each_ending = pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
each_bad_ending = pytest.mark.parametrize(
    "ending",
    [ending for ending in ENDINGS.values() if ending.raised],
    ids=[name for name, ending in ENDINGS.items() if ending.raised],
)


@pytest.fixture
def guest(qemu: str) -> Iterator[MakeGuest]:
    """Makes machines with the tiny guest."""
    with guests(qemu) as make:
        yield make


@pytest.fixture
def monitored(bare: MakeMachine) -> MakeGuest:
    """Launches machines with a monitor and no guest, which is faster."""
    return lambda **parameters: bare(QMP(), **parameters).launch()


def block(vm: Machine, body: Callable[[], object]) -> None:
    with vm:
        body()


def crash(vm: Machine) -> None:
    """QEMU dies of a signal of somebody else's."""
    send(vm.pid, signal.SIGSEGV)


# -- each ending --------------------------------------------------------------------------------------------


@each_ending
def test_of_a_running_machine(guest: MakeGuest, ending: Ending) -> None:
    vm = up(guest, ending)
    assert (vm.state, vm.reason, vm.exit_status) == (State.RUNNING, None, None)
    ending.come(vm)
    if not ending.raised:
        assert vm.wait(TIMEOUT) == ending.status
    else:
        with pytest.raises(AbnormalExit) as caught:
            vm.wait(TIMEOUT)
        assert_tells(caught.value, vm, ending)
    assert_ended(vm, ending.state, ending.reason, ending.status)
    assert [transition.dest for transition in vm.history] == [
        State.LAUNCHING,
        State.RUNNING,
        State.QUITTING,
        ending.state,
    ]
    vm.shutdown()  # nothing is alive, and this thread knows
    vm.kill()
    assert_ended(vm, ending.state, ending.reason, ending.status)


def assert_tells(error: AbnormalExit, vm: Machine, ending: Ending) -> None:
    assert type(error) is AbnormalExit
    assert (error.machine, error.state) == (vm.name, State.FAILED)
    assert (error.exit_status, error.reason) == (ending.status, ending.reason)
    assert error.errors == ()
    how = signal.Signals(-ending.status).name if ending.status < 0 else f"status {ending.status}"
    for said in (vm.name, how, ending.reason.value):
        assert said in str(error)
    assert "ready" in error.evidence.console
    assert any("ready" in note for note in error.__notes__)


@each_ending
def test_a_call_that_dies_with_it_tells_the_same(guest: MakeGuest, ending: Ending) -> None:
    vm = up(guest, ending)
    calling = InThread(vm.run, _never(), timeout=TIMEOUT, operation="nothing")
    until(lambda: vm._launch is not None and vm._launch.calls.in_progress)
    ending.come(vm)
    error = calling.join().error
    assert isinstance(error, MachineDied)
    assert (error.exit_status, error.reason) == (ending.status, ending.reason)
    assert f"({ending.reason.value})" in str(error)


async def _never() -> None:
    await asyncio.get_running_loop().create_future()


def test_evidence(guest: MakeGuest) -> None:
    vm = guest(wrapper=["sh", "-c", 'echo last words >&2; exec "$@"', "sh"]).launch()
    until_guest_is_up(vm)
    vm.qmp.execute("stop")
    send(vm.pid, signal.SIGSEGV)
    with pytest.raises(AbnormalExit) as caught:
        vm.wait(TIMEOUT)
    console, output, events, _ = caught.value.evidence
    assert "ready" in console
    assert "last words" in output
    assert "STOP" in [event["event"] for event in events]
    notes = "\n".join(caught.value.__notes__)
    for said in ("ready", "last words", "STOP"):
        assert said in notes


# -- who is told --------------------------------------------------------------------------------------------


@each_bad_ending
def test_shutdown_tells(guest: MakeGuest, ending: Ending) -> None:
    vm = up(guest, ending)
    ending.come(vm)
    until(lambda: vm.state is State.FAILED)
    with pytest.raises(AbnormalExit) as caught:
        vm.shutdown()
    assert_tells(caught.value, vm, ending)
    vm.shutdown()  # it knows


@each_bad_ending
def test_leaving_the_block_tells(guest: MakeGuest, ending: Ending) -> None:
    vm = up(guest, ending)

    def body() -> None:
        ending.come(vm)
        until(lambda: vm.state is State.FAILED)

    with pytest.raises(AbnormalExit) as caught:
        block(vm, body)
    assert_tells(caught.value, vm, ending)


@pytest.fixture
def crashed(monitored: MakeGuest) -> Iterator[Machine]:
    """A machine that QEMU ended without being asked, which nobody was told yet."""
    vm = monitored()
    send(vm.pid, signal.SIGSEGV)
    until(lambda: vm.state is State.FAILED)
    yield vm
    assert_ended(vm, State.FAILED, Reason.QEMU_SIGNAL, -signal.SIGSEGV)


def test_every_wait_tells(crashed: Machine) -> None:
    errors = []
    for _ in range(2):
        with pytest.raises(AbnormalExit) as caught:
            crashed.wait(TIMEOUT)
        errors.append(caught.value)
    assert errors[0] is not errors[1]
    crashed.shutdown()
    with crashed:
        pass


def test_shutdown_and_the_block_tell_once(crashed: Machine) -> None:
    with pytest.raises(AbnormalExit), crashed:
        pass
    with crashed:
        crashed.shutdown()
    with pytest.raises(AbnormalExit):
        crashed.wait(TIMEOUT)


def test_each_thread_is_told(crashed: Machine) -> None:
    with pytest.raises(AbnormalExit):
        crashed.shutdown()
    for call in (crashed.shutdown, crashed.wait):
        with pytest.raises(AbnormalExit):
            InThread(call, timeout=TIMEOUT).result()


def test_a_watcher_takes_it_from_nobody(monitored: MakeGuest) -> None:
    vm = monitored()
    watchers = [InThread(vm.wait) for _ in range(3)]

    def body() -> None:
        crash(vm)
        for watcher in watchers:
            with pytest.raises(AbnormalExit):
                watcher.result()

    with pytest.raises(AbnormalExit):
        block(vm, body)


def test_what_was_raised_in_the_block_is_not_raised_again(monitored: MakeGuest) -> None:
    with monitored() as vm:
        send(vm.pid, signal.SIGSEGV)
        with pytest.raises(AbnormalExit):
            vm.wait(TIMEOUT)


def test_what_ends_the_block_leaves_it_as_it_is(monitored: MakeGuest) -> None:
    vm = monitored()
    raised: list[AbnormalExit] = []

    def body() -> None:
        crash(vm)
        try:
            vm.wait(TIMEOUT)
        except AbnormalExit as error:
            raised.append(error)
            raise

    with pytest.raises(AbnormalExit) as caught:
        block(vm, body)
    assert [caught.value] == raised
    assert_no_note_of(vm, caught.value)


@pytest.mark.parametrize("own", [ValueError("mine"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_the_blocks_own_exception_is_never_replaced(crashed: Machine, own: BaseException) -> None:
    with pytest.raises(type(own)) as caught, crashed:
        raise own
    assert caught.value is own
    assert any(crashed.name in note and "SIGSEGV" in note for note in own.__notes__)


def test_a_call_that_died_with_qemu_does_not_tell_for_the_block(monitored: MakeGuest) -> None:
    """`MachineDied` is about the call; who expects it has not said that a crash is all right."""
    vm = monitored()

    def body() -> None:
        crash(vm)
        with pytest.raises(MachineDied) as died:
            vm.qmp.wait_event("RESUME", timeout=TIMEOUT)
        assert (died.value.exit_status, died.value.reason) == (-signal.SIGSEGV, Reason.QEMU_SIGNAL)
        assert vm.state is State.FAILED, "it is told when all is over"

    with pytest.raises(AbnormalExit):
        block(vm, body)


def test_a_shutdown_that_meets_the_crash_tells(monitored: MakeGuest) -> None:
    vm = monitored()
    stop_process(vm.pid)
    ending = InThread(vm.shutdown, timeout=TIMEOUT)
    until(lambda: vm.state is State.QUITTING)
    send(vm.pid, signal.SIGKILL)
    with pytest.raises(AbnormalExit) as caught:
        ending.result()
    assert caught.value.reason is Reason.QEMU_SIGNAL
    assert_ended(vm, State.FAILED, Reason.QEMU_SIGNAL, -signal.SIGKILL)


def test_wait_leaves_a_running_machine_alone(monitored: MakeGuest) -> None:
    vm = monitored()
    with pytest.raises(MachineTimeout):
        vm.wait(0.05)
    assert vm.state is State.RUNNING
    vm.shutdown()
    assert_ended(vm, State.STOPPED, Reason.REQUESTED, 0)


# -- forced -------------------------------------------------------------------------------------------------


def test_wedged_is_told_by_that_shutdown_alone(monitored: MakeGuest) -> None:
    vm = monitored()
    watcher = InThread(vm.wait)
    stop_process(vm.pid)
    with pytest.raises(AbnormalExit, match="had to be forced") as caught:
        vm.shutdown(timeout=1)
    assert (caught.value.exit_status, caught.value.reason) == (-signal.SIGKILL, Reason.WEDGED)
    assert caught.value.errors == ()
    vm.shutdown()
    with vm:
        pass
    assert vm.wait(TIMEOUT) == watcher.result() == InThread(vm.wait).result() == -signal.SIGKILL
    InThread(vm.shutdown).result()
    assert_ended(vm, State.FAILED, Reason.WEDGED, -signal.SIGKILL)


def test_all_that_were_ending_it_are_told_that_it_was_wedged(monitored: MakeGuest) -> None:
    vm = monitored()
    stop_process(vm.pid)
    first = InThread(vm.shutdown, timeout=2)
    until(lambda: vm.state is State.QUITTING)
    with pytest.raises(AbnormalExit):
        vm.shutdown(timeout=2)
    with pytest.raises(AbnormalExit):
        first.result()
    assert_ended(vm, State.FAILED, Reason.WEDGED, -signal.SIGKILL)


def test_wedged_in_a_block_that_raises(monitored: MakeGuest) -> None:
    vm = monitored()

    def body() -> None:
        be_wedged(vm)
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as caught:
        block(vm, body)
    assert_no_note_of(vm, caught.value)


@pytest.mark.parametrize("answers", [True, False])
def test_deaf_to_the_polite_way_but_not_to_sigterm(bare: MakeMachine, answers: bool) -> None:
    class Deaf:
        """A monitor whose `quit` does nothing, or is not even answered."""

        name = "deaf"

        @hookimpl
        def pre_launch(self, plan: LaunchPlan) -> None:
            plan.on_quit(self.quit)

        async def quit(self) -> None:
            if not answers:
                await asyncio.Event().wait()

    vm = bare(Deaf()).launch()
    until(lambda: catches(vm.pid or 0, signal.SIGTERM))
    with pytest.raises(AbnormalExit, match="had to be forced") as caught:
        vm.shutdown(timeout=1)
    assert (caught.value.exit_status, caught.value.reason) == (0, Reason.WEDGED)
    vm.shutdown()
    assert vm.wait(TIMEOUT) == 0
    assert_ended(vm, State.FAILED, Reason.WEDGED, 0)


# -- races --------------------------------------------------------------------------------------------------


RACES = int(os.environ.get("VMFSM_TEST_RACES", "30"))


def test_who_was_first_never_decides(bare: MakeMachine) -> None:
    """SIGTERM by somebody else about when it is shut down: what QEMU says that ended it counts."""
    vm = bare(QMP())
    outcomes = {"host-qmp-quit": Reason.REQUESTED, "host-signal": Reason.QEMU_EXIT}
    random_ = random.Random(1)
    for _ in range(RACES):
        vm.launch()
        assert vm.pid is not None
        pidfd = os.pidfd_open(vm.pid)
        delay = random_.uniform(-0.004, 0.004)
        at = time.monotonic() + 0.005

        def terminate(pidfd: int = pidfd, at: float = at) -> None:
            until(lambda: time.monotonic() >= at)
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGTERM)
            os.close(pidfd)

        other = InThread(terminate)
        until(lambda: time.monotonic() >= at + delay)  # noqa: B023 - called before the next turn
        vm.shutdown()
        other.result()
        (event,) = [event for event in vm.qmp.events() if event["event"] == "SHUTDOWN"]
        assert (vm.exit_status, vm.state) == (0, State.STOPPED)
        assert vm.reason is outcomes[event["data"]["reason"]]
    assert_path(vm)
