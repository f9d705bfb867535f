"""The ways in which a machine with the tiny guest can end, each as something to be done to it."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.waiting import InThread, until
from vmfsm import AbnormalExit, LaunchError, LaunchPlan, Machine, Reason, State, VMError, hookimpl
from vmfsm.lifecycle import INITIAL, TABLE
from vmfsm.testing import GUEST_ARGS

TIMEOUT = 30.0


class Spoiler:
    """A plugin that meddles with one launch, or with its clean-up, as it is told to."""

    name = "spoiler"

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.planning: Callable[[LaunchPlan], object] = lambda plan: None
        self.launched: Callable[[], object] = lambda: None
        self.quitting: Callable[[], object] = lambda: None

    @hookimpl
    def pre_launch(self, plan: LaunchPlan) -> None:
        self.planning(plan)

    @hookimpl
    def post_launch(self) -> None:
        self.launched()

    @hookimpl
    def early_cleanup(self) -> None:
        self.quitting()


class NoGood(Exception):
    """What is wrong with a hook."""


def be_no_good() -> None:
    raise NoGood("no good")


def spoiler(vm: Machine) -> Spoiler:
    plugin = vm.plugin("spoiler")
    assert isinstance(plugin, Spoiler)
    return plugin


MakeGuest = Callable[..., Machine]


@contextlib.contextmanager
def guests(qemu: str) -> Iterator[MakeGuest]:
    """Makes machines with the tiny guest, all built-in plugins and a `Spoiler`; kills them at the end.

    Takes more arguments for QEMU in `more`, and what `Machine` takes by keyword.
    """
    machines = []

    def make(*, more: Sequence[str] = (), plugins: Sequence[object] = (), **parameters: Any) -> Machine:
        machines.append(Machine(qemu, [*GUEST_ARGS, *more], plugins=[Spoiler(), *plugins], **parameters))
        return machines[-1]

    try:
        yield make
    finally:
        for machine in machines:
            spoiler(machine).clear()
            with contextlib.suppress(VMError):
                machine.kill()


def be_silent(plan: LaunchPlan) -> None:
    """Run something that never says anything in QEMU's place."""
    plan.wrapper[:] = ["sh", "-c", "exec sleep 1000", "sh"]


def until_guest_is_up(vm: Machine) -> None:
    vm.console.expect("ready", timeout=TIMEOUT)


# -- a machine that is running ------------------------------------------------------------------------------


class Ending(NamedTuple):
    """How a running machine ends. `come` returns when that is under way, and nothing prevents it."""

    come: Callable[[Machine], object]
    state: State
    reason: Reason
    status: int
    settings: Mapping[str, object] = {}
    """What `Machine` needs for it."""

    @property
    def raised(self) -> bool:
        """Whether everybody who learns of it gets an exception."""
        return self.state is State.FAILED and self.reason is not Reason.WEDGED


def send(pid: int | None, number: signal.Signals) -> None:
    """A signal of somebody else's."""
    assert pid is not None
    os.kill(pid, number)


def stop_process(pid: int | None) -> None:
    send(pid, signal.SIGSTOP)
    until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "T")


def be_wedged(vm: Machine) -> None:
    stop_process(vm.pid)
    with pytest.raises(AbnormalExit):
        vm.shutdown(timeout=1)


def _tell_guest(line: str) -> Callable[[Machine], object]:
    return lambda vm: vm.console.sendline(line)


def _signal(number: signal.Signals) -> Callable[[Machine], object]:
    return lambda vm: send(vm.pid, number)


ENDINGS = {
    "shutdown": Ending(lambda vm: vm.shutdown(), State.STOPPED, Reason.REQUESTED, 0),
    "quit": Ending(lambda vm: vm.qmp.execute("quit"), State.STOPPED, Reason.REQUESTED, 0),
    "poweroff": Ending(_tell_guest("poweroff"), State.STOPPED, Reason.GUEST_SHUTDOWN, 0),
    "no-reboot": Ending(
        _tell_guest("reboot"), State.STOPPED, Reason.GUEST_SHUTDOWN, 0, {"more": ["-no-reboot"]}
    ),
    "SIGTERM": Ending(_signal(signal.SIGTERM), State.STOPPED, Reason.QEMU_EXIT, 0),
    "expected-exit": Ending(
        _tell_guest("exit 3"), State.STOPPED, Reason.QEMU_EXIT, 7, {"expected_exits": (0, 7)}
    ),
    "unexpected-exit": Ending(_tell_guest("exit 3"), State.FAILED, Reason.QEMU_EXIT, 7),
    "unexpected-0": Ending(
        _signal(signal.SIGTERM), State.FAILED, Reason.QEMU_EXIT, 0, {"expected_exits": (7,)}
    ),
    "SIGSEGV": Ending(_signal(signal.SIGSEGV), State.FAILED, Reason.QEMU_SIGNAL, -signal.SIGSEGV),
    "SIGKILL": Ending(_signal(signal.SIGKILL), State.FAILED, Reason.QEMU_SIGNAL, -signal.SIGKILL),
    "kill": Ending(lambda vm: vm.kill(), State.STOPPED, Reason.KILLED, -signal.SIGKILL),
    "wedged": Ending(be_wedged, State.FAILED, Reason.WEDGED, -signal.SIGKILL),
}


def up(guest: MakeGuest, ending: Ending | None = None) -> Machine:
    """The machine, running, with its guest ready."""
    vm = guest(**(ending.settings if ending else {})).launch()
    until_guest_is_up(vm)
    return vm


# -- a launch that comes to nothing -------------------------------------------------------------------------


class LaunchFailure(NamedTuple):
    """How a launch fails. `come` launches the machine, and returns what that raised."""

    come: Callable[[Machine], BaseException]
    state: State
    reason: Reason
    status: int | None


def _launch(vm: Machine, timeout: float = TIMEOUT) -> BaseException:
    with pytest.raises((LaunchError, KeyboardInterrupt)) as caught:
        vm.launch(timeout)
    return caught.value


def _launch_with_bad_option(vm: Machine) -> BaseException:
    def planning(plan: LaunchPlan) -> None:
        plan.args += ["-no-such-option"]

    spoiler(vm).planning = planning
    return _launch(vm)


def _launch_silent(vm: Machine) -> BaseException:
    spoiler(vm).planning = be_silent
    return _launch(vm, timeout=1)


def _launch_with_bad_hook(vm: Machine) -> BaseException:
    spoiler(vm).launched = be_no_good
    return _launch(vm)


def _launch_interrupted(vm: Machine) -> BaseException:
    spoiler(vm).launched = lambda: signal.raise_signal(signal.SIGINT)
    return _launch(vm)


def _launch_cancelled(cancel: Callable[[Machine], object]) -> Callable[[Machine], BaseException]:
    def come(vm: Machine) -> BaseException:
        spoiler(vm).planning = be_silent
        launching = InThread(vm.launch, TIMEOUT)
        until(lambda: vm.pid)
        cancel(vm)
        launching.join()
        assert launching.error is not None
        return launching.error

    return come


LAUNCH_FAILURES = {
    "bad-option": LaunchFailure(_launch_with_bad_option, State.FAILED, Reason.LAUNCH_ERROR, 1),
    "silent": LaunchFailure(_launch_silent, State.FAILED, Reason.DEADLINE, -signal.SIGKILL),
    "hook": LaunchFailure(_launch_with_bad_hook, State.FAILED, Reason.HOOK_FAILED, -signal.SIGKILL),
    "ctrl-c": LaunchFailure(_launch_interrupted, State.FAILED, Reason.LAUNCH_ERROR, -signal.SIGKILL),
    "cancelled-by-shutdown": LaunchFailure(
        _launch_cancelled(lambda vm: vm.shutdown()), State.STOPPED, Reason.REQUESTED, -signal.SIGTERM
    ),
    "cancelled-by-kill": LaunchFailure(
        _launch_cancelled(lambda vm: vm.kill()), State.STOPPED, Reason.KILLED, -signal.SIGKILL
    ),
}


# -- what is left -------------------------------------------------------------------------------------------


def assert_ended(vm: Machine, state: State, reason: Reason, status: int | None) -> None:
    assert (vm.state, vm.reason, vm.exit_status) == (state, reason, status)
    assert (vm.pid, vm.run_state) == (None, None)
    assert_path(vm)


def assert_path(vm: Machine) -> None:
    """The machine's history is a path of the table, from the first state to its present one."""
    state, at = INITIAL, 0.0
    rows = {(row.event, source, row.dest) for row in TABLE for source in row.sources}
    for transition in vm.history:
        assert transition[:3] in rows
        assert transition.source is state
        assert transition.at >= at
        state, at = transition.dest, transition.at
    assert (state, at) == (vm.state, vm.since)
    assert vm.history[-1].reason is vm.reason


def assert_no_note_of(vm: Machine, error: BaseException) -> None:
    """Leaving the block added nothing to what went through it."""
    assert not any(f"with machine {vm.name}" in note for note in getattr(error, "__notes__", ()))
