"""A guest that boots at once and ends, breaks or wedges its machine on command.

    with Machine("qemu-system-x86_64", GUEST_ARGS) as vm:
        vm.launch()
        vm.console.expect("ready")
        vm.console.sendline("poweroff")
        vm.wait(timeout=10)

It takes its commands on the first serial port, and echoes each line as `echo: LINE`. `GUEST_ARGS` has no such
port: that is up to the console.

    ping        answers `pong`
    poweroff    powers off (ACPI)
    exit N      ends QEMU with status 2 * N + 1 (N: 0 to 127)
    reboot      resets, through the keyboard controller
    triple      resets, through a triple fault
    panic       reports a panic to the pvpanic device, and goes on
    hang        halts with interrupts off: alive, and deaf to everything but a reset
    flood       prints numbered lines for ever, as fast as it can
"""

from pathlib import Path
from typing import Final

from . import actions
from .fake_qemu import FakeQEMU
from .leaks import Leak, leakcheck

__all__ = ["GUEST", "GUEST_ARGS", "FakeQEMU", "Leak", "actions", "leakcheck"]

GUEST: Final = Path(__file__).with_name("guest.bin")

# A floppy, as it can be read-only without a temporary overlay: any number of machines share the image.
# With nothing else to probe, the BIOS gets there in a tenth of a second.
GUEST_ARGS: Final = (
    "-nodefaults",
    *("-machine", "pc"),
    *("-m", "16"),
    *("-drive", f"file={str(GUEST).replace(',', ',,')},format=raw,if=floppy,readonly=on"),
    *("-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"),
    *("-device", "pvpanic"),
)
