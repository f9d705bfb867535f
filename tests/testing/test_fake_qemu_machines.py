"""What a machine makes of each way in which QEMU can misbehave, and that nothing of it is left."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from vmfsm_plugins.qmp import QMPCommandError, QMPConnectionError

from tests.waiting import LIMIT, InThread, is_alive, until
from vmfsm import (
    AbnormalExit,
    ConsoleClosed,
    LaunchError,
    Machine,
    MachineDied,
    MachineTimeout,
    PluginError,
    Reason,
    State,
)
from vmfsm.testing import FakeQEMU
from vmfsm.testing import actions as do

MIB = 1024 * 1024
SOON = 10.0
"""Seconds within which what takes no time at all is over on a busy machine, and far less than any timeout."""

Points = dict[str, Any]
Make = Callable[..., Machine]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes a machine with a fake that has these points. All that runs is gone at the end, by itself."""
    with contextlib.ExitStack() as stack:

        def make(**points: Any) -> Machine:
            fake = stack.enter_context(FakeQEMU(**points))
            vm = Machine(fake.binary)

            def end() -> None:
                vm.kill()
                assert fake.pids == frozenset()

            stack.callback(end)
            return vm

        yield make


def ending(vm: Machine) -> tuple[State, Reason | None, int | None]:
    return vm.state, vm.reason, vm.exit_status


def cause_of(error: BaseException) -> BaseException:
    """The first of a chain of causes."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


# -- as QEMU ------------------------------------------------------------------------------------------------


@pytest.fixture(params=["fake", "real"])
def either(request: pytest.FixtureRequest, qemu: str, make: Make) -> Iterator[Machine]:
    """A machine with each of the binaries, running: what is true of one is true of the other."""
    with make() if request.param == "fake" else Machine(qemu, ["-M", "none", "-nodefaults"]) as vm:
        yield vm.launch()


def events(vm: Machine) -> list[tuple[str, object]]:
    return [(event["event"], event.get("data")) for event in vm.qmp.events()]


def test_running(either: Machine) -> None:
    vm = either
    assert vm.qmp.execute("query-status")["running"]
    assert vm.run_state == "running"
    vm.qmp.execute("stop")
    assert vm.run_state == "paused"
    vm.qmp.execute("cont")
    assert vm.run_state == "running"
    vm.qmp.execute("system_reset")
    vm.qmp.execute("system_powerdown")
    reset = {"guest": False, "reason": "host-qmp-system-reset"}
    assert events(vm) == [("STOP", None), ("RESUME", None), ("RESET", reset), ("POWERDOWN", None)]
    with pytest.raises(QMPCommandError) as caught:
        vm.qmp.execute("nix")
    assert caught.value.error_class == "CommandNotFound"
    vm.qmp.reconnect()
    assert vm.qmp.execute("query-status")["running"]


def test_shutdown(either: Machine) -> None:
    either.shutdown()
    assert ending(either) == (State.STOPPED, Reason.REQUESTED, 0)
    assert events(either) == [("SHUTDOWN", {"guest": False, "reason": "host-qmp-quit"})]


def test_the_users_own_quit(either: Machine) -> None:
    assert either.qmp.execute("quit") == {}
    assert either.wait(LIMIT) == 0
    assert ending(either) == (State.STOPPED, Reason.REQUESTED, 0)


def test_sigterm_of_somebody_else(either: Machine) -> None:
    assert either.pid
    os.kill(either.pid, signal.SIGTERM)
    assert either.wait(LIMIT) == 0
    assert ending(either) == (State.STOPPED, Reason.QEMU_EXIT, 0)
    assert events(either) == [("SHUTDOWN", {"guest": False, "reason": "host-signal"})]
    assert "terminating on signal 15" in either.log.text


@pytest.mark.usefixtures("guests_have_little_time")
def test_a_guest_that_does_not_obey(either: Machine) -> None:
    either.shutdown(guest=True, timeout=20)
    assert ending(either) == (State.STOPPED, Reason.REQUESTED, 0)
    assert [name for name, _ in events(either)] == ["POWERDOWN", "SHUTDOWN"]


def test_kill(either: Machine) -> None:
    either.kill()
    assert ending(either) == (State.STOPPED, Reason.KILLED, -signal.SIGKILL)


# -- launches -----------------------------------------------------------------------------------------------

DEATHS: dict[str, Points] = {
    "before the greeting": {"start": [do.exit_with(3)]},
    "instead of the greeting": {"greeting": [do.exit_with(3)]},
    "in the middle of the greeting": {"greeting": [do.send('{"QMP": {"ver'), do.exit_with(3)]},
    "after the greeting": {"greeting": [do.as_qemu(), do.exit_with(3)]},
    "at the negotiation": {"on": {"qmp_capabilities": [do.exit_with(3)]}},
    "after the negotiation": {"ready": [do.exit_with(3)]},
    "at the first command": {"on": {"query-status": [do.exit_with(3)]}},
    "a little later, with nothing said": {"greeting": [], "start": [do.wait(0.2), do.exit_with(3)]},
}


@pytest.mark.parametrize("points", DEATHS.values(), ids=DEATHS)
def test_death_in_a_launch(make: Make, points: Points) -> None:
    said = do.output(b"no such machine \xff\n")
    vm = make(**{**points, "start": [said, *points.get("start", ())]})
    began = time.monotonic()
    with pytest.raises(LaunchError, match="QEMU ended with status 3") as caught:
        vm.launch()
    assert time.monotonic() - began < SOON
    assert ending(vm) == (State.FAILED, Reason.LAUNCH_ERROR, 3)
    assert caught.value.exit_status == 3
    assert "no such machine \\xff" in caught.value.output


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_death_by_a_signal_in_a_launch(make: Make, number: signal.Signals) -> None:
    vm = make(greeting=[do.die_of(number)])
    with pytest.raises(LaunchError, match=number.name):
        vm.launch()
    assert ending(vm) == (State.FAILED, Reason.LAUNCH_ERROR, -number)


def test_status_0_in_a_launch_is_no_success(make: Make) -> None:
    vm = make(ready=[do.shut_down("host-signal")])
    with pytest.raises(LaunchError, match="status 0"):
        vm.launch()
    assert ending(vm) == (State.FAILED, Reason.LAUNCH_ERROR, 0)


SILENCES: dict[str, Points] = {
    "before anything": {"start": [do.wedge()]},
    "without a greeting": {"greeting": []},
    "half a greeting": {"greeting": [do.send('{"QMP": {"ver')]},
    "no end to the negotiation": {"on": {"qmp_capabilities": []}},
    "no reply": {"on": {"query-status": []}},
    "wedged by a command": {"on": {"query-status": [do.wedge()]}},
    "a greeting too late": {"greeting": [do.wait(60), do.as_qemu()]},
    "another reply": {"on": {"query-status": [do.reply(id="not yours")]}},
}


@pytest.mark.parametrize("points", SILENCES.values(), ids=SILENCES)
def test_silence_in_a_launch(make: Make, points: Points) -> None:
    vm = make(**points)
    began = time.monotonic()
    with pytest.raises(LaunchError) as caught:
        vm.launch(timeout=0.5)
    assert 0.5 <= time.monotonic() - began < SOON
    assert isinstance(cause_of(caught.value), MachineTimeout)
    assert (vm.state, vm.reason) == (State.FAILED, Reason.DEADLINE)


NONSENSE: dict[str, Points] = {
    "garbage": {"greeting": [do.send("SSH-2.0-OpenSSH\r\n")]},
    "no object": {"greeting": [do.send("[]\r\n")]},
    "binary": {"greeting": [do.send(bytes(range(256)) + b"\r\n")]},
    "no greeting": {"greeting": [do.send('{"return": {}}\r\n')]},
    "a greeting without an end": {"greeting": [do.send("x" * 65536, times=None)]},
    "hung up": {"greeting": [do.hang_up(everywhere=True, for_good=True)]},
    "hung up later": {"on": {"query-status": [do.hang_up()]}},
    "refused": {"on": {"qmp_capabilities": [do.refuse()]}},
}


@pytest.mark.parametrize("points", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_in_a_launch(make: Make, points: Points) -> None:
    vm = make(**points)
    began = time.monotonic()
    with pytest.raises(LaunchError) as caught:
        vm.launch()
    assert time.monotonic() - began < SOON
    assert isinstance(caught.value.__cause__, PluginError)
    assert isinstance(caught.value.__cause__.__cause__, QMPConnectionError)
    assert (vm.state, vm.reason) == (State.FAILED, Reason.HOOK_FAILED)


def test_a_late_greeting_in_time(make: Make) -> None:
    vm = make(greeting=[do.wait(0.5), do.as_qemu()])
    began = time.monotonic()
    vm.launch(timeout=LIMIT)
    assert time.monotonic() - began >= 0.5
    vm.shutdown()
    assert ending(vm) == (State.STOPPED, Reason.REQUESTED, 0)


# -- the monitor --------------------------------------------------------------------------------------------


def test_replies_out_of_order(make: Make) -> None:
    on = {"one": [do.hold(), do.reply(1)], "two": [do.reply(2), do.release()]}
    vm = make(on=on).launch()
    one = InThread(vm.qmp.execute, "one")
    until(lambda: "'one'" in repr(vm.timeline))
    assert vm.qmp.execute("two") == 2
    assert one.result() == 1


def test_no_reply(make: Make) -> None:
    vm = make(on={"query-name": [], "late": [do.wait(0.1), do.reply("late")]}).launch()
    with pytest.raises(MachineTimeout):
        vm.qmp.execute("query-name", timeout=0.1)
    assert vm.qmp.execute("late") == "late"
    assert vm.qmp.execute("query-status")["running"]


@pytest.mark.parametrize(
    "actions",
    [
        [do.send('{"return": {}, "id'), do.hang_up()],
        [do.reply("x" * 65 * MIB)],
        [do.hang_up()],
        [do.send(b"\xff\xff\r\n")],
    ],
    ids=["end of file in a reply", "more than 64 MiB", "closed", "garbage"],
)
def test_a_monitor_that_is_lost(make: Make, actions: list[do.Action]) -> None:
    vm = make(on={"trouble": actions}).launch()
    with pytest.raises(QMPConnectionError):
        vm.qmp.execute("trouble")
    assert vm.state is State.RUNNING
    vm.qmp.reconnect()
    assert vm.qmp.execute("query-status")["running"]
    vm.shutdown()
    assert ending(vm) == (State.STOPPED, Reason.REQUESTED, 0)


def test_a_monitor_that_is_lost_for_good(make: Make) -> None:
    vm = make(on={"trouble": [do.hang_up(everywhere=True, for_good=True)]}).launch()
    with pytest.raises(QMPConnectionError):
        vm.qmp.execute("trouble")
    vm.shutdown()
    assert ending(vm) == (State.STOPPED, Reason.REQUESTED, 0), "by SIGTERM, since there is no other way"


def test_an_event_storm(make: Make) -> None:
    storm = [do.emit("STEP", {"n": "$number"}, times=5_000), do.reply()]
    vm = make(on={"storm": storm}, ready=[do.emit("TICK", times=None, per_second=1_000)]).launch()
    here = vm.qmp.mark()
    vm.qmp.execute("storm")
    numbers = [event["data"]["n"] for event in vm.qmp.events(here) if event["event"] == "STEP"]
    assert numbers == list(range(1, 5_001))
    vm.shutdown()
    assert ending(vm) == (State.STOPPED, Reason.REQUESTED, 0)


def test_a_storm_without_end_does_not_hold_up_the_end(make: Make) -> None:
    vm = make(on={"storm": [do.emit("STEP", times=None)]}).launch()
    storm = InThread(vm.qmp.execute, "storm", timeout=None)
    vm.qmp.wait_event("STEP")
    began = time.monotonic()
    vm.kill()
    assert time.monotonic() - began < SOON
    with pytest.raises(MachineDied):
        storm.result()
    assert ending(vm) == (State.STOPPED, Reason.KILLED, -signal.SIGKILL)


# -- endings ------------------------------------------------------------------------------------------------

UNASKED: dict[str, tuple[list[do.Action], State, Reason, int]] = {
    "a status": ([do.exit_with(7)], State.FAILED, Reason.QEMU_EXIT, 7),
    "status 0, without a word": ([do.exit_with(0)], State.STOPPED, Reason.QEMU_EXIT, 0),
    "the guest": ([do.shut_down()], State.STOPPED, Reason.GUEST_SHUTDOWN, 0),
    "a crash": ([do.die_of(signal.SIGSEGV)], State.FAILED, Reason.QEMU_SIGNAL, -signal.SIGSEGV),
    "SIGKILL": ([do.die_of(signal.SIGKILL)], State.FAILED, Reason.QEMU_SIGNAL, -signal.SIGKILL),
}


@pytest.mark.parametrize(("actions", "state", "reason", "status"), UNASKED.values(), ids=UNASKED)
def test_unasked(make: Make, actions: list[do.Action], state: State, reason: Reason, status: int) -> None:
    vm = make(on={"go": [do.output("bye\n"), do.say("last words\n"), *actions]}).launch()
    began = time.monotonic()
    with pytest.raises(MachineDied) as caught:
        vm.qmp.execute("go", timeout=None)
    assert time.monotonic() - began < SOON
    assert ending(vm) == (state, reason, status)
    assert (caught.value.reason, caught.value.exit_status) == (reason, status)
    assert (caught.value.evidence.output, caught.value.evidence.console) == ("bye\n", "last words\n")
    if state is State.FAILED:
        with pytest.raises(AbnormalExit) as abnormal:
            vm.shutdown()
        assert (abnormal.value.reason, abnormal.value.exit_status) == (reason, status)
    else:
        assert vm.wait() == 0


def test_some_time_after_ready(make: Make) -> None:
    vm = make(ready=[do.wait(0.3), do.exit_with(9)]).launch()
    with pytest.raises(AbnormalExit):
        vm.wait(LIMIT)
    assert ending(vm) == (State.FAILED, Reason.QEMU_EXIT, 9)


DEAF: dict[str, tuple[Points, int]] = {
    "to quit": ({"on": {"quit": []}}, 0),
    "to quit, though it agrees": ({"on": {"quit": [do.reply()]}}, 0),
    "to quit, which wedges it": ({"on": {"quit": [do.wedge()]}}, -signal.SIGKILL),
    "to quit and to SIGTERM": ({"on": {"quit": []}, "sigterm": []}, -signal.SIGKILL),
}


@pytest.mark.parametrize(("points", "status"), DEAF.values(), ids=DEAF)
def test_deaf(make: Make, points: Points, status: int) -> None:
    vm = make(**points).launch()
    began = time.monotonic()
    with pytest.raises(AbnormalExit) as caught:
        vm.shutdown(timeout=1)
    assert time.monotonic() - began < SOON
    assert caught.value.reason is Reason.WEDGED
    assert ending(vm) == (State.FAILED, Reason.WEDGED, status)


def test_a_bad_status_on_quit(make: Make) -> None:
    vm = make(on={"quit": [do.reply(), do.exit_with(4)]}).launch()
    with pytest.raises(AbnormalExit, match="status 4"):
        vm.shutdown()
    assert ending(vm) == (State.FAILED, Reason.QEMU_EXIT, 4)


def test_a_guest_that_obeys(make: Make) -> None:
    vm = make(on={"system_powerdown": [do.as_qemu(), do.wait(0.1), do.shut_down()]}).launch()
    vm.shutdown(guest=True)
    assert ending(vm) == (State.STOPPED, Reason.REQUESTED, 0)


@pytest.mark.parametrize("leaving", [None, "group"])
def test_a_child_that_is_left(make: Make, leaving: str | None) -> None:
    """The one of the group is killed with it; one that left it does not hold up anything."""
    with FakeQEMU(start=[do.fork(leaving=leaving)]) as fake:
        vm = Machine(fake.binary).launch()
        (child,) = fake.pids - {vm.pid}
        began = time.monotonic()
        vm.shutdown()
        assert time.monotonic() - began < SOON
        assert ending(vm) == (State.STOPPED, Reason.REQUESTED, 0)
        assert vm.console.closed
        assert is_alive(child) is (leaving == "group")
    assert not is_alive(child)


# -- the console --------------------------------------------------------------------------------------------


def test_a_flood(make: Make) -> None:
    vm = make(ready=[do.say("y" * 79 + "\n", times=None)]).launch()
    until(lambda: vm.console.lost > MIB)
    assert vm.qmp.execute("query-status", timeout=SOON)["running"]
    vm.shutdown()
    assert ending(vm) == (State.STOPPED, Reason.REQUESTED, 0)


def test_so_many_bytes(make: Make) -> None:
    vm = make(ready=[do.say("x" * 1000, times=3_000), do.say("END")]).launch()
    vm.console.expect("END")
    assert os.path.getsize(vm.console.path) == 3_000_003


def test_a_console_that_is_never_read(make: Make) -> None:
    vm = make(reads_console=False).launch()
    with pytest.raises(MachineTimeout):
        vm.console.send(b"x" * 5 * MIB, timeout=0.2)
    assert vm.qmp.execute("query-status")["running"]


def test_undecodable_output(make: Make) -> None:
    vm = make(ready=[do.say(b"\xff\xc3"), do.say("ok\n"), do.output(b"\xfe\x00\n")]).launch()
    vm.console.expect("ok")
    assert vm.console.text == "\ufffd\ufffdok\n"
    until(lambda: "\\xfe" in vm.log.text)


def test_a_conversation(make: Make) -> None:
    lines = {"root": [do.say("Password: ")], "secret": [do.say("$ "), do.close_console()]}
    vm = make(ready=[do.say("login: ")], lines=lines).launch()
    vm.console.expect("login: ")
    vm.console.sendline("root")
    vm.console.expect("Password: ")
    vm.console.sendline("secret")
    vm.console.expect(r"\$ ")
    with pytest.raises(ConsoleClosed):
        vm.console.expect("never", timeout=SOON)
    assert vm.state is State.RUNNING


# -- several at once ----------------------------------------------------------------------------------------


def test_all_at_once(make: Make) -> None:
    """A slow start, a flood, a storm, a child, a deaf monitor, and a crash on SIGTERM."""
    vm = make(
        start=[do.output(b"\xff" * 70_000), do.fork(), do.wait(0.1)],
        greeting=[do.wait(0.1), do.as_qemu()],
        ready=[do.emit("TICK", times=None, per_second=500), do.say("never: the storm has no end")],
        on={"query-status": [do.as_qemu(), do.say("flood", times=None)], "quit": [do.reply()]},
        sigterm=[do.output("signal\n"), do.die_of(signal.SIGABRT)],
        reads_console=False,
    ).launch()
    vm.qmp.wait_event("TICK")
    vm.console.expect("flood")
    with pytest.raises(AbnormalExit, match="SIGABRT"):
        vm.shutdown(timeout=1)
    assert ending(vm) == (State.FAILED, Reason.QEMU_SIGNAL, -signal.SIGABRT)
    assert vm.log.text.endswith("signal\n")


def test_machines_side_by_side() -> None:
    with FakeQEMU(lines={"ping": [do.say("pong\n")]}) as fake, contextlib.ExitStack() as stack:
        machines = [stack.enter_context(Machine(fake.binary, name=f"m{n}")) for n in range(5)]
        for vm in machines:
            vm.launch()
        assert fake.pids == {vm.pid for vm in machines}
        for vm in machines:
            vm.console.sendline("ping")
            vm.console.expect("pong")


def test_under_a_wrapper() -> None:
    with FakeQEMU() as fake, Machine(fake.binary, wrapper=["nice", "-n", "1"]) as vm:
        vm.launch()
        assert os.getpriority(os.PRIO_PROCESS, vm.pid or 0) == min(os.getpriority(os.PRIO_PROCESS, 0) + 1, 19)
