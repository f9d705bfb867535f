"""A real kernel that goes wrong; and its boot, with all that it says, which is no verdict."""

from pathlib import Path

import pytest

from tests.linux_guest import BOOT, Boot, Linux
from tests.waiting import until
from vmfsm import GuestPanicked, MachineTimeout, Reason, State

LOUD = "loglevel=8 ignore_loglevel"


def test_a_boot_and_a_crash(boot: Boot) -> None:
    """Without a device that would tell QEMU of it."""
    shell = boot(append=LOUD)
    vm = shell.vm
    assert "Linux version" in vm.console.text
    assert vm.verdicts.seen == ()
    with vm.verdicts.expected("kernel-oops", timeout=BOOT) as seen:
        shell.run("echo 'BU''G: kernel NULL pointer dereference, address: 0' >/dev/kmsg")
        shell.run("echo 'Oo''ps: 0002 [#1] PREEMPT SMP' >/dev/kmsg")
        with pytest.raises(MachineTimeout):
            vm.wait(0.01)
    assert len(seen.verdicts) == 1
    vm.console.sendline("echo c >/proc/sysrq-trigger")
    with pytest.raises(GuestPanicked) as caught:
        vm.console.expect("never", timeout=BOOT)
    verdict = caught.value.verdict
    assert verdict is not None
    assert verdict.kind == "kernel-panic"
    assert str(verdict.what["message"]).endswith("Kernel panic - not syncing: sysrq triggered crash")
    position = verdict.what["position"]
    assert isinstance(position, int)
    assert b"Kernel panic" in vm.console.data[position : position + 200]


def test_the_device_tells_of_it_too(boot: Boot, tmp_path: Path) -> None:
    """Of one panic there are two verdicts, by different ways; and the memory as it was."""
    options = {"verdicts": {"dump": tmp_path}}
    shell = boot("-device", "pvpanic", "-action", "panic=pause", modules=("pvpanic_mmio",), options=options)
    vm = shell.vm
    vm.console.sendline("echo c >/proc/sysrq-trigger")
    with pytest.raises(GuestPanicked) as caught:
        vm.wait(BOOT)
    assert caught.value.verdict is not None
    first = caught.value.verdict
    assert Path(str(first.what["dump"])).read_bytes()[:4] == b"\x7fELF"
    until(lambda: len(vm.verdicts.seen) == 2)
    assert {verdict.kind for verdict in vm.verdicts.seen} == {"kernel-panic", "guest-panicked"}
    assert first == vm.verdicts.seen[0]


def test_a_kernel_that_stays_after_its_panic_has_had_one(linux: Linux) -> None:
    vm = linux(append="rdinit=/bin/false panic=0")
    with vm.verdicts.expected("kernel-panic", timeout=BOOT):
        vm.launch()
    vm.console.expect("end Kernel panic - not syncing.*\n", timeout=BOOT)
    with pytest.raises(MachineTimeout):
        vm.wait(0.01)
    assert vm.verdicts.counts == {"kernel-panic": 1}


def test_init_is_killed_and_the_machine_fails(linux: Linux) -> None:
    vm = linux(append="rdinit=/bin/false", options={"verdicts": {"action": "fail"}})
    vm.launch()
    with pytest.raises(GuestPanicked) as caught:
        vm.console.expect("never", timeout=BOOT)
    assert caught.value.verdict is not None
    assert "Attempted to kill init!" in str(caught.value.verdict.what["message"])
    assert (vm.state, vm.reason) == (State.FAILED, Reason.GUEST_PANICKED)
