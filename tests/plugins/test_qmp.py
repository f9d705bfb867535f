"""Commands: what is sent, what comes back, from which threads and loops, and when there is no monitor."""

import asyncio
import inspect
import os
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from vmfsm_plugins.qmp import QMP, AsyncQMP, QMPCommandError, QMPConnectionError

from tests.plugins.monitors import MakeGuest, MakeMachine
from tests.waiting import LIMIT, InThread, until
from vmfsm import (
    ConfigError,
    GuestPanicked,
    Machine,
    MachineDied,
    MachineTimeout,
    Reason,
    State,
    TransitionError,
    VMError,
    hookimpl,
)
from vmfsm.testing import FakeQEMU
from vmfsm.testing import actions as do

BARE = ("-M", "none", "-nodefaults")


def holding() -> FakeQEMU:
    """One that replies to `slow` when `release` comes, and before it replies to that."""
    on = {
        "slow": [do.hold(), do.reply()],
        "release": [do.release(), do.reply()],
        "next": [do.reply("mine")],
    }
    return FakeQEMU(on=on)


def test_it_executes_commands(monitored: MakeMachine) -> None:
    vm = monitored()
    assert vm.qmp.execute("query-status")["status"] == "running"
    assert vm.qmp.execute("query-commands", {})[0].keys() == {"name"}
    assert vm.qmp.execute("human-monitor-command", command_line="info version").startswith(
        "{}.{}.{}".format(*vm.qmp.version)
    )
    assert vm.qmp.execute("qom-get", {"path": "/machine"}, property="type") == "none-machine"


def test_the_greeting_and_the_version(monitored: MakeMachine) -> None:
    vm = monitored(fake=FakeQEMU())
    assert vm.qmp.version == (9, 8, 7)
    vm.qmp.greeting["QMP"]["capabilities"].clear()  # a copy
    assert vm.qmp.greeting["QMP"]["capabilities"] == ["oob"]
    vm.shutdown()
    assert vm.qmp.version == (9, 8, 7)


def test_what_qemu_refuses(monitored: MakeMachine) -> None:
    vm = monitored()
    with pytest.raises(QMPCommandError, match=r"vm-.*: object-del: .*nothing.*\(GenericError\)") as caught:
        vm.qmp.execute("object-del", id="nothing")
    error = caught.value
    assert (error.error_class, error.command, error.machine) == ("GenericError", "object-del", vm.name)
    assert error.description in str(error)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.error_class, copy.description) == (
        str(error),
        error.error_class,
        error.description,
    )
    with pytest.raises(QMPCommandError) as unknown:
        vm.qmp.execute("no-such-command")
    assert unknown.value.error_class == "CommandNotFound"
    assert vm.qmp.execute("query-status")["status"] == "running"


def test_raw_replies_have_no_id(monitored: MakeMachine) -> None:
    vm = monitored()
    assert vm.qmp.execute_raw("stop") == {"return": {}}
    assert vm.qmp.execute_raw("no-such-command") == {
        "error": {"class": "CommandNotFound", "desc": "The command no-such-command has not been found"}
    }


@pytest.mark.parametrize(
    ("command", "arguments", "kw", "field"),
    [
        ("", None, {}, "command"),
        (None, None, {}, "command"),
        (b"stop", None, {}, "command"),
        ("stop", ["a"], {}, "arguments"),
        ("stop", "a", {}, "arguments"),
        ("stop", {"a-b": 1}, {"a_b": 2}, "arguments"),
        ("stop", {"a": object()}, {}, "arguments"),
        ("stop", {"a": float("nan")}, {}, "arguments"),
        ("stop", {"a": "\ud800"}, {}, "arguments"),
        ("stop", {("a",): 1}, {}, "arguments"),
        ("stop", None, {"a": b"bytes"}, "arguments"),
    ],
)
def test_what_is_no_command_is_not_sent(
    monitored: MakeMachine, command: Any, arguments: Any, kw: dict[str, Any], field: str
) -> None:
    vm = monitored()
    for call in (vm.qmp.execute, vm.qmp.execute_raw, vm.qmp.execute_oob):
        with pytest.raises(ConfigError) as caught:
            call(command, arguments, **kw)
        assert caught.value.field == field
    assert [r.data["command"] for r in vm.timeline if r.kind == "qmp-command"] == ["query-status"]


def test_arguments_are_sent_as_they_are(monitored: MakeMachine) -> None:
    vm = monitored()
    deep: Any = []
    for _ in range(100):
        deep = [deep]
    values: tuple[Any, ...] = ('ä€😀\x01\n"\\', "a\0b", 2**63 - 1, -1.5e300, True, None, {}, deep)
    for value in values:
        with pytest.raises(QMPCommandError):  # and not the end of the connection
            vm.qmp.execute("query-status", value=value)
    assert vm.qmp.execute("human-monitor-command", command_line='print "ä€😀"') is not None


def test_out_of_band(monitored: MakeMachine) -> None:
    vm = monitored()
    with pytest.raises(QMPCommandError, match="does not support OOB"):
        vm.qmp.execute_oob("query-status")
    with pytest.raises(QMPCommandError, match=r"migrate-recover: .*postcopy"):
        vm.qmp.execute_oob("migrate-recover", uri="no-such")
    assert vm.qmp.execute("query-status")["status"] == "running"


def test_out_of_band_where_it_is_not_offered(monitored: MakeMachine) -> None:
    greeting = '{"QMP": {"version": {"qemu": {"major": 2, "minor": 1, "micro": 0}}, "capabilities": []}}\r\n'
    vm = monitored(fake=FakeQEMU(greeting=[do.send(greeting)]))
    assert vm.qmp.version == (2, 1, 0)
    with pytest.raises(ConfigError, match="out of band"):
        vm.qmp.execute_oob("x-oob-test")
    vm.qmp.execute("query-status")


def test_several_threads_at_once(monitored: MakeMachine) -> None:
    vm = monitored()

    def many(thread: int) -> None:
        for n in range(50):
            asked = f"thread {thread} {n}"
            with pytest.raises(QMPCommandError, match=asked):
                vm.qmp.execute(asked)

    for call in [InThread(many, n) for n in range(4)]:
        call.result()


def test_the_twins_in_an_async_hook_and_in_another_loop(monitored: MakeMachine) -> None:
    seen: list[object] = []

    class Hook:
        name = "hook"

        @hookimpl
        async def post_launch(self, machine: Machine) -> None:
            with pytest.raises(TransitionError, match="aio"):
                machine.qmp.execute("query-status")
            await use(machine)

        @hookimpl
        async def early_cleanup(self, machine: Machine) -> None:
            seen.append(await machine.qmp.aio.execute("query-status"))

    async def use(machine: Machine) -> None:
        aio = machine.qmp.aio
        mark = machine.qmp.mark()
        assert await aio.execute("stop") == {}
        assert (await aio.wait_event("STOP", since=mark))["event"] == "STOP"
        assert await aio.execute_raw("cont") == {"return": {}}
        assert (await aio.wait_any([("STOP", None), ("RESUME", None)]))["event"] == "RESUME"
        with pytest.raises(QMPCommandError):
            await aio.execute_oob("query-status")
        with pytest.raises(MachineTimeout):
            await aio.wait_event("STOP", timeout=0.01)
        with pytest.raises(ConfigError):
            await aio.execute("")

    vm = monitored(Hook())
    asyncio.run(use(vm))
    vm.shutdown()
    assert len(seen) == 1

    async def too_late() -> None:
        with pytest.raises(MachineDied):
            await vm.qmp.aio.execute("stop")

    asyncio.run(too_late())


def test_a_cancelled_twin_leaves_nothing_behind(monitored: MakeMachine) -> None:
    vm = monitored(fake=holding())

    async def cancel() -> None:
        task = asyncio.ensure_future(vm.qmp.aio.execute("slow"))
        await asyncio.to_thread(until, lambda: "slow" in repr(vm.timeline))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await vm.qmp.aio.execute("next") == "mine"

    asyncio.run(cancel())
    vm.qmp.execute("release")
    assert vm.qmp.execute("next") == "mine"


def test_a_late_reply_never_answers_the_next_command(monitored: MakeMachine) -> None:
    vm = monitored(fake=holding())
    for _ in range(20):
        with pytest.raises(MachineTimeout, match=r"execute\('slow'\)") as caught:
            vm.qmp.execute("slow", timeout=0.01)
        assert caught.value.timeout == 0.01
        assert vm.qmp.execute_raw("next") == {"return": "mine"}
        vm.qmp.execute("release")
        assert vm.qmp.execute("next") == "mine"


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises, also where it is ignored by whoever runs the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_cancels(monitored: MakeMachine) -> None:
    vm = monitored(fake=holding())

    def interrupt() -> None:
        until(lambda: any(r.data.get("command") == "slow" for r in vm.timeline))
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    helper = threading.Thread(target=interrupt)
    helper.start()
    with pytest.raises(KeyboardInterrupt):
        vm.qmp.execute("slow")
    helper.join()
    vm.qmp.execute("release")
    vm.shutdown()
    assert (vm.state, vm.reason) == (State.STOPPED, Reason.REQUESTED)


def test_death_during_a_command(monitored: MakeMachine) -> None:
    vm = monitored(fake=holding())
    calls = [InThread(vm.qmp.execute, "slow", timeout=None) for _ in range(3)]
    until(lambda: [r.data.get("command") for r in vm.timeline].count("slow") == 3)
    assert vm.pid
    os.kill(vm.pid, signal.SIGSEGV)
    for call in calls:
        with pytest.raises(MachineDied, match="SIGSEGV"):
            call.result(5)
    assert (vm.state, vm.reason) == (State.FAILED, Reason.QEMU_SIGNAL)
    for _ in range(2):
        with pytest.raises(MachineDied):
            vm.qmp.execute("query-status")


def test_a_command_that_ends_qemu(monitored: MakeMachine) -> None:
    vm = monitored(fake=FakeQEMU(on={"crash": [do.exit_with(3)]}))
    began = time.monotonic()
    with pytest.raises(MachineDied, match="status 3"):
        vm.qmp.execute("crash", timeout=None)
    assert time.monotonic() - began < LIMIT


def test_the_users_own_quit_is_a_request(monitored: MakeMachine) -> None:
    vm = monitored()
    assert vm.qmp.execute("quit") == {}
    assert vm.wait(timeout=10) == 0
    assert (vm.state, vm.reason) == (State.STOPPED, Reason.REQUESTED)
    assert vm.run_state is None
    with pytest.raises(MachineDied):
        vm.qmp.execute("query-status")


@pytest.mark.usefixtures("guests_have_little_time")
def test_shutdown_asks_the_guest_if_told_to(monitored_guest: MakeGuest) -> None:
    vm, _ = monitored_guest()
    vm.shutdown()
    assert (vm.state, vm.reason) == (State.STOPPED, Reason.REQUESTED)
    commands = [r.data["command"] for r in vm.timeline if r.kind == "qmp-command"]
    assert commands == ["query-status", "quit"]

    vm, _ = monitored_guest()
    vm.shutdown(guest=True, timeout=20)  # the tiny guest does not listen
    commands = [r.data["command"] for r in vm.timeline if r.kind == "qmp-command"]
    assert commands == ["query-status", "system_powerdown", "quit"]


def test_a_panic_is_a_verdict(monitored_guest: MakeGuest) -> None:
    vm, serial = monitored_guest("-action", "panic=pause")
    waiting = InThread(vm.wait, 30)
    mark = vm.qmp.mark()
    event = InThread(vm.qmp.wait_event, "GUEST_PANICKED", since=mark)
    other = InThread(vm.qmp.wait_event, "RTC_CHANGE", since=mark)
    serial.command("panic")
    assert event.result()["data"]["action"] == "pause"
    for call in (waiting, other):
        with pytest.raises(GuestPanicked) as caught:
            call.result()
        assert caught.value.verdict is not None
        assert caught.value.verdict[:2] == ("guest-panicked", "qmp")
        assert caught.value.verdict.what["event"] == "GUEST_PANICKED"
    assert vm.qmp.execute("query-status")["status"] == vm.run_state == "guest-panicked"
    assert vm.state is State.RUNNING


def test_run_state(monitored_guest: MakeGuest) -> None:
    vm, serial = monitored_guest("-S", "-action", "shutdown=pause")
    qmp = vm.qmp

    def both() -> str | None:
        kept = qmp.run_state
        assert kept == vm.run_state == qmp.execute("query-status")["status"]
        return kept

    assert both() == "prelaunch"
    qmp.execute("cont")
    assert both() == "running"
    serial.command("ping")
    qmp.execute("stop")
    assert both() == "paused"
    qmp.execute("system_reset")
    qmp.wait_event("RESET")
    assert both() == "prelaunch"
    qmp.execute("cont")
    qmp.execute("system_reset")
    qmp.wait_event("RESET")
    assert both() == "running"
    mark = qmp.mark()
    serial.command("poweroff")
    qmp.wait_event("STOP", since=mark)
    assert both() == "shutdown"
    vm.shutdown()
    assert vm.run_state is None


def test_run_state_of_a_migration(monitored_guest: MakeGuest, tmp_path: Any) -> None:
    source, _ = monitored_guest()
    target, _ = monitored_guest("-incoming", "defer")
    assert target.run_state == "inmigrate"
    capabilities = [{"capability": "events", "state": True}]
    completed = {"data": {"status": "completed"}}
    for vm in (source, target):
        vm.qmp.execute("migrate-set-capabilities", capabilities=capabilities)
    target.qmp.execute("migrate-incoming", uri=f"unix:{tmp_path}/migration")
    source.qmp.execute("migrate", uri=f"unix:{tmp_path}/migration")
    for vm, state in ((source, "postmigrate"), (target, "running")):
        vm.qmp.wait_event("MIGRATION", match=completed)
        assert vm.run_state == state
        while vm.qmp.execute("query-status")["status"] == "finish-migrate":
            time.sleep(0.01)  # QEMU tells that it is complete a little before it is
        assert vm.run_state == state


def test_run_state_of_a_migration_that_sends_no_events(monitored_guest: MakeGuest, tmp_path: Any) -> None:
    source, _ = monitored_guest()
    target, _ = monitored_guest("-incoming", f"unix:{tmp_path}/migration")
    source.qmp.execute("migrate", uri=f"unix:{tmp_path}/migration")
    until(lambda: source.run_state == "postmigrate")
    until(lambda: target.run_state == "running")
    assert [r.data["command"] for r in source.timeline if r.kind == "qmp-command"] == [
        "query-status",
        "migrate",
    ]


def test_why_it_stopped_is_asked_for(monitored: MakeMachine) -> None:
    on = {"break": [do.emit("STOP"), do.reply()], "query-status": [do.reply({"status": "debug"})]}
    vm = monitored(fake=FakeQEMU(on=on))
    vm.qmp._session.run_state = "running"  # type: ignore[attr-defined]  # the fake only ever says why
    vm.qmp.execute("break")
    until(lambda: vm.run_state == "debug")


def test_the_run_state_is_as_of_the_last_of_what_came_at_once(monitored: MakeMachine) -> None:
    status = '{"return": {"status": "paused"}, "id": $id}\r\n'
    resume = '{"event": "RESUME", "timestamp": {"seconds": 1, "microseconds": 2}}\r\n'
    vm = monitored(fake=FakeQEMU(on={"query-status": [do.send(status + resume)]}))
    vm.qmp.wait_event("RESUME")
    assert vm.run_state == "running"
    vm.qmp.execute("query-status")
    vm.qmp.wait_event("RESUME")
    assert vm.run_state == "running"


def test_without_a_monitor(monitored: MakeMachine) -> None:
    vm = monitored(qmp={"enabled": False})
    assert "-mon" not in vm.command
    assert vm.run_state is None
    for call in (
        lambda: vm.qmp.execute("stop"),
        lambda: vm.qmp.execute_oob("stop"),
        lambda: vm.qmp.wait_event("STOP"),
        vm.qmp.mark,
        vm.qmp.events,
        vm.qmp.reconnect,
        lambda: vm.qmp.subscribe(print),
        lambda: vm.qmp.client,
        lambda: vm.qmp.greeting,
        lambda: vm.qmp.version,
    ):
        with pytest.raises(ConfigError, match=r"enabled.* is False"):
            call()
    vm.shutdown()
    assert vm.state is State.STOPPED


def test_before_the_first_launch_and_before_it_is_connected(monitored: MakeMachine) -> None:
    early: list[BaseException] = []

    class Early:
        name = "early"
        before = ("qmp",)

        @hookimpl
        def post_launch(self, machine: Machine) -> None:
            for call in (machine.qmp.execute, machine.qmp.execute_raw):
                with pytest.raises(TransitionError, match="not connected yet") as caught:
                    call("query-status")
                early.append(caught.value)

    vm = monitored(Early(), launch=False)
    for call in (
        lambda: vm.qmp.execute("query-status"),
        lambda: vm.qmp.wait_event("STOP"),
        vm.qmp.mark,
        lambda: vm.qmp.greeting,
        lambda: vm.qmp.client,
    ):
        with pytest.raises(TransitionError, match=vm.name) as caught:
            call()
        assert caught.value.allowed == ("launch",)
    vm.launch()
    assert len(early) == 2


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"address": ""}, "address"),
        ({"address": "a\0b"}, "address"),
        ({"address": ("localhost", -1)}, "address"),
        ({"address": ("localhost", 65536)}, "address"),
        ({"address": ("localhost",)}, "address"),
        ({"address": ("localhost", "80")}, "address"),
        ({"address": ("a" * 70 + ".example", 0)}, "address"),
        ({"address": ("a..b", 0)}, "address"),
        ({"address": ("a\0b", 0)}, "address"),
        ({"address": 5}, "address"),
        ({"negotiate_timeout": -1}, "negotiate_timeout"),
        ({"negotiate_timeout": "soon"}, "negotiate_timeout"),
        ({"enabled": "no"}, "enabled"),
        ({"adress": "x"}, "adress"),
    ],
)
def test_wrong_options(qemu: str, options: dict[str, object], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Machine(qemu, BARE, block=("console", "logs", "fdpass"), options={"qmp": options})
    assert caught.value.field == f"options['qmp'][{field!r}]"


def test_records(monitored: MakeMachine) -> None:
    vm = monitored()
    with pytest.raises(QMPCommandError):
        vm.qmp.execute("set_password", {"protocol": "hunter2", "password": "hunter2"})
    vm.qmp.execute("query-qmp-schema")
    vm.qmp.execute("stop")
    records = [record for record in vm.timeline if record.kind.startswith("qmp-")]
    greeting, _, _, asked, answered = records[:5]
    assert greeting.kind == "qmp-greeting"
    numbers = tuple(greeting.data[name] for name in ("major", "minor", "micro"))
    assert numbers == vm.qmp.version
    assert str(greeting.data["version"]).startswith("{}.{}.{}".format(*numbers))
    assert asked.kind == "qmp-command"
    assert asked.data["command"] == "set_password"
    assert asked.data["arguments"] == ("protocol", "password")
    assert answered.kind == "qmp-reply"
    assert answered.data["id"] == asked.data["id"]
    assert 0 < answered.data["seconds"] < 30  # type: ignore[operator]
    assert answered.data["error"] == "GenericError"
    event = next(record for record in records if record.kind == "qmp-event")
    assert event.data["event"] == "STOP"
    assert "hunter2" not in repr(vm.timeline)
    assert max(len(repr(record)) for record in records) < 1_000


def test_errors_carry_the_last_events(monitored: MakeMachine) -> None:
    vm = monitored()
    for _ in range(15):
        vm.qmp.execute("stop")
        vm.qmp.execute("cont")
    with pytest.raises(MachineTimeout) as caught:
        vm.qmp.wait_event("SHUTDOWN", timeout=0)
    assert [event["event"] for event in caught.value.evidence.events] == ["STOP", "RESUME"] * 10
    assert "STOP, RESUME" in "".join(caught.value.__notes__)
    assert len(vm.qmp.events()) == 30, "being shown is not being given"


def test_the_client_is_qemu_qmps(monitored: MakeMachine) -> None:
    vm = monitored()

    async def use() -> object:
        with vm.qmp.client.listener("STOP") as listener:
            value = await vm.qmp.client.execute("stop")
            assert (await listener.get())["event"] == "STOP"
        return value

    assert vm.run(use(), timeout=10, operation="use") == {}
    assert vm.qmp.client.events.empty()
    assert vm.qmp.wait_event("STOP", timeout=0)["event"] == "STOP"


def test_errors_of_the_connection_can_be_pickled() -> None:
    error = QMPConnectionError("lost", machine="vm")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.machine, isinstance(copy, VMError)) == ("lost", "vm", True)


def test_it_serves_any_number_of_launches(monitored: MakeMachine) -> None:
    vm = monitored(launch=False)
    for _ in range(3):
        vm.launch()
        assert vm.qmp.execute("query-status")["status"] == "running"
        vm.shutdown()


@pytest.mark.parametrize("calls", [QMP, AsyncQMP])
@pytest.mark.parametrize(
    "name", ["execute", "execute_raw", "execute_oob", "wait_event", "wait_any", "reconnect"]
)
def test_calls_that_wait_have_a_limit(calls: type, name: str) -> None:
    parameters = inspect.signature(getattr(calls, name)).parameters
    assert parameters["timeout"].default == 30
    for only_by_keyword in {"timeout", "match", "since"} & parameters.keys() if name != "reconnect" else ():
        assert parameters[only_by_keyword].kind is inspect.Parameter.KEYWORD_ONLY


def test_repr(monitored: MakeMachine) -> None:
    assert repr(QMP()) == "<QMP run_state=None>"
    vm = monitored()
    assert repr(vm.qmp) == f"<QMP of {vm.name} run_state=running>"
