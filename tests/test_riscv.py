"""Nothing is tied to one architecture: RISC-V firmware on its console, the monitor, and the end."""

import shutil

import pytest

from tests.waiting import LIMIT
from vmfsm import Machine, Reason, State

QEMU = "qemu-system-riscv64"


@pytest.fixture
def riscv() -> str:
    if shutil.which(QEMU) is None:
        pytest.skip(f"{QEMU} is not in PATH (Debian: packages qemu-system-misc and opensbi)")
    return QEMU


def test_firmware_monitor_and_shutdown(riscv: str) -> None:
    with Machine(riscv, ["-nodefaults", "-machine", "virt"], name="riscv") as vm:
        vm.launch()
        vm.console.expect(r"OpenSBI v\d", timeout=LIMIT)
        platform = vm.console.expect(r"Platform Name\s*: (\S+)\s", timeout=LIMIT)
        assert platform.match[1] == "riscv-virtio,qemu"
        assert vm.qmp.execute("query-status")["status"] == "running"
        assert vm.qmp.execute("query-target")["arch"] == "riscv64"
        vm.shutdown()
        assert (vm.state, vm.reason, vm.exit_status) == (State.STOPPED, Reason.REQUESTED, 0)
