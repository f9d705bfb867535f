"""The calls that wait: in snapshots while they do, on the timeline when they begin and when they are over."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.conftest import MakeMachine
from tests.endings import MakeGuest, guests, stop_process, until_guest_is_up
from tests.test_snapshot import check, has
from tests.waiting import InThread, until
from vmfsm import (
    LaunchError,
    Machine,
    MachineDied,
    MachineTimeout,
    format_timeline,
    hookimpl,
    looking_on,
    onlooker,
)
from vmfsm.iothread import IOThread
from vmfsm.waits import SHORT

LONG = 600.0


def waits(vm: Machine) -> list[dict[str, Any]]:
    found: Any = check(vm.snapshot())["waits"]
    for wait in found:
        has("waits", wait)
    return list(found)


def until_waits(vm: Machine, operation: str) -> dict[str, Any]:
    """For a call of this operation to be shown."""
    until(lambda: any(wait["operation"] == operation for wait in waits(vm)))
    return next(wait for wait in waits(vm) if wait["operation"] == operation)


def recorded(vm: Machine, kind: str) -> list[Mapping[str, object]]:
    return [record.data for record in vm.timeline if record.kind == kind]


def ended(vm: Machine) -> list[tuple[object, object]]:
    return [(data["operation"], data["outcome"]) for data in recorded(vm, "wait")]


@pytest.fixture
def make(qemu: str) -> Iterator[MakeGuest]:
    with guests(qemu) as make:
        yield make


def running(make: MakeGuest, **parameters: Any) -> Machine:
    vm = make(**parameters)
    vm.launch()
    until_guest_is_up(vm)
    return vm


EXPECT = "expect('never') on console 'console'"
QUERY_NAME = "execute('query-name')"


def test_a_wait_is_shown_while_it_lasts_and_recorded(make: MakeGuest) -> None:
    vm = running(make)
    assert waits(vm) == []

    def wait_for_it() -> None:
        vm.console.expect("never", timeout=LONG)  # this line

    waiting = InThread(wait_for_it)
    shown = until_waits(vm, EXPECT)
    assert shown["timeout"] == LONG
    assert shown["seconds"] + shown["remaining"] == pytest.approx(LONG, abs=30)
    assert "wait_for_it" not in shown["thread"]
    path, _, line = shown["caller"].rpartition(":")
    with open(path, encoding="utf-8") as file:
        assert file.readlines()[int(line) - 1].endswith("# this line\n")
    until(lambda: len(recorded(vm, "wait-begin")) == 3)  # launch, expect, expect
    begun = recorded(vm, "wait-begin")[-1]
    assert begun == {key: shown[key] for key in ("operation", "timeout", "thread", "caller")}
    assert (EXPECT, "died") not in ended(vm)
    text = format_timeline(vm.timeline)
    assert text.count("wait-begin") == 1, "the others are over"

    vm.shutdown()  # by `kill` QEMU may be gone before there is anything to wait for
    with pytest.raises(MachineDied):
        waiting.result()
    assert waits(vm) == []
    assert ended(vm) == [
        ("launch", "done"),
        ("expect('ready') on console 'console'", "done"),
        (EXPECT, "died"),
        ("shutdown", "done"),
    ]
    assert "wait-begin" not in format_timeline(vm.timeline)
    (died,) = [data for data in recorded(vm, "wait") if data["outcome"] == "died"]
    assert died["caller"] == shown["caller"]
    assert str(died["error"]).startswith("MachineDied: ")


def test_what_ends_them(make: MakeGuest) -> None:
    vm = running(make)
    with pytest.raises(MachineTimeout):
        vm.console.expect("never", timeout=0.01)
    waiting = InThread(vm.wait)
    until_waits(vm, "wait")
    vm.shutdown()
    waiting.result()
    assert ended(vm)[2] == (EXPECT, "timeout")
    assert sorted(map(str, ended(vm)[3:])) == ["('shutdown', 'done')", "('wait', 'done')"]
    with pytest.raises(LaunchError):
        Machine("no-such-qemu").launch()


def test_a_launch_that_fails(qemu: str) -> None:
    vm = Machine(qemu, ["-no-such-option"])
    with pytest.raises(LaunchError) as failed:
        vm.launch()
    assert ended(vm) == [("launch", "failed")]
    (wait,) = recorded(vm, "wait")
    assert str(wait["error"]).startswith("LaunchError: ")
    assert str(failed.value).splitlines()[0] in str(wait["error"])


def test_an_interrupt(make: MakeGuest) -> None:
    """As a signal handler's exception would."""
    vm = running(make)

    def raise_it(*_: object) -> None:
        raise KeyboardInterrupt

    def interrupt() -> None:
        until_waits(vm, EXPECT)
        assert main is not None
        signal.pthread_kill(main, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, raise_it)
    main = threading.main_thread().ident
    try:
        interrupting = InThread(interrupt)
        with pytest.raises(KeyboardInterrupt):
            vm.console.expect("never", timeout=LONG)
        interrupting.result()
    finally:
        signal.signal(signal.SIGUSR1, before)
    until(lambda: ended(vm)[-1] == (EXPECT, "interrupted"))
    assert waits(vm) == []


def test_a_command_is_recorded_only_when_it_takes_long(make: MakeGuest) -> None:
    vm = running(make)
    vm.qmp.execute("query-status")
    stop_process(vm.pid)
    asking = InThread(vm.qmp.execute, "query-name", timeout=LONG)
    shown = until_waits(vm, QUERY_NAME)
    until(lambda: QUERY_NAME in [data["operation"] for data in recorded(vm, "wait-begin")])
    assert recorded(vm, "wait-begin")[-1]["caller"] == shown["caller"]
    until(lambda: waits(vm)[0]["seconds"] >= SHORT)
    vm.kill()
    with pytest.raises(MachineDied):
        asking.result()
    assert (QUERY_NAME, "died") in ended(vm)
    operations = [data["operation"] for kind in ("wait-begin", "wait") for data in recorded(vm, kind)]
    assert not [operation for operation in operations if "query-status" in str(operation)]


def test_of_coroutines(make: MakeGuest) -> None:
    vm = running(make)

    async def ask() -> None:
        asyncio.get_running_loop().call_later(0, lambda: None)
        with contextlib.suppress(MachineTimeout):
            await vm.console.aio.expect("never", timeout=SHORT)  # here

    async def ask_in_task() -> None:
        await asyncio.create_task(ask(), name="asker")

    asyncio.run(ask_in_task())
    wait = recorded(vm, "wait")[-1]
    assert (wait["operation"], wait["outcome"]) == (EXPECT, "timeout")
    assert wait["thread"] == "MainThread, asker"
    path, _, line = str(wait["caller"]).rpartition(":")
    with open(path, encoding="utf-8") as file:
        assert file.readlines()[int(line) - 1].endswith("# here\n")


def test_in_hooks(make: MakeGuest) -> None:
    shown: list[dict[str, Any]] = []

    class Asks:
        name = "asks"
        needs = ("qmp",)

        @hookimpl
        async def post_launch(self, machine: Machine) -> None:
            with contextlib.suppress(MachineTimeout):
                await machine.qmp.aio.wait_event("NEVER", timeout=0.01)

        @hookimpl
        def early_cleanup(self, machine: Machine) -> None:
            shown.extend(waits(machine))

    vm = make(plugins=[Asks()])
    vm.launch()
    vm.shutdown()
    (asked,) = [data for data in recorded(vm, "wait") if data["operation"] == "wait_event('NEVER')"]
    assert str(asked["thread"]).startswith("vmfsm-io, ")
    assert str(asked["caller"]).startswith(f"{__file__}:")
    assert [(wait["operation"], wait["timeout"]) for wait in shown] == [("shutdown", 30.0)]
    assert str(shown[0]["caller"]).startswith(f"{__file__}:")


def test_with_the_io_thread_held_up(make: MakeGuest) -> None:
    vm, go, held = running(make), threading.Event(), threading.Event()
    IOThread.get().post(held.set)
    IOThread.get().post(go.wait, LONG)
    assert held.wait(LONG)
    try:
        asking = InThread(vm.qmp.execute, "query-status", timeout=LONG)
        assert InThread(until_waits, vm, "execute('query-status')").result()["caller"] is not None
    finally:
        go.set()
    asking.result()
    assert waits(vm) == []


def test_of_a_thread_that_does_nothing_else(make: MakeGuest) -> None:
    """Where it was started is not on its stack: Python's own lines are no caller."""
    vm = make().launch()
    with ThreadPoolExecutor(1) as pool:
        of_pool = pool.submit(vm.console.expect, "never", timeout=LONG)
        thread = threading.Thread(target=vm.wait, args=(LONG,), name="watch")
        thread.start()
        until(lambda: len(waits(vm)) == 2)
        shown = waits(vm)
        assert [wait["caller"] for wait in shown] == [None, None]
        assert "watch" in {wait["thread"] for wait in shown}
        vm.shutdown()
        thread.join()
        assert isinstance(of_pool.exception(), MachineDied)


def test_of_many_threads(bare: MakeMachine) -> None:
    vm = bare().launch()

    async def nothing() -> None:
        pass

    def call() -> None:
        for _ in range(50):
            vm.run(nothing(), timeout=LONG, operation="nothing")

    callers = [InThread(call) for _ in range(4)]
    while not all(caller.over for caller in callers):
        assert {wait["operation"] for wait in waits(vm)} <= {"nothing"}
    for caller in callers:
        caller.result()
    assert waits(vm) == []
    vm.shutdown()  # by `kill` QEMU may be gone before there is anything to wait for
    assert [operation for operation, _ in ended(vm) if operation != "nothing"] == ["launch", "shutdown"]


def test_an_onlooker_has_its_name_in_records(make: MakeGuest) -> None:
    """What it asks and waits for is told apart from what the test does, in any thread."""
    vm = running(make)
    with looking_on("me"):
        assert onlooker() == "me"
        vm.qmp.execute("query-name")
        with pytest.raises(MachineTimeout):
            vm.console.expect("never", timeout=0.01)
    assert onlooker() is None
    vm.qmp.execute("query-version")
    with pytest.raises(MachineTimeout):
        vm.console.expect("nor this", timeout=0.01)
    said = [
        (record.kind, record.data.get("by"))
        for record in vm.timeline
        if record.data.get("command") in {"query-name", "query-version"}
        or "expect('n" in str(record.data.get("operation"))
    ]
    kinds = ("qmp-command", "qmp-reply", "wait-begin", "wait")
    assert said == [*((kind, "me") for kind in kinds), *((kind, None) for kind in kinds)]
    assert vm.failure is not None
    assert "nor this" in vm.failure
