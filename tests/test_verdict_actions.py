"""What follows a verdict: plugins are asked, and what they say is done, whoever waits."""

import logging
from collections.abc import Callable, Iterator

import pytest

from tests.endings import TIMEOUT, MakeGuest, assert_ended, guests, until_guest_is_up
from tests.waiting import InThread, until
from vmfsm import (
    AbnormalExit,
    ConfigError,
    GuestPanicked,
    LaunchError,
    Machine,
    MachineDied,
    MachineTimeout,
    Reason,
    State,
    TransitionError,
    Verdict,
    hookimpl,
)
from vmfsm.iothread import IOThread
from vmfsm.testing import FakeQEMU
from vmfsm.testing import actions as do

LOST = Verdict("lost", "test", {"message": "it smokes"})
WAITS: dict[str, Callable[[Machine], object]] = {
    "wait": lambda vm: vm.wait(TIMEOUT),
    "expect": lambda vm: vm.console.expect("never", timeout=TIMEOUT),
    "wait_event": lambda vm: vm.qmp.wait_event("DEVICE_DELETED", timeout=TIMEOUT),
}


class Judge:
    """Says what it is told to."""

    def __init__(self, opinion: object, name: str = "judge") -> None:
        self.name = name
        self.opinion = opinion
        self.asked: list[Verdict] = []

    @hookimpl
    def judge(self, verdict: Verdict) -> object:
        self.asked.append(verdict)
        if isinstance(self.opinion, BaseException):
            raise self.opinion
        return self.opinion


@pytest.fixture
def guest(qemu: str) -> Iterator[MakeGuest]:
    """Makes machines with the tiny guest."""
    with guests(qemu) as make:
        yield make


def report(vm: Machine, verdict: Verdict = LOST, **how: str) -> None:
    """Report it, and come back when that is done."""

    async def now() -> None:
        vm.report(verdict, **how)  # type: ignore[arg-type]  # tests pass what is wrong, too

    vm.run(now(), timeout=TIMEOUT, operation="report")


def actions(vm: Machine) -> list[object]:
    return [record.data["action"] for record in vm.timeline if record.kind == "verdict"]


def waiting(vm: Machine) -> list[InThread]:
    calls = [InThread(wait, vm) for wait in WAITS.values()]
    assert vm._launch is not None
    in_progress = vm._launch.calls.in_progress
    until(lambda: len(in_progress) == len(calls))
    return calls


def assert_lost(error: BaseException | None, vm: Machine) -> None:
    assert isinstance(error, GuestPanicked)
    assert error.verdict == LOST
    assert str(error).startswith(f"{vm.name}: lost (seen by test) during ")
    assert str(error).endswith(": it smokes")


# -- who is asked -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opinion", [None, "wake"])
def test_by_default_who_waits_is_woken(guest: MakeGuest, opinion: object) -> None:
    judge = Judge(opinion)
    vm = guest(plugins=[judge]).launch()
    calls = waiting(vm)
    report(vm)
    for call in calls:
        assert_lost(call.join().error, vm)
    assert vm.state is State.RUNNING
    assert (judge.asked, actions(vm)) == ([LOST], ["wake"])


@pytest.mark.parametrize("action", ["record", "expected", "none"])
def test_nobody_is_woken(guest: MakeGuest, action: str) -> None:
    vm = guest(plugins=[Judge(action)]).launch()
    report(vm)
    for wait in (lambda: vm.wait(0.01), lambda: vm.console.expect("never", timeout=0.01)):
        with pytest.raises(MachineTimeout):
            wait()
    assert actions(vm) == ([] if action == "none" else [action])
    vm.shutdown()
    assert_ended(vm, State.STOPPED, Reason.REQUESTED, 0)


def test_the_first_opinion_counts(guest: MakeGuest) -> None:
    judges = [Judge(None, "a"), Judge("record", "b"), Judge("fail", "c")]
    vm = guest(plugins=judges).launch()
    report(vm)
    assert actions(vm) == ["record"]
    assert [len(judge.asked) for judge in judges] == [1, 1, 0]


@pytest.mark.parametrize("opinion", ["no such action", 1, ["wake"], ValueError("no idea"), SystemExit(1)])
def test_a_bad_opinion_is_none(guest: MakeGuest, opinion: object, caplog: pytest.LogCaptureFixture) -> None:
    vm = guest(plugins=[Judge(opinion, "a"), Judge("record", "b")]).launch()
    report(vm)
    assert actions(vm) == ["record"]
    [logged] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert logged.name == "vmfsm.verdicts"
    assert "judge of plugin 'a'" in logged.getMessage()


def test_an_action_that_is_given_is_nobody_elses_business(guest: MakeGuest) -> None:
    judge = Judge("fail")
    vm = guest(plugins=[judge]).launch()
    report(vm, action="record")
    assert (judge.asked, actions(vm)) == ([], ["record"])
    with pytest.raises(ConfigError) as caught:
        report(vm, action="explode")
    assert caught.value.field == "action"


# -- the end for it -----------------------------------------------------------------------------------------


def test_it_ends_the_machine_and_all_who_wait_get_it(guest: MakeGuest) -> None:
    vm = guest().launch()
    until_guest_is_up(vm)
    calls = waiting(vm)
    IOThread.get().post(lambda: vm.report(LOST, action="fail"))
    for call in calls:
        assert_lost(call.join().error, vm)
        assert call.error is not None
        assert vm.state is State.FAILED, "it is told when all is cleaned up"
    assert_ended(vm, State.FAILED, Reason.GUEST_PANICKED, -9)
    assert [t.reason for t in vm.history[-2:]] == [Reason.GUEST_PANICKED] * 2
    for _ in range(2):
        with pytest.raises(GuestPanicked):
            vm.wait()
        vm.shutdown()  # this thread has been told
    with pytest.raises(MachineDied) as died:
        vm.qmp.execute("query-status")
    assert died.value.reason is Reason.GUEST_PANICKED
    with pytest.raises(GuestPanicked):
        vm.console.expect("never")
    vm.launch()
    until_guest_is_up(vm)
    vm.shutdown()
    assert_ended(vm, State.STOPPED, Reason.REQUESTED, 0)


def test_who_was_told_by_a_wait_is_not_told_again(guest: MakeGuest) -> None:
    with guest().launch() as vm:
        IOThread.get().post(lambda: vm.report(LOST, action="fail"))
        with pytest.raises(GuestPanicked):
            vm.console.expect("never")
    assert vm.state is State.FAILED


def test_leaving_the_block_tells_it(guest: MakeGuest) -> None:
    vm = guest().launch()
    IOThread.get().post(lambda: vm.report(LOST, action="fail"))
    with pytest.raises(GuestPanicked) as caught:
        vm.__exit__(None, None, None)
    assert_lost(caught.value, vm)


def test_others_that_nobody_was_told_of_come_with_it(guest: MakeGuest) -> None:
    vm = guest().launch()

    def both() -> None:
        vm.report(LOST, action="wake")
        vm.report(LOST._replace(kind="again"), action="fail")
        vm.report(LOST._replace(kind="third"), action="fail")

    IOThread.get().post(both)
    until(lambda: vm.state is State.FAILED)
    with pytest.raises(GuestPanicked) as caught:
        vm.shutdown()
    assert caught.value.verdict is not None
    assert caught.value.verdict.kind == "again"
    kinds = [e.verdict.kind for e in caught.value.errors if isinstance(e, GuestPanicked) and e.verdict]
    assert kinds == ["lost", "third"]


@pytest.mark.parametrize("status", [0, 3])
def test_a_qemu_that_has_gone_by_itself(guest: MakeGuest, status: int) -> None:
    """A verdict in its last words counts, and how it ended is in the status."""

    class LastWords:
        name = "last-words"

        @hookimpl
        def pre_launch(self, machine: Machine, plan: object) -> None:
            async def speak() -> None:
                machine.report(LOST, action="fail")

            plan.on_exit(speak)  # type: ignore[attr-defined]

    with FakeQEMU(on={"go": [do.exit_with(status)]}) as fake:
        vm = Machine(fake.binary, plugins=[LastWords()])
        vm.launch()
        with pytest.raises(MachineDied):
            vm.qmp.execute("go")
        with pytest.raises(GuestPanicked):
            vm.shutdown()
    assert_ended(vm, State.FAILED, Reason.GUEST_PANICKED, status)


def test_during_a_launch(qemu: str) -> None:
    class Bad:
        name = "bad"

        @hookimpl
        async def post_launch(self, machine: Machine) -> None:
            machine.report(LOST, action="fail")

    vm = Machine(qemu, ["-M", "none", "-nodefaults"], plugins=[Bad()])
    with pytest.raises(LaunchError) as caught:
        vm.launch()
    assert_lost(caught.value.__cause__, vm)
    assert "it smokes" in str(caught.value)
    assert_ended(vm, State.FAILED, Reason.GUEST_PANICKED, -9)


def test_a_kill_that_came_first_is_the_reason(guest: MakeGuest) -> None:
    class Late:
        name = "late"

        @hookimpl
        async def early_cleanup(self, machine: Machine) -> None:
            machine.report(LOST, action="fail")

    vm = guest(plugins=[Late()]).launch()
    vm.kill()
    assert_ended(vm, State.STOPPED, Reason.KILLED, -9)


def test_during_a_shutdown(guest: MakeGuest) -> None:
    class Late:
        name = "late"

        @hookimpl
        async def early_cleanup(self, machine: Machine) -> None:
            machine.report(LOST, action="fail")

    vm = guest(plugins=[Late()]).launch()
    with pytest.raises(GuestPanicked):
        vm.shutdown()
    assert_ended(vm, State.FAILED, Reason.GUEST_PANICKED, -9)


def test_what_nobody_was_told_comes_with_a_bad_ending() -> None:
    with FakeQEMU(on={"go": [do.exit_with(3)]}) as fake:
        vm = Machine(fake.binary)
        vm.launch()
        report(vm)
        with pytest.raises(MachineDied):
            vm.qmp.execute("go")
        with pytest.raises(AbnormalExit) as caught:
            vm.shutdown()
        assert_lost(caught.value.errors[0], vm)


def test_a_panic_that_ended_qemu_is_told_once_by_whatever_told_it(guest: MakeGuest) -> None:
    """The console and the monitor may both tell of one: the end of the machine is not another one."""
    vm = guest().launch()
    until_guest_is_up(vm)
    report(vm)
    with pytest.raises(GuestPanicked):
        vm.wait(TIMEOUT)
    vm.console.sendline("panic")
    until(lambda: vm.state is State.STOPPED)
    vm.shutdown()
    assert_ended(vm, State.STOPPED, Reason.QEMU_EXIT, 0)


# -- events -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ("GUEST_PANICKED", "guest-panicked"),
        ("GUEST_CRASHLOADED", "guest-crashloaded"),
        ("WATCHDOG", "watchdog"),
    ],
)
def test_events_that_are_verdicts(event: str, kind: str) -> None:
    emitting = FakeQEMU(on={"go": [do.reply(), do.emit(event, {"action": "none"})]})
    with emitting as fake, Machine(fake.binary) as vm:
        vm.launch()
        vm.qmp.execute("go")
        with pytest.raises(GuestPanicked) as caught:
            vm.qmp.wait_event("DEVICE_DELETED", timeout=TIMEOUT)
        assert caught.value.verdict is not None
        assert (caught.value.verdict.kind, caught.value.verdict.where) == (kind, "qmp")
        assert vm.qmp.wait_event(event)["data"] == {"action": "none"}


def test_a_scope_is_entered_once() -> None:
    scope = Machine("qemu-system-x86_64").verdicts.allowed("oops")
    with scope, pytest.raises(TransitionError, match="once"):
        scope.__enter__()
    with pytest.raises(TransitionError, match="once"):
        scope.__enter__()
