"""Resets are counted, and a guest that only resets is found out."""

import re
import time
from pathlib import Path

import pytest

from tests.plugins.monitors import MakeGuest, MakeMachine
from tests.waiting import InThread, until
from vmfsm import ConfigError, GuestPanicked, Machine, MachineTimeout, Reason, State, TransitionError
from vmfsm.testing import FakeQEMU
from vmfsm.testing import actions as do

TRIPLE_FAULT = b"\x0f\x01\x1e\x06\x7c\xcc" + bytes(504) + b"\x55\xaa"
"""A boot sector: `lidt 0x7c06`, where there is nothing but zeros, and `int3`."""


@pytest.fixture
def looping(tmp_path: Path) -> tuple[str, ...]:
    """Arguments for a guest that resets as soon as it has booted, for ever."""
    image = tmp_path / "loop.img"
    image.write_bytes(TRIPLE_FAULT)
    drive = f"file={image},format=raw,if=floppy,readonly=on"
    return ("-nodefaults", "-machine", "pc", "-m", "16", "-drive", drive)


def assert_boot_loop(error: GuestPanicked, vm: Machine, count: int, seconds: float) -> None:
    assert error.verdict is not None
    what = error.verdict.what
    assert error.verdict == ("boot-loop", "qmp", {"count": count, "seconds": seconds, **what})
    assert re.match(rf"{count} resets by the guest in [0-9.]+ s \(", str(what["message"]))
    assert str(error).startswith(f"{vm.name}: boot-loop (seen by qmp) during ")
    assert str(error).endswith(f": {what['message']}")
    assert [event["event"] for event in error.evidence.events].count("RESET") >= min(count, 8)
    assert error.state is State.RUNNING


def verdicts(vm: Machine) -> int:
    return [record.kind for record in vm.timeline].count("verdict")


def test_a_boot_loop_is_told_to_all_who_wait_and_once(
    monitored: MakeMachine, looping: tuple[str, ...]
) -> None:
    vm = monitored(args=looping, qmp={"boot_loop": (5, 60)})
    waiting = [InThread(vm.wait, 30), InThread(vm.qmp.wait_event, "DEVICE_DELETED")]
    for call in waiting:
        with pytest.raises(GuestPanicked) as caught:
            call.result()
        assert_boot_loop(caught.value, vm, 6, 60.0)
    before = vm.qmp.resets
    assert before >= 6
    until(lambda: vm.qmp.resets > before + 5)
    assert verdicts(vm) == 1, "it is the same loop"
    with pytest.raises(MachineTimeout):
        vm.wait(0.01)
    assert vm.qmp.execute("query-status")["status"] == vm.run_state == "running"
    vm.shutdown()
    assert (vm.state, vm.reason) == (State.STOPPED, Reason.REQUESTED)
    assert vm.qmp.resets > before, "it is kept until the next launch"


def test_who_waits_later_is_told_too(monitored: MakeMachine, looping: tuple[str, ...]) -> None:
    vm = monitored(args=looping, qmp={"boot_loop": (1, 60.0)})
    until(lambda: verdicts(vm))
    with pytest.raises(GuestPanicked):
        vm.qmp.wait_event("DEVICE_DELETED")
    assert vm.qmp.wait_event("RESET")["data"]["guest"] is True


def test_a_wait_for_the_resets_themselves(monitored: MakeMachine, looping: tuple[str, ...]) -> None:
    vm = monitored(args=looping, qmp={"boot_loop": (0, 60.0)})
    assert vm.qmp.wait_event("RESET")["data"] == {"guest": True, "reason": "guest-reset"}


def test_switched_off(monitored: MakeMachine, looping: tuple[str, ...]) -> None:
    vm = monitored(args=looping, qmp={"boot_loop": None})
    until(lambda: vm.qmp.resets > 12)
    assert verdicts(vm) == 0


@pytest.mark.parametrize("command", ["reboot", "triple"])
def test_resets_by_the_guest(monitored_guest: MakeGuest, command: str) -> None:
    vm, serial = monitored_guest(qmp={"boot_loop": (20, 60.0)})
    assert vm.qmp.resets == 0
    serial.command(command)
    serial.command("ping")  # when it is up again
    until(lambda: vm.qmp.resets >= 1)  # and some more: the firmware resets by itself then
    assert verdicts(vm) == 0
    vm.shutdown()
    vm.launch()
    assert vm.qmp.resets == 0


def test_resets_by_the_host_are_no_loop(monitored: MakeMachine) -> None:
    vm = monitored(qmp={"boot_loop": (0, 60.0)})
    for n in range(1, 21):
        vm.qmp.execute("system_reset")
        assert vm.qmp.wait_event("RESET")["data"]["reason"] == "host-qmp-system-reset"
        assert vm.qmp.resets == n
    assert verdicts(vm) == 0


def resetting(times: int) -> FakeQEMU:
    """One whose guest resets so often on `loop`, and once on `reset`."""
    guest = {"guest": True, "reason": "guest-reset"}
    on = {
        "loop": [do.emit("RESET", guest, times=times), do.reply()],
        "reset": [do.emit("RESET", guest), do.reply()],
    }
    return FakeQEMU(on=on)


@pytest.mark.parametrize("most", [0, 10**30])
def test_extreme_limits(monitored: MakeMachine, most: int) -> None:
    vm = monitored(fake=resetting(5), qmp={"boot_loop": (most, 3.0)})
    for n in (1, 2):
        vm.qmp.execute("loop")
        assert verdicts(vm) == (n if most == 0 else 0)
        time.sleep(3.01)  # as long as it takes that these do not count any more


def test_by_default(monitored: MakeMachine) -> None:
    vm = monitored(fake=resetting(50))
    vm.qmp.execute("loop")
    assert verdicts(vm) == 0, "it may be ten of a PC"
    vm.qmp.execute("reset")
    with pytest.raises(GuestPanicked) as caught:
        vm.wait(30)
    assert_boot_loop(caught.value, vm, 51, 600.0)


def test_another_loop_is_another_verdict(monitored: MakeMachine) -> None:
    vm = monitored(fake=resetting(10), qmp={"boot_loop": (4, 3.0)})
    for n in (1, 2):
        vm.qmp.execute("loop")
        assert verdicts(vm) == n
        time.sleep(3.01)  # as long as it takes that these do not count any more
        vm.qmp.execute("reset")
        assert verdicts(vm) == n
    assert vm.qmp.resets == 22


def test_resets_without_reboot(monitored: MakeMachine, looping: tuple[str, ...]) -> None:
    vm = monitored(args=(*looping, "-no-reboot"), qmp={"boot_loop": (0, 60.0)})
    assert vm.wait(30) == 0
    assert (vm.state, vm.reason, vm.qmp.resets) == (State.STOPPED, Reason.GUEST_SHUTDOWN, 0)


def test_before_the_first_launch(monitored: MakeMachine) -> None:
    with pytest.raises(TransitionError):
        _ = monitored(launch=False).qmp.resets
    with pytest.raises(ConfigError, match="enabled"):
        _ = monitored(qmp={"enabled": False}, launch=False).qmp.resets


@pytest.mark.parametrize(
    "limit",
    [
        *((), 5, "10", "ab", {"n": 1, "s": 2}, (10,), (10, 10, 10)),
        *((-1, 1), (True, 1), (1.5, 1)),
        *((1, 0), (1, -1), (1, "1"), (1, True), (1, float("inf")), (1, float("nan"))),
    ],
)
def test_what_is_no_boot_loop(qemu: str, limit: object) -> None:
    with pytest.raises(ConfigError) as caught:
        Machine(qemu, options={"qmp": {"boot_loop": limit}})
    assert caught.value.field == "options['qmp']['boot_loop']"
