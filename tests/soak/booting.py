"""A process in QEMU's place whose guest boots for ever: `booting.py BYTES … fd=N …`.

It says `ready`, waits for a byte, and writes BYTES bytes of a kernel's lines, as fast as they are taken. Some
have much of what a kernel says when it dies. At the end it does die, and so does the process.
"""

import re
import socket
import sys

READY = b"ready\n"
PANIC = b"[ 9999.999999] Kernel panic - not syncing: that was all\n"

_ORDINARY = (
    b"[    0.000000] Command line: console=ttyS0 panic=-1 oops=panic\r\n",
    b"[    0.412345] smpboot: CPU0: Intel Core Processor (family: 0x6, model: 0x55, stepping: 0x4)\r\n",
    b"[    0.512345] pci 0000:00:01.1: legacy IDE quirk: reg 0x10: [io  0x01f0-0x01f7]\r\n",
    b"[    0.912345] ata1.00: ATA-7: QEMU HARDDISK, 2.5+, max UDMA/100\r\n",
    b"\r\n",
)
_ALMOST = (
    b"[    1.012345] INFO: task cleaner:23 was blocked for more than one second\r\n",
    b"[    1.112345] UBSAN: enabled; BUG: none; Oops: none; Internal error: none\r\n",
    b"[    1.212345] \x1b[31mrcu: INFO: self-test passed, no stalls detected so far\x1b[0m\r\n",
    b"[    1.312345] Kernel panic handlers: watchdog, dump; not now\r\n",
)


def main() -> None:
    size = int(sys.argv[1])
    fd = re.search(r"\bfd=(\d+)", " ".join(sys.argv[2:]))
    assert fd, sys.argv
    text = b"".join(100 * _ORDINARY + _ALMOST)
    block = text * (256 * 1024 // len(text))
    with socket.socket(fileno=int(fd[1])) as console:
        console.sendall(READY)
        console.recv(1)
        for _ in range(size // len(block)):
            console.sendall(block)
        console.sendall(block[: size % len(block)] + b"\r\n" + PANIC)


if __name__ == "__main__":
    main()
