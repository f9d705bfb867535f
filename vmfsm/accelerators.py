"""Whether an accelerator works: a guest of some instructions is run under it, to its end.

That there is a `/dev/kvm` says little: it may be closed to us, and inside of virtual machines there are
some that open, start a guest and never get it anywhere.
"""

import os
import signal
from collections.abc import Collection
from typing import NamedTuple

from .asking import Asking, Ran
from .deadline import Deadline
from .errors import LaunchError, MachineDied, MachineTimeout, printable
from .hooks import hookimpl
from .machine import Machine
from .plan import LaunchPlan, escape
from .reports import describe_exit, own_words

LIMIT = 10.0
"""Seconds that the guest has; they are scaled like every timeout."""
PROCESSOR_TIME = 2
"""Seconds of processor time that QEMU has with it. Does not depend on how busy the machine is."""

PREFERENCE = ("kvm", "hvf", "nvmm", "whpx", "mshv", "xen", "hax")
"""Best first; then those that nobody has heard of here, and the slowest."""
LAST = "tcg"
NO_ACCELERATOR = "qtest"
"""Runs no guest: QEMU's own tests use it."""

_HEADING = "Accelerators supported in QEMU binary:"

# What goes before QEMU: limits for it, and no core file for reaching them. It waits for QEMU, so that one
# that dies of a limit, as is expected here, is nothing to warn of: it is a status.
_LIMITED = ("/bin/sh", "-c", f'ulimit -S -c 0; ulimit -S -t {PROCESSOR_TIME}; "$@"; exit $?', "sh")
_LIMIT_REACHED = {-signal.SIGXCPU, 128 + signal.SIGXCPU}  # where the binary is a script, either
_MACHINE = ("-nodefaults", "-no-user-config", "-no-reboot", "-S")


class Guest(NamedTuple):
    """Instructions, how they are to be started, and the exit status that they end QEMU with."""

    image: bytes
    args: tuple[str, ...]
    """`FILE` in them stands for the file with the image."""
    status: int


FILE = "@FILE@"


def _code(*words: int) -> bytes:
    return b"".join(word.to_bytes(4, "little") for word in words)


# They count down from 2 ** 20 first, to show that the accelerator keeps going.

# Arm's "Power State Coordination Interface", SYSTEM_OFF by HVC (QEMU documentation, "'virt' generic virtual
# platform"). The first MiB of RAM is the device tree's.
_ARM = ("-M", "virt", "-cpu", "max", "-device", f"loader,file={FILE},addr=0x40200000,cpu-num=0")
_AARCH64_CODE = _code(
    0xD2A00201,  # mov   x1, #0x100000
    0xF1000421,  # subs  x1, x1, #1
    0x54FFFFE1,  # b.ne  . - 4
    0x52800100,  # mov   w0, #0x0008
    0x72B08000,  # movk  w0, #0x8400, lsl 16
    0xD4000002,  # hvc   #0
    0x14000000,  # b     .
)
_ARM_CODE = _code(
    0xE3A01601,  # mov   r1, #0x100000
    0xE2511001,  # subs  r1, r1, #1
    0x1AFFFFFD,  # bne   . - 4
    0xE59F0004,  # ldr   r0, [pc, #4]
    0xE1400070,  # hvc   #0
    0xEAFFFFFE,  # b     .
    0x84000008,
)
# The test device of the "virt" machine (QEMU, hw/misc/sifive_test): "fail" with status 42.
_RISCV = ("-M", "virt", "-bios", "none", "-kernel", FILE)
_RISCV_CODE = _code(
    0x001002B7,  # lui   t0, 0x100
    0x00100337,  # lui   t1, 0x100
    0xFFF30313,  # addi  t1, t1, -1
    0xFE031EE3,  # bnez  t1, . - 4
    0x002A33B7,  # lui   t2, 0x2a3
    0x33338393,  # addi  t2, t2, 0x333
    0x0072A023,  # sw    t2, 0(t0)
    0x0000006F,  # j     .
)
_GUESTS = {
    "aarch64": Guest(_AARCH64_CODE, _ARM, 0),
    "arm": Guest(_ARM_CODE, _ARM, 0),
    "riscv32": Guest(_RISCV_CODE, _RISCV, 42),
    "riscv64": Guest(_RISCV_CODE, _RISCV, 42),
}
_X86_MACHINES = ("pc", "q35", "isapc", "microvm")


def guest_for(target: str, machines: Collection[str], has_debug_exit: bool) -> Guest | None:
    """The guest for a QEMU of this target, if there is one that its machine types can run."""
    if target in {"i386", "x86_64"}:
        machine = next((name for name in _X86_MACHINES if name in machines), None)
        if machine is None:
            return None
        with open(os.path.join(os.path.dirname(__file__), "boot", "x86.bin"), "rb") as file:
            code = file.read()
        args = ("-M", machine, "-m", "2", "-bios", FILE)
        if has_debug_exit:  # see boot/x86.S
            return Guest(code.rjust(0x10000, b"\0"), (*args, "-device", "isa-debug-exit,iobase=0xf4"), 85)
        return Guest(code.rjust(0x10000, b"\0"), args, 0)
    return _GUESTS.get(target) if "virt" in machines else None


def compiled_in(asking: Asking) -> tuple[str, ...]:
    """The accelerators that a QEMU was built with, best first.

    :raises LaunchError: when it is no QEMU.
    """
    ran = asking.run("accelerators", ("-accel", "help"))
    names = ran.output.partition(_HEADING)[2]
    if not names or ran.status != 0:
        raise _no_qemu(asking.binary, ran)
    found = [name for name in names.split() if name != NO_ACCELERATOR]
    return tuple(sorted(found, key=_rank))


def _rank(name: str) -> int:
    order = (*PREFERENCE, name, LAST)  # those that nobody knows come after those that are known
    return len(order) if name == LAST else order.index(name)


def _no_qemu(binary: str, ran: Ran) -> LaunchError:
    words = printable(own_words(ran.output, (binary, "")))
    said = f"said {words!r}" if words else "said nothing"
    error = LaunchError(
        f"it is no QEMU, or a broken one: to `-accel help` it {said} (it {describe_exit(ran.status)})"
    )
    error.output, error.exit_status = ran.output, ran.status
    error.command = (binary, "-accel", "help")
    return error


class _Image:
    """Puts the image into the machine's private directory, and its name into the arguments."""

    name = "image"

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    @hookimpl
    def pre_launch(self, plan: LaunchPlan) -> None:
        path = os.path.join(plan.directory, "image")
        with open(path, "wb") as file:
            file.write(self._guest.image)
        plan.args += [arg.replace(FILE, escape(path)) for arg in self._guest.args]


def refusal(asking: Asking, accelerator: str, guest: Guest | None) -> str | None:
    """Why the accelerator does not work; `None` where it does.

    Where there is no guest for the target it does if QEMU comes up with it, without a processor.

    :raises VMError: when the asking was cancelled or its deadline is over.
    """
    limit = Deadline(asking.deadline.as_timeout(LIMIT), asking.deadline.clock)
    given = [] if guest is None else [_Image(guest)]
    args = (*_MACHINE, "-accel", accelerator, *(("-M", "none") if guest is None else ()))
    try:
        with asking.monitored(f"probe-{accelerator}", args, limit, given=given, wrapper=_LIMITED) as machine:
            why = _outcome(machine, guest, limit)
    except LaunchError as error:
        if error.exit_status is None:
            raise  # there was no process
        why = printable(own_words(error.output, error.command)) or str(error)
        if error.exit_status in _LIMIT_REACHED:
            why = f"QEMU does not come up with it in {PROCESSOR_TIME} s of processor time"
        elif isinstance(error.__cause__, MachineTimeout):
            why = f"QEMU does not come up with it in {limit.timeout:g} s"
    if why is not None:
        asking.check()
    return why


def _outcome(machine: Machine, guest: Guest | None, limit: Deadline) -> str | None:
    try:
        machine.qmp.execute("cont", timeout=limit.as_timeout())
        if guest is None:
            status = machine.qmp.execute("query-status", timeout=limit.as_timeout())["status"]
            return None if status == "running" else f"its machine is {status}"
        machine.qmp.wait_event("STOP", timeout=limit.as_timeout())
        words = printable(own_words(machine.log.text, machine.command))
        return f"its guest was stopped ({machine.run_state}): {words}"
    except MachineTimeout:
        return f"its guest gets nowhere in {limit.timeout:g} s"
    except MachineDied:
        if guest is not None and machine.exit_status == guest.status:
            return None
        if machine.exit_status in _LIMIT_REACHED:
            return f"its guest gets nowhere in {PROCESSOR_TIME} s of processor time"
        how = f"QEMU {describe_exit(machine.exit_status)}"
        words = printable(own_words(machine.log.text, machine.command))
        return f"its guest did not come to its own end, {how}: {words}"
