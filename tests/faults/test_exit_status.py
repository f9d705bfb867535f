"""The exit status is right, or `None` and said so, whatever the host program does to its children.

State and reason are the same in both cases where QEMU has said what happened.
"""

import contextlib
import ctypes
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NamedTuple

import pytest

from tests.endings import MakeGuest, assert_ended, send, until_guest_is_up
from tests.waiting import InThread
from vmfsm import AbnormalExit, LaunchError, Machine, Reason, State
from vmfsm.proc import Identity, living

PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


@contextlib.contextmanager
def plain() -> Iterator[None]:
    yield


@contextlib.contextmanager
def ignoring() -> Iterator[None]:
    """The kernel throws statuses away."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


@contextlib.contextmanager
def reaping() -> Iterator[None]:
    """A handler takes every status that it can get: sometimes it comes first."""

    def reap(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    before = signal.signal(signal.SIGCHLD, reap)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


@contextlib.contextmanager
def subreaping() -> Iterator[None]:
    """What lost its parent becomes a child of this process."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        pytest.skip(f"prctl: {os.strerror(ctypes.get_errno())}")
    try:
        yield
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


HARNESSES = {f.__name__: f for f in (plain, ignoring, reaping, subreaping)}
LOSING = {"ignoring", "reaping"}
"""Those that may lose the status."""

WRAPPERS: dict[str, list[str]] = {
    "none": [],
    "shell": ["sh", "-c", '"$@"; exit $?', "sh"],
    "forks": ["timeout", "1000"],
}


class End(NamedTuple):
    come: Callable[[Machine], object]
    state: State
    reason: Reason
    status: int


ENDS = {
    "poweroff": End(lambda vm: vm.console.sendline("poweroff"), State.STOPPED, Reason.GUEST_SHUTDOWN, 0),
    "quit": End(lambda vm: vm.qmp.execute("quit"), State.STOPPED, Reason.REQUESTED, 0),
    "shutdown": End(lambda vm: vm.shutdown(), State.STOPPED, Reason.REQUESTED, 0),
    "exit": End(lambda vm: vm.console.sendline("exit 3"), State.FAILED, Reason.QEMU_EXIT, 7),
    "kill": End(lambda vm: vm.kill(), State.STOPPED, Reason.KILLED, -signal.SIGKILL),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("harness", HARNESSES)
def test_it_is_right_or_none(guest: MakeGuest, harness: str, wrapper: str, end: str) -> None:
    """Where only its status tells that a guest-made ending is a bad one, that is lost with it."""
    come, state, reason, status = ENDS[end]
    with HARNESSES[harness]():
        vm = guest(wrapper=WRAPPERS[wrapper]).launch()
        until_guest_is_up(vm)
        here = vm.qmp.mark()
        come(vm)
        error = InThread(vm.wait, 600).join().error
    if (
        vm.exit_status is None
        and end == "exit"
        and any(e["event"] == "SHUTDOWN" for e in vm.qmp.events(here))
    ):
        state, reason = (
            State.STOPPED,
            Reason.GUEST_SHUTDOWN,
        )  # isa-debug-exit of a later QEMU than 7.2 says so
    assert vm.exit_status in ({None} if harness == "ignoring" else {status, None})
    assert vm.exit_status is not None or harness in LOSING
    if state is State.FAILED:
        assert isinstance(error, AbnormalExit)
        assert error.exit_status == vm.exit_status
        how = "a status that could not be had" if vm.exit_status is None else f"status {status}"
        assert how in str(error)
    else:
        assert error is None
    assert_ended(vm, state, reason, vm.exit_status)


@pytest.mark.parametrize("harness", HARNESSES)
def test_a_crash(guest: MakeGuest, harness: str) -> None:
    with HARNESSES[harness]():
        vm = guest().launch()
        send(vm.pid, signal.SIGSEGV)
        with pytest.raises(AbnormalExit):
            vm.wait(600)
    if vm.exit_status is None:
        assert harness in LOSING
        assert_ended(vm, State.FAILED, Reason.QEMU_EXIT, None)
    else:
        assert_ended(vm, State.FAILED, Reason.QEMU_SIGNAL, -signal.SIGSEGV)


@pytest.mark.parametrize("harness", HARNESSES)
def test_a_launch_that_fails(guest: MakeGuest, harness: str) -> None:
    """QEMU ends before it can be watched, or just after."""
    with HARNESSES[harness]():
        vm = guest(more=["-no-such-option"])
        for _ in range(5):
            with pytest.raises(LaunchError, match="no-such-option") as caught:
                vm.launch(timeout=600)
            assert caught.value.exit_status == vm.exit_status
            assert vm.exit_status in ({1, None} if harness in LOSING else {1})
            assert_ended(vm, State.FAILED, Reason.LAUNCH_ERROR, vm.exit_status)


def qemu_of(vm: Machine) -> Identity:
    """What runs behind a wrapper."""
    (found,) = (process.identity for process in living() if process.session == vm.pid != process.identity.pid)
    return found


@pytest.mark.parametrize(("wrapper", "status"), [("shell", 128 + 9), ("forks", 128 + 9)])
def test_qemu_is_killed_behind_its_wrapper(guest: MakeGuest, wrapper: str, status: int) -> None:
    """It is the wrapper's status that counts, as nobody else knows another."""
    vm = guest(wrapper=WRAPPERS[wrapper]).launch()
    until_guest_is_up(vm)
    assert qemu_of(vm).kill()
    with pytest.raises(AbnormalExit) as caught:
        vm.wait(600)
    assert caught.value.exit_status in {status, -signal.SIGKILL}  # `timeout` dies of what its child died of
    assert vm.state is State.FAILED


@pytest.mark.parametrize("harness", HARNESSES)
def test_nothing_is_left_behind_a_wrapper_that_is_killed(guest: MakeGuest, harness: str) -> None:
    """Not even a zombie that became the harness's own child."""
    with HARNESSES[harness]():
        vm = guest(wrapper=WRAPPERS["shell"]).launch()
        until_guest_is_up(vm)
        qemu = qemu_of(vm)
        send(vm.pid, signal.SIGKILL)
        with pytest.raises(AbnormalExit):
            vm.wait(600)
        assert not qemu.is_alive
