"""What was measured of `QEMUMachine` of QEMU's source tree, done to a `Machine`.

`docs/faults.md` has all of it as a table, with the tests that are elsewhere. No clock is asserted but that of
the time that was asked for: a call that ends for the right reason, with a deadline far off, has not waited.
"""

import re
import signal
import threading
from pathlib import Path

import pytest

from tests.endings import MakeGuest, assert_ended, send, stop_process, until_guest_is_up
from tests.waiting import InThread, until
from vmfsm import (
    AbnormalExit,
    LaunchError,
    Machine,
    MachineDied,
    MachineTimeout,
    Reason,
    State,
    Transition,
    hookimpl,
)

FAR = 600.0
"""A deadline that no test gets to."""


def test_a_qemu_that_dies_at_launch_with_a_monitor_at_a_path(guest: MakeGuest, tmp_path: Path) -> None:
    """8.01 s of 8 there: it waits for a connection that nobody will make. Here its end is what counts."""
    options = {"qmp": {"address": tmp_path / "monitor", "negotiate_timeout": FAR}}
    vm = guest(more=["-no-such-option"], options=options)
    with pytest.raises(LaunchError, match="no-such-option") as caught:
        vm.launch(timeout=FAR)
    assert not isinstance(caught.value.__cause__, MachineTimeout)
    assert caught.value.exit_status == 1
    assert "no-such-option" in caught.value.output
    assert_ended(vm, State.FAILED, Reason.LAUNCH_ERROR, 1)
    assert not (tmp_path / "monitor").exists()


def test_a_wait_for_an_event_while_other_events_arrive(guest: MakeGuest) -> None:
    """Still waiting after 8 s of 1 there, as each event begins the time anew; one deadline for all here."""
    vm = guest().launch()
    over = threading.Event()
    arrived: list[str] = []
    unsubscribe = vm.qmp.subscribe(lambda event: arrived.append(event["event"]))

    def make_events() -> None:
        while not over.is_set():
            vm.qmp.execute("stop")
            vm.qmp.execute("cont")

    making = InThread(make_events)
    try:
        with pytest.raises(MachineTimeout) as caught:
            InThread(vm.qmp.wait_event, "DEVICE_DELETED", timeout=1.0).result()
        assert "DEVICE_DELETED" in (caught.value.operation or "")
        assert caught.value.timeout == 1.0
        seen = len(arrived)
        assert seen > 2
        until(lambda: len(arrived) > seen)
    finally:
        over.set()
        making.result()
        unsubscribe()
    vm.shutdown()


def test_a_crash_while_an_event_is_waited_for(guest: MakeGuest) -> None:
    """10.01 s of 10, and then a `TimeoutError`, there; `shutdown` then raised what an `EOFError` led to."""
    vm = guest().launch()
    until_guest_is_up(vm)
    waiting = InThread(vm.qmp.wait_event, "DEVICE_DELETED", timeout=FAR)
    send(vm.pid, signal.SIGSEGV)
    with pytest.raises(MachineDied, match="SIGSEGV") as died:
        waiting.result()
    assert (died.value.exit_status, died.value.reason) == (-signal.SIGSEGV, Reason.QEMU_SIGNAL)
    assert died.value.state is State.FAILED
    assert "ready" in died.value.evidence.console
    with pytest.raises(AbnormalExit, match="SIGSEGV") as caught:
        vm.shutdown()
    assert (caught.value.exit_status, caught.value.reason) == (-signal.SIGSEGV, Reason.QEMU_SIGNAL)
    assert_ended(vm, State.FAILED, Reason.QEMU_SIGNAL, -signal.SIGSEGV)


class Watcher:
    """A plugin that notes what it is told of."""

    name = "watcher"

    def __init__(self) -> None:
        self.reasons: list[Reason | None] = []
        self.told = threading.Event()

    @hookimpl
    def state_changed(self, transition: Transition) -> None:
        if transition.dest is State.FAILED:
            self.reasons.append(transition.reason)
            self.told.set()


def test_a_death_while_nobody_calls(qemu: str) -> None:
    """Not noticed there, until the next call. Here observers are told, and all is cleaned up."""
    watcher = Watcher()
    vm = Machine(qemu, ["-M", "none", "-nodefaults"], plugins=[watcher]).launch()
    send(vm.pid, signal.SIGKILL)
    assert watcher.told.wait(30)
    assert watcher.reasons == [Reason.QEMU_SIGNAL]
    assert_ended(vm, State.FAILED, Reason.QEMU_SIGNAL, -signal.SIGKILL)


def test_a_command_to_a_qemu_that_is_stopped(guest: MakeGuest) -> None:
    """Without bound there. Here it is the call's own time that counts, and the machine is as it was."""
    vm = guest().launch()
    pid = vm.pid
    stop_process(pid)
    with pytest.raises(MachineTimeout, match="query-status") as caught:
        InThread(vm.qmp.execute, "query-status", timeout=0.2).result()
    assert caught.value.timeout == 0.2
    assert vm.state is State.RUNNING
    send(pid, signal.SIGCONT)
    assert vm.qmp.execute("query-status")["status"] == "running"
    vm.shutdown()
    assert_ended(vm, State.STOPPED, Reason.REQUESTED, 0)


def test_a_shutdown_of_a_qemu_that_is_stopped(guest: MakeGuest) -> None:
    """Still blocked after 20 s of 3 there: `quit` has no bound, so SIGKILL is never come to."""
    vm = guest().launch()
    stop_process(vm.pid)
    with pytest.raises(AbnormalExit, match="SIGKILL") as caught:
        InThread(vm.shutdown, timeout=1).result()
    assert (caught.value.exit_status, caught.value.reason) == (-signal.SIGKILL, Reason.WEDGED)
    assert_ended(vm, State.FAILED, Reason.WEDGED, -signal.SIGKILL)


def flooder(directory: Path) -> Path:
    """A boot sector that writes to the debug console, port 0xe9, for ever."""
    image = directory / "flooder"
    code = bytes.fromhex("b078 e6e9 ebfa".replace(" ", ""))  # mov $'x', %al; 1: out %al, $0xe9; jmp start
    image.write_bytes(code.ljust(510, b"\0") + b"\x55\xaa" + bytes(1440 * 1024 - 512))
    return image


def test_a_flood_on_a_console_that_nobody_touches(qemu: str, tmp_path: Path) -> None:
    """`query-status` blocked for more than 6 s there, as nobody read; and there was no log file either."""
    args = ["-nodefaults", "-m", "16", "-drive", f"file={flooder(tmp_path)},format=raw,if=floppy,readonly=on"]
    log = tmp_path / "console.log"
    with Machine(qemu, args, options={"console": {"device": "isa-debugcon", "log": log}}) as vm:
        vm.launch()
        until(lambda: log.stat().st_size > 200_000)
        for _ in range(20):
            assert vm.qmp.execute("query-status")["status"] == "running"
    assert_ended(vm, State.STOPPED, Reason.REQUESTED, 0)
    assert re.search("x{1000}", log.read_text())


def test_a_thread_waits_for_one_machine_and_another_one_is_used(guest: MakeGuest) -> None:
    """A `RuntimeError` there, "This event loop is already running": all machines share one loop."""
    one, other = guest().launch(), guest().launch()
    waiting = InThread(one.qmp.wait_event, "STOP", timeout=FAR)
    for _ in range(20):
        assert other.qmp.execute("query-status")["status"] == "running"
    assert not waiting.over
    other.shutdown()
    one.qmp.execute("stop")
    assert waiting.result()["event"] == "STOP"
    one.shutdown()
