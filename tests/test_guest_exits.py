"""Guests that end their machine with a status of their own choosing, on several architectures."""

import contextlib
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.endings import TIMEOUT, assert_ended
from vmfsm import AbnormalExit, Machine, MachineDied, Reason, State
from vmfsm.testing import GUEST_ARGS

EXIT_EXTENDED = 0x20
"""Arm's "Semihosting for AArch32 and AArch64", SYS_EXIT_EXTENDED; RISC-V's is the same."""
APPLICATION_EXIT = 0x20026
"""The same, ADP_Stopped_ApplicationExit."""


def aarch64(status: int) -> bytes:
    code = struct.pack(
        "<4I",
        0x52800000 | EXIT_EXTENDED << 5,  # mov w0, SYS_EXIT_EXTENDED
        0x10000061,  # adr x1, 1f
        0xD45E0000,  # hlt 0xf000
        0x14000000,  # b .
    )
    return code + struct.pack("<2Q", APPLICATION_EXIT, status)  # 1:


def arm(status: int) -> bytes:
    code = struct.pack(
        "<4I",
        0xE3A00000 | EXIT_EXTENDED,  # mov r0, SYS_EXIT_EXTENDED
        0xE28F1004,  # add r1, pc, 4 (1f)
        0xEF123456,  # svc 0x123456
        0xEAFFFFFE,  # b .
    )
    return code + struct.pack("<2I", APPLICATION_EXIT, status)  # 1:


def riscv(status: int) -> bytes:
    code = struct.pack(
        "<8I",
        0x00000513 | EXIT_EXTENDED << 20,  # li a0, SYS_EXIT_EXTENDED
        0x00000597,  # auipc a1, 0
        0x01C58593,  # addi a1, a1, 28 (1f)
        0x01F01013,  # slli x0, x0, 0x1f
        0x00100073,  # ebreak
        0x40705013,  # srai x0, x0, 7
        0x0000006F,  # j .
        0,
    )
    return code + struct.pack("<2Q", APPLICATION_EXIT, status)  # 1:


def sifive_test(status: int) -> bytes:
    """Not semihosting but a device of RISC-V's `virt`, at 0x100000 (QEMU's `hw/misc/sifive_test.c`)."""
    pass_or_fail = status << 16 | 0x3333 if status else 0x5555
    return struct.pack(
        "<5I",
        0x00100537,  # lui a0, 0x100
        0x000005B7 | pass_or_fail & ~0xFFF,  # lui a1, …
        0x00058593 | (pass_or_fail & 0xFFF) << 20,  # addi a1, a1, …
        0x00B52023,  # sw a1, (a0)
        0x0000006F,  # j .
    )


class Kind(NamedTuple):
    qemu: str
    args: Sequence[str]
    loader: str
    payload: Callable[[int], bytes]


ARM = ("-machine", "virt", "-semihosting")
RISCV = ("-machine", "virt", "-bios", "none")
KINDS = {
    "aarch64": Kind(
        "qemu-system-aarch64", (*ARM, "-cpu", "cortex-a57"), "addr=0x40200000,cpu-num=0", aarch64
    ),
    "arm": Kind("qemu-system-arm", (*ARM, "-cpu", "cortex-a15"), "addr=0x40200000,cpu-num=0", arm),
    "riscv64": Kind("qemu-system-riscv64", (*RISCV, "-semihosting"), "addr=0x80000000", riscv),
    "sifive_test": Kind("qemu-system-riscv64", RISCV, "addr=0x80000000", sifive_test),
}

Begin = Callable[..., Machine]


@pytest.fixture(params=KINDS)
def begin(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Begin]:
    """Launches a machine whose guest ends it with a status at once, and lets it run."""
    kind = KINDS[request.param]
    if shutil.which(kind.qemu) is None:
        pytest.skip(f"{kind.qemu} is not in PATH (Debian: packages qemu-system-arm and qemu-system-misc)")
    machines = []

    def make(status: int, **parameters: Any) -> Machine:
        payload = tmp_path / "payload"
        payload.write_bytes(kind.payload(status))
        loader = f"loader,file={payload},{kind.loader}"
        # Not before the launch is over: it takes less time than that.
        args = ["-nodefaults", "-m", "64", *kind.args, "-device", loader, "-S"]
        vm = Machine(kind.qemu, args, **parameters)
        machines.append(vm)
        vm.launch()
        with contextlib.suppress(MachineDied):  # it may have ended before the reply came
            vm.qmp.execute("cont")
        return vm

    yield make
    for vm in machines:
        vm.kill()


def assert_ended_well(vm: Machine, status: int) -> None:
    """The reason is in QEMU's own words, where it has any: that depends on device and version."""
    said = [event["data"]["reason"] for event in vm.qmp.events() if event["event"] == "SHUTDOWN"]
    reason = Reason.GUEST_SHUTDOWN if said == ["guest-shutdown"] else Reason.QEMU_EXIT
    assert_ended(vm, State.STOPPED, reason, status)


def test_status_0(begin: Begin) -> None:
    vm = begin(0)
    assert vm.wait(TIMEOUT) == 0
    assert_ended_well(vm, 0)
    vm.shutdown()


def test_an_expected_status(begin: Begin) -> None:
    with begin(42, expected_exits=(0, 42)) as vm:
        assert vm.wait(TIMEOUT) == 42
    assert_ended_well(vm, 42)


def test_an_unexpected_status(begin: Begin) -> None:
    vm = begin(5)
    for _ in range(2):
        with pytest.raises(AbnormalExit, match="QEMU ended with status 5") as caught:
            vm.wait(TIMEOUT)
        assert (caught.value.exit_status, caught.value.reason) == (5, Reason.QEMU_EXIT)
    assert_ended(vm, State.FAILED, Reason.QEMU_EXIT, 5)
    vm.shutdown()  # this thread knows


def test_status_0_where_another_is_expected(begin: Begin) -> None:
    vm = begin(0, expected_exits=(3,))
    with pytest.raises(AbnormalExit, match="status 0"):
        vm.wait(TIMEOUT)
    assert_ended(vm, State.FAILED, Reason.QEMU_EXIT, 0)


def test_it_is_launched_again_with_another_status(begin: Begin) -> None:
    vm = begin(7, expected_exits=(7,))
    assert vm.wait(TIMEOUT) == 7
    vm.launch()
    with contextlib.suppress(MachineDied):
        vm.qmp.execute("cont")
    assert vm.wait(TIMEOUT) == 7
    assert_ended_well(vm, 7)


@pytest.mark.parametrize(
    ("number", "expected", "good"), [(0, (1,), True), (42, (0, 85), True), (42, (0, 42), False)]
)
def test_isa_debug_exit(qemu: str, number: int, expected: tuple[int, ...], good: bool) -> None:
    status = 2 * number + 1
    with Machine(qemu, GUEST_ARGS, expected_exits=expected) as vm:
        vm.launch()
        vm.console.expect("ready", timeout=TIMEOUT)
        vm.console.sendline(f"exit {number}")
        if good:
            assert vm.wait(TIMEOUT) == status
            assert_ended_well(vm, status)
        else:
            with pytest.raises(AbnormalExit, match=f"status {status}"):
                vm.wait(TIMEOUT)
            assert_ended(vm, State.FAILED, Reason.QEMU_EXIT, status)
