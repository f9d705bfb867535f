"""End to end: a real Linux with a shell on its serial console, from its first line to its power-off."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import LIMIT
from vmfsm import Machine, Reason, State

# What runs as process 1. Linux announces the power button to whoever has opened its input device, in records
# of 24 bytes; both drivers are modules in distributions' kernels.
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs devtmpfs /dev
for module in /*.ko; do insmod $module; done
button=$(grep -A 5 'Name="Power Button"' /proc/bus/input/devices | grep -o 'event[0-9]*')
exec 3</dev/input/$button
(dd bs=24 count=1 <&3 >/dev/null 2>&1 && echo "the button was pressed" && poweroff -f) &
echo "the shell is up"
exec setsid cttyhack sh
"""
MODULES = ("button.ko", "evdev.ko")
BOOT = 4 * LIMIT
"""Seconds that an emulated processor may take to boot Linux."""


@pytest.fixture(scope="session")
def kernel() -> Path:
    name = os.environ.get("VMFSM_TEST_KERNEL")
    if not name:
        pytest.skip("VMFSM_TEST_KERNEL names no Linux kernel (`make test` gets one)")
    kernel = Path(name).resolve()
    if not kernel.is_file():
        pytest.skip(f"VMFSM_TEST_KERNEL is no file: {name}")
    return kernel


@pytest.fixture(scope="session")
def initramfs(kernel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An initial file system: a static busybox, the modules, and an init."""
    busybox, cpio = shutil.which("busybox"), shutil.which("cpio")
    if busybox is None or cpio is None:
        pytest.skip("needs busybox (static) and cpio")
    if subprocess.run(["ldd", busybox], check=False, capture_output=True).returncode == 0:
        pytest.skip(f"{busybox} is not static (Debian: package busybox-static)")
    root = tmp_path_factory.mktemp("initramfs")
    for directory in ("bin", "dev", "proc"):
        (root / directory).mkdir()
    shutil.copy(busybox, root / "bin")
    (root / "init").write_text(INIT)
    (root / "init").chmod(0o755)
    for module in MODULES:
        for path in (kernel.parent.parent / "lib" / "modules").rglob(module):
            shutil.copy(path, root)
    image = root.with_suffix(".cpio")
    names = "\n".join(str(path.relative_to(root)) for path in (root, *root.rglob("*")))
    with image.open("wb") as archive:
        subprocess.run(
            [cpio, "--create", "--format=newc", "--quiet"],
            cwd=root,
            input=names.encode(),
            stdout=archive,
            check=True,
            timeout=LIMIT,
        )
    return image


@pytest.fixture
def linux(qemu: str, kernel: Path, initramfs: Path) -> Iterator[Machine]:
    """A machine with a Linux whose shell is up."""
    args = ["-nodefaults", "-machine", "pc", "-m", "256", "-kernel", str(kernel), "-initrd", str(initramfs)]
    append = "console=ttyS0 quiet panic=-1 vmfsm.test=yes"
    with Machine(qemu, [*args, "-append", append, "-no-reboot"], name="linux") as vm:
        vm.launch()
        vm.console.expect("the shell is up", timeout=BOOT)
        yield vm


def test_shell_monitor_and_power_off(linux: Machine) -> None:
    vm = linux
    vm.console.sendline("uname -a")
    assert "x86_64" in vm.console.expect(r"Linux \(none\) .*GNU/Linux", timeout=BOOT).match[0]
    vm.console.sendline("cat /proc/cmdline")
    vm.console.expect(r"console=ttyS0 quiet .* vmfsm\.test=yes\r?\n", timeout=BOOT)
    vm.console.sendline("echo $((6 * 7))")
    vm.console.expect(r"^42\r?$", timeout=BOOT)

    assert vm.qmp.execute("query-status")["status"] == "running"
    vm.qmp.execute("stop")
    assert vm.run_state == "paused"
    vm.qmp.execute("cont")

    here = vm.qmp.mark()
    vm.console.sendline("poweroff -f")
    event = vm.qmp.wait_event("SHUTDOWN", since=here, timeout=BOOT)
    assert event["data"] == {"guest": True, "reason": "guest-shutdown"}
    assert vm.wait(timeout=BOOT) == 0
    assert (vm.state, vm.reason) == (State.STOPPED, Reason.GUEST_SHUTDOWN)
    assert "Power down" in vm.console.text


def test_the_power_button(linux: Machine) -> None:
    vm = linux
    vm.shutdown(guest=True, timeout=BOOT)
    assert (vm.state, vm.reason, vm.exit_status) == (State.STOPPED, Reason.REQUESTED, 0)
    assert "the button was pressed" in vm.console.text
    ways = [record.data["way"] for record in vm.timeline if record.kind == "stop"]
    assert ways == ["qmp (the guest)"], "the guest went by itself"
