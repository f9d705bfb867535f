"""A QEMU that speaks QMP badly, or stops to."""

import contextlib
import functools
import gc
import os
import re
import signal
import time
import warnings
from typing import Any

import pytest
from vmfsm_plugins.qmp import QMPConnectionError

from tests.plugins.monitors import MakeMachine
from tests.waiting import SLACK, InThread, until
from vmfsm import LaunchError, LaunchPlan, MachineDied, MachineTimeout, PluginError, Reason, State, hookimpl
from vmfsm.testing import FakeQEMU
from vmfsm.testing import actions as do

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ([do.send("this is no JSON\r\n")], "not JSON: b'this is no JSON"),
        ([do.send("[1, 2]\r\n")], r"no message: \[1, 2\]"),
        ([do.send("\xff\r\n")], "not JSON"),
        ([do.send(b"\x00\xffSSH-2.0\r\n")], r"not JSON: b'\\x00\\xffSSH"),
        ([do.send('{"id": $id}\r\n')], "a reply that is none"),
        ([do.send('{"id": $id, "error": "oops"}\r\n')], "a reply that is none"),
        ([do.send('{"id": $id, "error": {"class": 1, "desc": "x"}}\r\n')], "a reply that is none"),
        ([do.send('{"event": 5}\r\n')], "an event that is none"),
        ([do.send('{"event": "X", "data": 5}\r\n')], "an event that is none"),
        (
            [do.send('{"error": {"class": "GenericError", "desc": "JSON"}}\r\n')],
            "could not read what it was",
        ),
        ([do.reply("x" * 65 * MIB)], "more than 67108864 bytes"),
        ([do.hang_up()], "QEMU closed it; reconnect"),
        ([do.send('{"return": {}, "id'), do.hang_up()], "in the middle of a message"),
        ([do.send("x" * 100_000 + "\r\n")], r"\(100002 bytes\)"),
    ],
)
def test_a_monitor_that_is_lost(monitored: MakeMachine, actions: Any, message: str) -> None:
    vm = monitored(fake=FakeQEMU(on={"trouble": actions}))
    with pytest.raises(QMPConnectionError, match=message) as caught:
        vm.qmp.execute("trouble", timeout=10)
    assert len(str(caught.value)) < 400
    assert vm.state is State.RUNNING
    with pytest.raises(QMPConnectionError, match=message):
        vm.qmp.execute("query-status", timeout=10)
    with pytest.raises(MachineTimeout):
        vm.qmp.wait_event("STOP", timeout=0.01)
    vm.kill()
    assert (vm.state, vm.reason) == (State.STOPPED, Reason.KILLED)


def test_last_words_are_heard_although_qemu_can_no_longer_be_written_to(monitored: MakeMachine) -> None:
    vm = monitored()
    assert vm.pid is not None

    async def ask_when_it_is_gone(pid: int) -> None:
        # All of it on the I/O thread, so that nothing of what QEMU says is read before.
        os.kill(pid, signal.SIGTERM)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 - just that
        await vm.qmp.aio.execute("quit")

    with pytest.raises(MachineDied, match="SHUTDOWN"):
        vm.run(ask_when_it_is_gone(vm.pid), timeout=30, operation="ask")
    assert [event["data"]["reason"] for event in vm.qmp.events()] == ["host-signal"]
    assert (vm.state, vm.reason, vm.exit_status) == (State.STOPPED, Reason.QEMU_EXIT, 0)


def test_long_messages_that_are_not_too_long(monitored: MakeMachine) -> None:
    vm = monitored(fake=FakeQEMU(on={"long": [do.reply("x" * 9 * MIB)]}))
    assert len(vm.qmp.execute("long")) == 9 * MIB


@pytest.mark.parametrize(
    ("greeting", "message"),
    [
        ("hello\r\n", "not JSON: b'hello"),
        ("{}\r\n", "QMP"),
        ('{"QMP": 5}\r\n', "QMP"),
        ('{"QMP": {"version": {}, "capab', None),
        ("[]\r\n", "no message"),
    ],
)
def test_a_greeting_that_is_none(monitored: MakeMachine, greeting: str, message: str | None) -> None:
    vm = monitored(fake=FakeQEMU(greeting=[do.send(greeting)]), launch=False)
    began = time.monotonic()
    half = greeting.endswith("capab")
    with pytest.raises(LaunchError, match=message) as caught:
        vm.launch(timeout=0.5 if half else 30)
    assert time.monotonic() - began < SLACK
    assert vm.reason is (Reason.DEADLINE if half else Reason.HOOK_FAILED)
    if not half:
        assert isinstance(caught.value.__cause__, PluginError)
        assert isinstance(caught.value.__cause__.__cause__, QMPConnectionError)


def test_events_before_the_greeting_and_before_the_negotiation_is_over(monitored: MakeMachine) -> None:
    event = '{"event": "RESUME", "timestamp": {"seconds": 1, "microseconds": 2}}\r\n'
    agreement = event + '{"return": {}, "id": $id}\r\n'
    fake = FakeQEMU(
        greeting=[do.send(event), do.as_qemu()],
        on={"qmp_capabilities": [do.send(agreement)], "anything": [do.reply()]},
    )
    vm = monitored(fake=fake)
    assert [event["event"] for event in vm.qmp.events()] == ["RESUME", "RESUME"]
    assert vm.qmp.version == (9, 8, 7)
    assert vm.qmp.execute("anything") == {}


def test_the_time_for_the_negotiation(monitored: MakeMachine) -> None:
    vm = monitored(
        fake=FakeQEMU(greeting=[do.send('{"QMP": ')]), qmp={"negotiate_timeout": 0.1}, launch=False
    )
    began = time.monotonic()
    with pytest.raises(LaunchError, match=r"not ready after 0.1 s \(negotiate_timeout\)") as caught:
        vm.launch(timeout=30)
    assert time.monotonic() - began < SLACK
    assert isinstance(caught.value.__cause__, PluginError)
    assert isinstance(caught.value.__cause__.__cause__, MachineTimeout)


def test_refused_capabilities(monitored: MakeMachine) -> None:
    vm = monitored(fake=FakeQEMU(on={"qmp_capabilities": [do.refuse()]}), launch=False)
    with pytest.raises(LaunchError, match="refused the negotiation"):
        vm.launch()


@pytest.mark.parametrize("command", ["qmp_capabilities", "query-status"])
def test_the_end_in_the_middle_of_the_negotiation(monitored: MakeMachine, command: str) -> None:
    vm = monitored(fake=FakeQEMU(on={command: [do.exit_with(7)]}), launch=False)
    with pytest.raises(LaunchError, match="status 7") as caught:
        vm.launch()
    assert (vm.reason, caught.value.exit_status) == (Reason.LAUNCH_ERROR, 7)


@pytest.mark.parametrize("command", ["qmp_capabilities", "query-status"])
def test_hanging_up_in_the_middle_of_the_negotiation(monitored: MakeMachine, command: str) -> None:
    vm = monitored(fake=FakeQEMU(on={command: [do.hang_up()]}), launch=False)
    with pytest.raises(LaunchError, match="QEMU closed it"):
        vm.launch()
    assert vm.reason is Reason.HOOK_FAILED


def test_a_qemu_that_is_stopped(monitored: MakeMachine) -> None:
    vm = monitored()
    assert vm.pid
    os.kill(vm.pid, signal.SIGSTOP)
    with pytest.raises(MachineTimeout):
        vm.qmp.execute("query-status", timeout=0.05)
    for _ in range(20):  # more than fits into the socket, so that some of it is queued here
        with pytest.raises(MachineTimeout):
            vm.qmp.execute("human-monitor-command", command_line="x" * 100_000, timeout=0)
    writer = vm.qmp.client._writer
    assert writer is not None
    assert writer.transport.get_write_buffer_size() < 64 * 1024 + 101_000
    began = time.monotonic()
    vm.kill()
    assert time.monotonic() - began < SLACK
    assert (vm.state, vm.reason) == (State.STOPPED, Reason.KILLED)


def test_the_last_words_where_somebody_else_holds_qemus_end(monitored: MakeMachine) -> None:
    class Holder:
        name = "holder"
        after = ("qmp",)

        @hookimpl
        def pre_launch(self, plan: LaunchPlan) -> None:
            fds = re.findall(r"socket,id=vmfsm-qmp\b[^ ]*\bfd=(\d+)", " ".join(plan.args))
            for fd in fds:
                plan.defer(functools.partial(os.close, os.dup(int(fd))))

    vm = monitored(Holder())
    vm.qmp.execute("quit")
    assert vm.wait(30) == 0
    assert (vm.state, vm.reason) == (State.STOPPED, Reason.REQUESTED)


def test_launches_that_are_killed_at_any_point(monitored: MakeMachine) -> None:
    vm = monitored(launch=False)
    for n in range(40):
        before = len(vm.history)
        launching = InThread(vm.launch)
        until(lambda: len(vm.history) > before)  # noqa: B023 - it is over before the next round
        time.sleep(n * 0.001)  # the very point of it: any moment of a launch
        vm.kill()
        launching.join()
        assert launching.error is None or isinstance(launching.error, LaunchError)
        with pytest.raises(MachineDied if launching.error is None else Exception):
            vm.qmp.execute("query-status")
        vm.kill()


def test_nothing_is_left_unawaited(monitored: MakeMachine) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for fake in (
            FakeQEMU(),
            FakeQEMU(on={"query-status": [do.hang_up()]}),
            FakeQEMU(greeting=[do.send("x\r\n")]),
            FakeQEMU(greeting=[do.send("{")]),
        ):
            vm = monitored(fake=fake, launch=False)
            with contextlib.suppress(LaunchError):
                vm.launch(timeout=2)
            vm.kill()
            del vm
            gc.collect()
