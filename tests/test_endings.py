"""Every row of the table of endings, on a real QEMU: what a machine ends as, and who is told how."""

import asyncio
import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from vmfsm_plugins.qmp import QMP

from tests.conftest import MakeMachine
from tests.endings import (
    ENDINGS,
    LAUNCH_FAILURES,
    TIMEOUT,
    Ending,
    MakeGuest,
    NoGood,
    assert_ended,
    assert_path,
    be_no_good,
    be_silent,
    be_wedged,
    guests,
    send,
    spoiler,
    stop_process,
    until_guest_is_up,
)
from tests.waiting import InThread, catches, until
from vmfsm import (
    AbnormalExit,
    GuestPanicked,
    LaunchError,
    LaunchPlan,
    Machine,
    MachineDied,
    MachineTimeout,
    PluginError,
    Reason,
    State,
    VMError,
    hookimpl,
)

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


def up(guest: MakeGuest, ending: Ending | None = None) -> Machine:
    """The machine, running, with its guest ready."""
    vm = guest(**(ending.settings if ending else {})).launch()
    until_guest_is_up(vm)
    return vm


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


def assert_no_note_of(vm: Machine, error: BaseException) -> None:
    """Leaving the block added nothing to what went through it."""
    assert not any(f"with machine {vm.name}" in note for note in getattr(error, "__notes__", ()))


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


# -- kill ---------------------------------------------------------------------------------------------------


class TestKill:
    def test_configured(self, guest: MakeGuest) -> None:
        vm = guest()
        vm.kill()
        assert (vm.state, vm.reason, vm.exit_status, vm.history) == (State.CONFIGURED, None, None, ())

    def test_launching_before_there_is_a_process(self, guest: MakeGuest) -> None:
        vm, began, go = guest(), threading.Event(), threading.Event()

        def planning(plan: LaunchPlan) -> None:
            began.set()
            assert go.wait(60)

        spoiler(vm).planning = planning
        launching = InThread(vm.launch)
        assert began.wait(TIMEOUT)
        killing = InThread(vm.kill)
        until(lambda: vm._launch is not None and vm._launch._killed)
        go.set()
        killing.result()
        with pytest.raises(LaunchError, match="kill"):
            launching.result()
        assert_ended(vm, State.STOPPED, Reason.KILLED, None)

    @pytest.mark.parametrize("stopped", [True, False])
    def test_running(self, guest: MakeGuest, stopped: bool) -> None:
        vm = up(guest)
        watcher = InThread(vm.wait)
        if stopped:
            stop_process(vm.pid)
        vm.kill()
        assert watcher.result() == -signal.SIGKILL
        assert_ended(vm, State.STOPPED, Reason.KILLED, -signal.SIGKILL)

    def test_quitting_behind_a_hook(self, guest: MakeGuest) -> None:
        vm, began, go = up(guest), threading.Event(), threading.Event()

        def quitting() -> None:
            began.set()
            assert go.wait(60)

        spoiler(vm).quitting = quitting
        ending = InThread(vm.shutdown, timeout=60)
        assert began.wait(TIMEOUT)
        assert vm.state is State.QUITTING
        killing = InThread(vm.kill)
        until(lambda: vm.pid is None)
        assert not killing.over, "it waits for who cleans up"
        go.set()
        killing.result()
        ending.result()
        assert_ended(vm, State.STOPPED, Reason.KILLED, -signal.SIGKILL)

    def test_quitting_in_vain(self, guest: MakeGuest) -> None:
        vm = up(guest)
        stop_process(vm.pid)
        ending = InThread(vm.shutdown, timeout=60)
        until(lambda: vm.state is State.QUITTING)
        vm.kill()
        ending.result()
        assert_ended(vm, State.STOPPED, Reason.KILLED, -signal.SIGKILL)

    # From `launching` with a process, `stopped` and `failed`: in the tests of each ending.


# -- out of memory ------------------------------------------------------------------------------------------


class MemoryGroup:
    """A control group with a limit on memory, of either version of `cgroups(7)`."""

    LIMIT = 192 << 20

    def __init__(self) -> None:
        self.path = self._make()

    def _make(self) -> Path:
        tried = []
        for parent, limit, others in self._places():
            path = parent / f"vmfsm-test-{os.getpid()}"
            try:
                path.mkdir()
            except OSError as error:
                tried.append(str(error))
                continue
            try:
                (path / limit).write_text(str(self.LIMIT))
                for other, value in others.items():
                    with contextlib.suppress(OSError):  # there is no accounting of swap
                        (path / other).write_text(value)
            except OSError as error:
                path.rmdir()
                tried.append(str(error))
            else:
                return path
        pytest.skip(
            f"no control group with a limit on memory can be made: {'; '.join(tried) or 'no cgroups'}"
        )

    @classmethod
    def _places(cls) -> Iterator[tuple[Path, str, dict[str, str]]]:
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            number, controllers, own = line.split(":", 2)
            if "memory" in controllers.split(","):
                root = Path("/sys/fs/cgroup/memory")
                for parent in (root / own.lstrip("/"), root):
                    yield parent, "memory.limit_in_bytes", {"memory.memsw.limit_in_bytes": str(cls.LIMIT)}
            elif number == "0":
                # A group with processes in it has no groups with controllers below it: try beside it, too.
                place = Path("/sys/fs/cgroup", own.lstrip("/"))
                for parent in dict.fromkeys((place, place.parent, Path("/sys/fs/cgroup"))):
                    if parent.is_relative_to("/sys/fs/cgroup"):
                        yield parent, "memory.max", {"memory.swap.max": "0"}

    @property
    def wrapper(self) -> list[str]:
        return ["sh", "-c", 'echo $$ > "$0/cgroup.procs"; exec "$@"', str(self.path)]

    def remove(self) -> None:
        def removed() -> bool:
            try:
                self.path.rmdir()
            except OSError:
                return False
            return True

        until(removed)


@pytest.fixture
def memory_group() -> Iterator[MemoryGroup]:
    group = MemoryGroup()
    yield group
    group.remove()


def test_out_of_memory(memory_group: MemoryGroup, guest: MakeGuest) -> None:
    vm = guest(wrapper=memory_group.wrapper).launch()
    try:
        until_guest_is_up(vm)
        size = 4 * memory_group.LIMIT
        with pytest.raises(MachineDied) as died:
            vm.qmp.execute("object-add", qom_type="memory-backend-ram", id="big", size=size, prealloc=True)
        assert died.value.reason is Reason.OOM_KILLED
        with pytest.raises(AbnormalExit, match="oom-killed") as caught:
            vm.wait(TIMEOUT)
        assert (caught.value.exit_status, caught.value.reason) == (-signal.SIGKILL, Reason.OOM_KILLED)
        assert_ended(vm, State.FAILED, Reason.OOM_KILLED, -signal.SIGKILL)
    finally:
        vm.kill()


def test_a_kill_in_a_limited_group_is_not_for_memory(memory_group: MemoryGroup, guest: MakeGuest) -> None:
    vm = guest(wrapper=memory_group.wrapper).launch()
    send(vm.pid, signal.SIGKILL)
    with pytest.raises(AbnormalExit, match="SIGKILL"):
        vm.wait(TIMEOUT)
    assert_ended(vm, State.FAILED, Reason.QEMU_SIGNAL, -signal.SIGKILL)


# -- a verdict ----------------------------------------------------------------------------------------------


WAITS: dict[str, Callable[[Machine, float], object]] = {
    "wait": lambda vm, timeout: vm.wait(timeout),
    "expect": lambda vm, timeout: vm.console.expect("never", timeout=timeout),
    "wait_event": lambda vm, timeout: vm.qmp.wait_event("DEVICE_DELETED", timeout=timeout),
    "wait_any": lambda vm, timeout: vm.qmp.wait_any([("DEVICE_DELETED", None)], timeout=timeout),
}
PANIC = {"more": ["-action", "panic=pause"]}


def assert_lives_on(vm: Machine) -> None:
    """The verdict was told: the machine runs, later calls work, and it ends well."""
    assert (vm.state, vm.run_state) == (State.RUNNING, "guest-panicked")
    for wait in WAITS.values():
        with pytest.raises(MachineTimeout):
            wait(vm, 0.01)
    assert vm.qmp.execute("query-status")["status"] == "guest-panicked"
    vm.shutdown()
    assert vm.wait(TIMEOUT) == 0
    assert_ended(vm, State.STOPPED, Reason.REQUESTED, 0)


def assert_verdict(error: GuestPanicked, vm: Machine) -> None:
    assert (error.machine, error.state) == (vm.name, State.RUNNING)
    assert error.verdict is not None
    assert (error.verdict.kind, error.verdict.where) == ("guest-panicked", "qmp")
    assert error.verdict.what["event"] == "GUEST_PANICKED"
    assert "ready" in error.evidence.console
    assert "GUEST_PANICKED" in [event["event"] for event in error.evidence.events]


def test_all_who_wait_are_told_of_a_panic(guest: MakeGuest) -> None:
    vm = guest(**PANIC).launch()
    until_guest_is_up(vm)
    waiting = [InThread(wait, vm, TIMEOUT) for wait in WAITS.values()]
    assert vm._launch is not None
    calls = vm._launch.calls
    until(lambda: len(calls.in_progress) == len(waiting))
    vm.console.sendline("panic")
    for call in waiting:
        with pytest.raises(GuestPanicked) as caught:
            call.result()
        assert_verdict(caught.value, vm)
    assert_lives_on(vm)


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_who_waits_after_a_panic_is_told_once(
    guest: MakeGuest, wait: Callable[[Machine, float], object]
) -> None:
    vm = guest(**PANIC).launch()
    until_guest_is_up(vm)
    vm.console.sendline("panic")
    until(lambda: vm.run_state == "guest-panicked")
    with pytest.raises(GuestPanicked) as caught:
        wait(vm, TIMEOUT)
    assert_verdict(caught.value, vm)
    assert_lives_on(vm)


def test_a_panic_that_nobody_waited_for_spoils_no_shutdown(guest: MakeGuest) -> None:
    with guest(**PANIC).launch() as vm:
        until_guest_is_up(vm)
        vm.console.sendline("panic")
        until(lambda: vm.run_state == "guest-panicked")
    assert_ended(vm, State.STOPPED, Reason.REQUESTED, 0)
    assert vm.wait(TIMEOUT) == 0


# -- launches -----------------------------------------------------------------------------------------------


class TestLaunch:
    @staticmethod
    def fail(vm: Machine, name: str) -> BaseException:
        failure = LAUNCH_FAILURES[name]
        error = failure.come(vm)
        assert_ended(vm, failure.state, failure.reason, failure.status)
        assert [t.dest for t in vm.history] == [State.LAUNCHING, State.QUITTING, failure.state]
        if isinstance(error, LaunchError):
            assert (error.machine, error.state, error.errors) == (vm.name, failure.state, ())
            assert error.command == vm.command
            assert error.exit_status == failure.status
        vm.shutdown()  # neither is there anything left, nor is it told twice
        vm.kill()
        with vm:
            pass
        assert_ended(vm, failure.state, failure.reason, failure.status)
        return error

    def test_qemu_ended(self, guest: MakeGuest) -> None:
        error = self.fail(guest(), "bad-option")
        assert isinstance(error, LaunchError)
        said = "-no-such-option: invalid option"
        assert said in str(error)
        assert said in error.output
        assert said in error.evidence.output
        assert "-no-such-option" in error.command

    def test_silent(self, guest: MakeGuest) -> None:
        began = time.monotonic()
        error = self.fail(guest(), "silent")
        assert 1 <= time.monotonic() - began < 4
        assert isinstance(error, LaunchError)
        timeout = error.__cause__
        assert isinstance(timeout, MachineTimeout)
        assert (timeout.operation, timeout.timeout) == ("launch", 1)

    def test_hook_raised(self, guest: MakeGuest) -> None:
        error = self.fail(guest(), "hook")
        assert isinstance(error, LaunchError)
        plugin_error = error.__cause__
        assert isinstance(plugin_error, PluginError)
        assert (plugin_error.plugin, plugin_error.hook) == ("spoiler", "post_launch")
        assert type(plugin_error.__cause__) is NoGood

    def test_ctrl_c(self, guest: MakeGuest) -> None:
        assert type(self.fail(guest(), "ctrl-c")) is KeyboardInterrupt

    @pytest.mark.parametrize("call", ["shutdown", "kill"])
    def test_cancelled(self, guest: MakeGuest, call: str) -> None:
        error = self.fail(guest(), f"cancelled-by-{call}")
        assert isinstance(error, LaunchError)
        assert f"cancelled by {call}()" in str(error)

    def test_wait_tells_a_watcher(self, guest: MakeGuest) -> None:
        vm = guest()
        spoiler(vm).planning = be_silent
        launching = InThread(vm.launch)
        until(lambda: vm.pid)
        watcher = InThread(vm.wait)
        vm.shutdown()
        launching.join()
        assert watcher.result() == -signal.SIGTERM

    def test_in_a_block(self, guest: MakeGuest) -> None:
        with pytest.raises(LaunchError) as caught, guest(more=["-no-such-option"]) as vm:
            vm.launch()
        assert_no_note_of(vm, caught.value)


# -- clean-up that raises -----------------------------------------------------------------------------------


def assert_blames_spoiler(error: BaseException) -> None:
    assert isinstance(error, PluginError)
    assert (error.plugin, error.hook) == ("spoiler", "early_cleanup")
    assert type(error.__cause__) is NoGood


def spoil_clean_up(vm: Machine) -> None:
    spoiler(vm).quitting = be_no_good


def end(vm: Machine, ending: Ending) -> None:
    ending.come(vm)
    vm.wait(TIMEOUT)


def test_clean_up_that_raises_after_a_wedged_qemu(guest: MakeGuest) -> None:
    vm = up(guest)
    spoil_clean_up(vm)
    stop_process(vm.pid)
    with pytest.raises(AbnormalExit) as caught:
        vm.shutdown(timeout=1)
    (also,) = caught.value.errors
    assert_blames_spoiler(also)
    assert_ended(vm, State.FAILED, Reason.WEDGED, -signal.SIGKILL)


@pytest.mark.parametrize("name", [name for name, end in ENDINGS.items() if end.reason is not Reason.WEDGED])
def test_clean_up_that_raises_changes_no_ending(guest: MakeGuest, name: str) -> None:
    ending = ENDINGS[name]
    vm = up(guest, ending)
    spoil_clean_up(vm)
    with pytest.raises(VMError) as caught:
        end(vm, ending)
    assert_ended(vm, ending.state, ending.reason, ending.status)
    if ending.raised:
        assert type(caught.value) is AbnormalExit
        (also,) = caught.value.errors
        assert_blames_spoiler(also)
        assert any("no good" in note for note in caught.value.__notes__)
    else:
        assert_blames_spoiler(caught.value)
    vm.shutdown()


@pytest.mark.parametrize("name", [name for name in LAUNCH_FAILURES if name != "cancelled-by-kill"])
def test_clean_up_that_raises_changes_no_failed_launch(guest: MakeGuest, name: str) -> None:
    vm, failure = guest(), LAUNCH_FAILURES[name]
    spoil_clean_up(vm)
    error = failure.come(vm)
    assert_ended(vm, failure.state, failure.reason, failure.status)
    if name != "ctrl-c":
        assert type(error) is LaunchError
        (also,) = error.errors
        assert_blames_spoiler(also)


def test_clean_up_that_raises_after_a_launch_was_killed(guest: MakeGuest) -> None:
    vm = guest()
    spoil_clean_up(vm)
    spoiler(vm).planning = be_silent
    launching = InThread(vm.launch)
    until(lambda: vm.pid)
    with pytest.raises(PluginError) as caught:
        vm.kill()
    assert_blames_spoiler(caught.value)
    launching.join()
    assert isinstance(launching.error, LaunchError)
    (also,) = launching.error.errors
    assert_blames_spoiler(also)
    assert_ended(vm, State.STOPPED, Reason.KILLED, -signal.SIGKILL)


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
