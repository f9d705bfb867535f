"""QEMU's run state beside the lifecycle: it follows, and the machine ends well from each."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.endings import TIMEOUT, MakeGuest, assert_ended, guests, until_guest_is_up
from tests.waiting import until
from vmfsm import Machine, MachineTimeout, Reason, State

HALT = "f4 eb fd"
SLEEP = "ba 04 06  b8 00 24  ef" + HALT
"""ACPI S3, by PM1a_CNT of a `pc` under SeaBIOS."""
WATCHDOG = "ba 43 04  b0 0f  ee" + HALT
"""Arm the ib700 watchdog with no time left."""


@pytest.fixture
def guest(qemu: str) -> Iterator[MakeGuest]:
    """Makes machines with the tiny guest."""
    with guests(qemu) as make:
        yield make


Boot = Callable[..., Machine]


@pytest.fixture
def boot(qemu: str, tmp_path: Path) -> Iterator[Boot]:
    """Launches a machine whose boot sector is this code, with more arguments for QEMU."""
    machines = []

    def make(code: str, *args: str) -> Machine:
        image = tmp_path / "boot.img"
        image.write_bytes(bytes.fromhex(code).ljust(510, b"\0") + b"\x55\xaa")
        drive = f"file={image},format=raw,if=floppy,readonly=on"
        bare = ("-nodefaults", "-machine", "pc", "-m", "16", "-drive", drive)
        machines.append(Machine(qemu, [*bare, *args]))
        return machines[-1].launch()

    yield make
    for vm in machines:
        vm.kill()


def assert_is(vm: Machine, state: str) -> None:
    """It is this run state, here and in QEMU, and the machine runs."""
    assert vm.run_state == state
    assert vm.qmp.execute("query-status")["status"] == state
    assert (vm.state, vm.reason) == (State.RUNNING, None)


def assert_ends_well(vm: Machine) -> None:
    vm.shutdown()
    assert vm.run_state is None
    assert_ended(vm, State.STOPPED, Reason.REQUESTED, 0)
    assert [record.data["way"] for record in vm.timeline if record.kind == "stop"] == ["qmp"]


def test_started_paused(guest: MakeGuest) -> None:
    vm = guest(more=["-S"]).launch()
    assert_is(vm, "prelaunch")
    assert vm.console.text == ""
    vm.qmp.execute("stop")
    assert_is(vm, "prelaunch")
    vm.qmp.execute("cont")
    assert_is(vm, "running")
    until_guest_is_up(vm)
    assert_ends_well(vm)


@pytest.mark.parametrize("more", [(), ("-S",), ("-incoming", "defer")])
def test_it_ends_well_before_it_has_begun(guest: MakeGuest, more: tuple[str, ...]) -> None:
    vm = guest(more=more).launch()
    assert_ends_well(vm)


def test_stopped_and_continued(guest: MakeGuest) -> None:
    vm = guest().launch()
    until_guest_is_up(vm)
    for _ in range(3):
        vm.qmp.execute("stop")
        assert_is(vm, "paused")
        vm.qmp.execute("cont")
        assert_is(vm, "running")
    vm.qmp.execute("stop")
    with pytest.raises(MachineTimeout):
        vm.wait(0.01)
    assert_ends_well(vm)


def test_a_guest_that_powered_off_and_is_kept(guest: MakeGuest) -> None:
    vm = guest(more=["-no-shutdown"]).launch()
    until_guest_is_up(vm)
    vm.console.sendline("poweroff")
    assert vm.qmp.wait_event("SHUTDOWN")["data"] == {"guest": True, "reason": "guest-shutdown"}
    vm.qmp.wait_event("STOP")
    assert_is(vm, "shutdown")
    with pytest.raises(MachineTimeout):
        vm.wait(0.01)
    vm.qmp.execute("system_reset")
    vm.qmp.wait_event("RESET")
    assert_is(vm, "prelaunch")
    vm.qmp.execute("cont")
    until_guest_is_up(vm)
    vm.console.sendline("poweroff")
    vm.qmp.wait_event("STOP")
    assert_ends_well(vm)


def test_a_reset_after_a_panic(guest: MakeGuest) -> None:
    vm = guest(more=["-action", "panic=pause"]).launch()
    until_guest_is_up(vm)
    vm.console.sendline("panic")
    vm.qmp.wait_event("GUEST_PANICKED")
    until(lambda: vm.qmp.execute("query-status")["status"] == "guest-panicked")
    assert_is(vm, "guest-panicked")
    vm.qmp.execute("system_reset")
    vm.qmp.wait_event("RESET")
    assert_is(vm, "prelaunch")
    vm.qmp.execute("cont")
    assert_is(vm, "running")
    assert_ends_well(vm)


def test_waiting_for_a_state_from_elsewhere(guest: MakeGuest) -> None:
    vm = guest(more=["-incoming", "defer"]).launch()
    assert_is(vm, "inmigrate")
    for command in ("stop", "cont"):
        vm.qmp.execute(command)
        assert_is(vm, "inmigrate")
    assert_ends_well(vm)


def test_a_state_that_was_sent_away_and_comes_back(guest: MakeGuest, tmp_path: Path) -> None:
    file = tmp_path / "state"
    source = guest().launch()
    until_guest_is_up(source)
    source.console.sendline("ping")
    source.console.expect("pong")
    source.qmp.execute("migrate", uri=f"exec:cat >{file}")
    until(lambda: source.run_state == "postmigrate")
    assert_is(source, "postmigrate")
    source.qmp.execute("system_reset")
    source.qmp.wait_event("RESET")
    assert_is(source, "prelaunch")
    assert_ends_well(source)

    target = guest(more=["-incoming", "defer"]).launch()
    target.qmp.execute("migrate-incoming", uri=f"exec:cat {file}")
    until(lambda: target.run_state == "running")
    assert_is(target, "running")
    target.console.sendline("ping")
    target.console.expect("pong")
    assert_ends_well(target)


def test_a_paused_state_that_was_sent_away(guest: MakeGuest, tmp_path: Path) -> None:
    vm = guest().launch()
    events = [{"capability": "events", "state": True}]
    vm.qmp.execute("migrate-set-capabilities", capabilities=events)
    vm.qmp.execute("stop")
    vm.qmp.execute("migrate", uri=f"exec:cat >{tmp_path}/state")
    vm.qmp.wait_event("MIGRATION", match={"data": {"status": "completed"}})
    assert vm.run_state == "postmigrate"
    until(lambda: vm.qmp.execute("query-status")["status"] == "postmigrate")
    vm.qmp.execute("cont")
    assert_is(vm, "running")
    assert_ends_well(vm)


def test_a_guest_that_sleeps(boot: Boot) -> None:
    vm = boot(SLEEP)
    vm.qmp.wait_event("SUSPEND")
    assert_is(vm, "suspended")
    vm.qmp.execute("stop")
    vm.qmp.execute("query-status")
    stopped = "paused" if vm.qmp.version >= (9, 0, 0) else "suspended"
    assert_is(vm, stopped)
    vm.qmp.execute("cont")
    assert vm.run_state == "suspended", "also while QEMU is not asked"
    assert_is(vm, "suspended")
    mark = vm.qmp.mark()
    vm.qmp.execute("system_wakeup")
    vm.qmp.wait_event("WAKEUP", since=mark)
    vm.qmp.wait_event("SUSPEND", since=mark)  # woken, its firmware resets it, and it sleeps again
    assert_is(vm, "suspended")
    assert_ends_well(vm)


def test_a_watchdog(boot: Boot) -> None:
    vm = boot(WATCHDOG, "-device", "ib700", "-action", "watchdog=pause")
    assert vm.qmp.wait_event("WATCHDOG")["data"] == {"action": "pause"}
    until(lambda: vm.run_state == "watchdog")  # a wait for STOP might be told of the verdict
    assert_is(vm, "watchdog")
    vm.qmp.execute("cont")
    assert_is(vm, "running")
    assert_ends_well(vm)


def test_a_disk_that_fails(boot: Boot, tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    image = f"image.driver=raw,image.file.driver=file,image.file.filename={disk}"
    error = "inject-error.0.event=none,inject-error.0.iotype=read,inject-error.0.errno=5"
    drive = f"if=none,id=disk,driver=blkdebug,{image},{error},rerror=stop"
    vm = boot(HALT, "-drive", drive, "-device", "virtio-blk,drive=disk,bootindex=0")
    assert vm.qmp.wait_event("BLOCK_IO_ERROR")["data"]["action"] == "stop"
    vm.qmp.wait_event("STOP")
    assert_is(vm, "io-error")
    assert_ends_well(vm)


def test_reset_by_the_host(guest: MakeGuest) -> None:
    vm = guest().launch()
    for resets in (1, 2):
        until_guest_is_up(vm)
        before = vm.qmp.resets
        mark = vm.qmp.mark()
        vm.qmp.execute("system_reset")
        vm.qmp.wait_event("RESET", since=mark)
        assert vm.qmp.resets > before >= resets - 1
        assert_is(vm, "running")
    until_guest_is_up(vm)
    assert [transition.dest for transition in vm.history] == [State.LAUNCHING, State.RUNNING]
    assert_ends_well(vm)


@pytest.mark.usefixtures("guests_have_little_time")
def test_a_guest_that_ignores_the_power_button(guest: MakeGuest) -> None:
    vm = guest().launch()
    until_guest_is_up(vm)
    began = time.monotonic()
    vm.shutdown(guest=True, timeout=20)
    assert time.monotonic() - began > 0.5, "it was given time, and the ladder went on within the deadline"
    assert_ended(vm, State.STOPPED, Reason.REQUESTED, 0)
    ways = [record.data["way"] for record in vm.timeline if record.kind == "stop"]
    assert ways == ["qmp (the guest)", "qmp"]


def commands(vm: Machine) -> list[object]:
    return [record.data["command"] for record in vm.timeline if record.kind == "qmp-reply"]


def test_a_guest_that_does_not_run_is_not_asked(guest: MakeGuest) -> None:
    vm = guest().launch()
    until_guest_is_up(vm)
    vm.qmp.execute("stop")
    vm.shutdown(guest=True, timeout=None)
    assert_ended(vm, State.STOPPED, Reason.REQUESTED, 0)
    assert commands(vm)[-2:] == ["stop", "quit"]


@pytest.mark.usefixtures("guests_have_little_time")
def test_the_power_button_with_the_monitor_lost(guest: MakeGuest) -> None:
    vm = guest().launch()
    until_guest_is_up(vm)
    vm.run(vm.qmp.client.disconnect(), timeout=TIMEOUT, operation="disconnect")
    vm.shutdown(guest=True, timeout=20)
    assert_ended(vm, State.STOPPED, Reason.REQUESTED, 0)
    assert commands(vm)[-2:] == ["system_powerdown", "quit"]
