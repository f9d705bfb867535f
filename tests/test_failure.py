"""Why a launch counts as failed: of each thing that says so, and of what does not."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from vmfsm_plugins.qmp import QMPCommandError

from tests.conftest import MakeMachine
from tests.endings import (
    ENDINGS,
    LAUNCH_FAILURES,
    MakeGuest,
    be_no_good,
    guests,
    send,
    spoiler,
    until_guest_is_up,
    up,
)
from tests.recordings import written
from tests.waiting import LIMIT, InThread, until
from vmfsm import (
    ConfigError,
    LaunchError,
    Machine,
    MachineDied,
    MachineTimeout,
    Reason,
    State,
    TransitionError,
    Verdict,
    VMError,
    diagnosis,
)
from vmfsm.iothread import IOThread

SHORT = 0.05


@pytest.fixture
def make(qemu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeGuest]:
    monkeypatch.setenv("VMFSM_RECORD", str(tmp_path / "records"))
    with guests(qemu) as make:
        yield make


@pytest.fixture
def vm(make: MakeGuest) -> Machine:
    vm = make().launch()
    until_guest_is_up(vm)
    return vm


def told(vm: Machine) -> list[tuple[object, object]]:
    return [(record.data["by"], record.data["error"]) for record in vm.timeline if record.kind == "failure"]


def assert_failed(vm: Machine, by: str, why: str) -> None:
    """For this, as the machine, its picture and its recording have it."""
    assert vm.failure is not None
    assert why in vm.failure
    assert told(vm)[0] == (by, vm.failure)
    assert vm.snapshot()["failure"] == vm.failure
    assert written(vm).snapshot()["failure"] == vm.failure


def assert_well(vm: Machine) -> None:
    assert vm.failure is None
    assert told(vm) == []
    assert vm.snapshot()["failure"] is None
    assert written(vm).snapshot()["failure"] is None


@pytest.mark.parametrize("name", ENDINGS)
def test_each_ending(make: MakeGuest, name: str) -> None:
    ending = ENDINGS[name]
    vm = up(make, ending)
    with contextlib.suppress(VMError):
        ending.come(vm)
    with contextlib.suppress(VMError):
        vm.wait(LIMIT)
    if vm.state is State.STOPPED:
        assert_well(vm)
    else:
        assert vm.reason is not None
        assert_failed(vm, "end", f"({vm.reason.value})")


@pytest.mark.parametrize("name", LAUNCH_FAILURES)
def test_each_launch_that_fails(make: MakeGuest, name: str) -> None:
    vm = make()
    error = LAUNCH_FAILURES[name].come(vm)
    if vm.state is State.STOPPED or isinstance(error, KeyboardInterrupt):
        assert_well(vm)
    else:
        assert_failed(vm, "launch", "launch failed: ")
        assert vm.failure == str(error).removeprefix(f"{vm.name}: ")


def leave(vm: Machine, error: BaseException) -> None:
    with vm:
        vm.launch()
        raise error


def test_what_leaves_the_block(make: MakeGuest) -> None:
    vm = make()
    error = ValueError("one\nor two")
    with pytest.raises(ValueError, match="one"):
        leave(vm, error)
    assert_failed(vm, "with", "ValueError: one")
    assert vm.state is State.STOPPED
    vm.note_failure("later")
    assert vm.failure == "ValueError: one"
    until(lambda: told(vm)[1:] == [("note", "later")])


@pytest.mark.parametrize("leaves", [KeyboardInterrupt, SystemExit, pytest.skip.Exception])
def test_what_leaves_it_as_no_failure(make: MakeGuest, leaves: type[BaseException]) -> None:
    vm = make()
    with pytest.raises(leaves):
        leave(vm, leaves())
    assert_well(vm)


def test_before_any_launch_and_with_the_next(make: MakeGuest) -> None:
    vm = make()
    vm.note_failure("no disk")
    assert vm.failure == "no disk"
    vm.launch()
    assert vm.failure is None
    vm.note_failure(NotADirectoryError("no \x1b[1mdisk"))
    vm.shutdown()
    assert vm.failure == "NotADirectoryError: no \\x1b[1mdisk"
    assert written(vm).snapshot()["failure"] == vm.failure
    vm.launch()
    vm.shutdown()
    assert vm.failure is None
    assert written(vm).snapshot()["failure"] is None


def test_a_wait_in_vain(vm: Machine) -> None:
    with pytest.raises(MachineTimeout) as caught:
        vm.console.expect("never", timeout=SHORT)
    assert vm.failure == f"MachineTimeout: {str(caught.value).partition(chr(10))[0]}"
    assert told(vm) == []
    vm.console.sendline("ping")
    vm.console.expect("pong")
    assert vm.failure is None
    with pytest.raises(MachineTimeout):
        vm.console.expect("never", timeout=0)
    vm.shutdown()
    assert_well(vm)


def test_a_call_that_is_not_answered(vm: Machine) -> None:
    """It counts as a wait for the guest does, until any other call is."""
    for go_on in (lambda: vm.qmp.execute("query-status"), _refused(vm), lambda: _ping(vm)):
        with pytest.raises(MachineTimeout) as caught:
            vm.run(_for_ever(), timeout=SHORT, operation="ask")
        assert vm.failure == f"MachineTimeout: {str(caught.value).partition(chr(10))[0]}"
        with pytest.raises(MachineTimeout):
            vm.run(_for_ever(), timeout=0, operation="look")
        assert vm.failure is not None
        go_on()
        assert vm.failure is None
    with pytest.raises(MachineTimeout):
        vm.run(_for_ever(), timeout=SHORT, operation="ask")
    vm.shutdown()
    assert_failed(vm, "wait", f"MachineTimeout: {vm.name}: ask timed out after {SHORT:g} s")
    assert vm.state is State.STOPPED


def _refused(vm: Machine) -> Callable[[], None]:
    def ask() -> None:
        with pytest.raises(QMPCommandError):
            vm.qmp.execute("query-nothing")

    return ask


def _ping(vm: Machine) -> None:
    vm.console.sendline("ping")
    vm.console.expect("pong")


def test_a_command_that_a_stopped_qemu_does_not_answer(vm: Machine) -> None:
    send(vm.pid, signal.SIGSTOP)
    with pytest.raises(MachineTimeout):
        vm.qmp.execute("query-block", timeout=SHORT)
    send(vm.pid, signal.SIGCONT)
    vm.shutdown()
    assert_failed(vm, "wait", "execute('query-block') timed out")
    assert diagnosis.diagnose(written(vm)).kind == "timeout"  # it is, later


@pytest.mark.parametrize("of_guest", [False, True])
def test_what_hooks_do_is_not_the_tests(make: MakeGuest, of_guest: bool) -> None:
    vm = make()

    def wait_in_vain() -> None:
        with contextlib.suppress(MachineTimeout):
            vm.run(_for_ever(), timeout=SHORT, operation="of a hook", of_guest=of_guest)

    spoiler(vm).quitting = wait_in_vain
    vm.launch()
    vm.shutdown()
    assert_well(vm)


def test_what_hooks_do_makes_up_for_nothing(vm: Machine) -> None:
    spoiler(vm).quitting = lambda: _ping(vm)
    with pytest.raises(MachineTimeout):
        vm.console.expect("never", timeout=SHORT)
    vm.shutdown()
    assert_failed(vm, "wait", "expect('never')")


async def _report(vm: Machine, verdict: Verdict, action: Any) -> None:
    vm.report(verdict, action=action)


async def _for_ever() -> None:
    await IOThread.get().loop.create_future()


def test_the_last_wait_in_vain(vm: Machine) -> None:
    with pytest.raises(MachineTimeout):
        vm.wait(SHORT)
    vm.qmp.execute("query-status")
    vm.shutdown()
    assert_failed(vm, "wait", f"MachineTimeout: {vm.name}: wait timed out after {SHORT:g} s")
    assert vm.state is State.STOPPED


def test_a_wait_that_is_ended_with_the_machine(vm: Machine) -> None:
    waiting = InThread(lambda: vm.console.expect("never", timeout=LIMIT))
    until(lambda: vm.snapshot()["waits"])
    vm.shutdown()
    waiting.join()
    assert type(waiting.error) is MachineDied
    assert_well(vm)


@pytest.mark.parametrize("end", [lambda vm: vm.kill(), lambda vm: vm.wait(LIMIT)])
def test_a_wait_that_the_guest_ends(make: MakeGuest, end: Any) -> None:
    """It is known before clean-up begins, though the waiting thread is told after that."""
    vm = make()
    seen: list[str | None] = []
    spoiler(vm).quitting = lambda: seen.append(vm.failure)
    vm.launch()
    until_guest_is_up(vm)
    waiting = InThread(lambda: vm.console.expect("never", timeout=LIMIT))
    until(lambda: any(wait["operation"].startswith("expect") for wait in _waits(vm)))
    vm.console.sendline("poweroff")
    waiting.join()
    end(vm)
    assert type(waiting.error) is MachineDied
    assert (vm.state, vm.reason) == (State.STOPPED, Reason.GUEST_SHUTDOWN)
    assert_failed(vm, "wait", "MachineDied: ")
    assert seen == [vm.failure]


def _waits(vm: Machine) -> Any:
    return vm.snapshot()["waits"]


def test_how_it_ends_is_known_when_clean_up_begins(make: MakeGuest) -> None:
    vm = make()
    seen: list[str | None] = []
    spoiler(vm).quitting = lambda: seen.append(vm.failure)
    vm.launch()
    send(vm.pid, signal.SIGSEGV)
    with contextlib.suppress(VMError):
        vm.wait(LIMIT)
    assert seen == ["QEMU died of SIGSEGV (qemu-signal)"]
    assert_failed(vm, "end", seen[0] or "")


@pytest.mark.parametrize("action", ["none", "wake", "fail"])
def test_a_verdict(vm: Machine, action: Any) -> None:
    verdict = Verdict("ill", "test", {"message": "it\nis"})
    vm.run(_report(vm, verdict, action), timeout=LIMIT, operation="report")
    with contextlib.suppress(VMError):
        vm.shutdown()
    if action == "none":
        assert_well(vm)
    else:
        assert_failed(vm, "verdict", "ill (seen by test): it is")
        assert len(told(vm)) == 1


def test_clean_up_that_raises(vm: Machine) -> None:
    spoiler(vm).quitting = be_no_good
    with pytest.raises(VMError):
        vm.shutdown()
    assert_failed(vm, "end", "PluginError: ")
    assert vm.state is State.STOPPED


def test_secrets_are_hidden(make: MakeGuest) -> None:
    vm = make()
    vm.secrets.add("hunter2 hunter2")
    vm.launch()
    vm.note_failure("what about hunter2 hunter2?")
    vm.shutdown()
    assert_failed(vm, "note", "what about ")
    assert "hunter2" not in str(vm.failure)


def test_it_is_bounded_and_one_line(bare: MakeMachine) -> None:
    vm = bare()
    vm.note_failure("a\n b\x07" + "c" * 10_000_000)
    assert vm.failure is not None
    assert vm.failure.startswith("a b\\x07ccc")
    assert len(vm.failure) == 1_000


@pytest.mark.parametrize("bad", [None, b"bytes", "", " \n", 5])
def test_what_is_no_failure(bare: MakeMachine, bad: Any) -> None:
    vm = bare()
    with pytest.raises(ConfigError) as caught:
        vm.note_failure(bad)
    assert caught.value.field == "error"
    assert vm.failure is None


def test_in_a_forked_child(bare: MakeMachine) -> None:
    vm = bare()
    vm.note_failure("before")
    child = os.fork()
    if not child:
        status = 1
        with contextlib.suppress(BaseException):
            try:
                vm.note_failure("there")
            except TransitionError:
                status = 0 if vm.failure == "before" else 2
        os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def test_from_anywhere_at_once(vm: Machine) -> None:
    """On the I/O thread, and in threads while that is busy: it is known when the call has returned."""
    go, held = threading.Event(), threading.Event()

    def hold_up() -> None:
        vm.note_failure("on the I/O thread")
        held.set()
        go.wait(LIMIT)

    IOThread.get().post(hold_up)
    assert held.wait(LIMIT)
    vm.note_failure("here")
    assert vm.failure == "on the I/O thread"
    assert any(record.kind == "failure" and record.data["error"] == "here" for record in vm.timeline)
    go.set()


def test_a_launch_that_is_refused_changes_nothing(vm: Machine) -> None:
    vm.note_failure("first")
    with pytest.raises(TransitionError):
        vm.launch()
    assert vm.failure == "first"


def test_a_binary_that_is_not_there(bare: MakeMachine, tmp_path: Path) -> None:
    vm = Machine(tmp_path / "no-qemu")
    with pytest.raises(LaunchError), vm:
        vm.launch()
    assert vm.failure is not None
    assert vm.failure.startswith("launch failed: ")
