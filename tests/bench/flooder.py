"""A process in QEMU's place that floods the console it inherits: `flooder.py BYTES LINE … fd=N …`.

It says `ready`, waits for a byte, and writes BYTES bytes in lines of LINE bytes (0: no newline at all), as
fast as they are taken. Then it ends.
"""

import re
import socket
import sys


def main() -> None:
    size, line = int(sys.argv[1]), int(sys.argv[2])
    fd = re.search(r"\bfd=(\d+)", " ".join(sys.argv[3:]))
    assert fd, sys.argv
    text = b"x" * (line - 1) + b"\n" if line else b"x"
    block = text * (256 * 1024 // len(text))
    with socket.socket(fileno=int(fd[1])) as console:
        console.sendall(b"ready\n")
        console.recv(1)
        for _ in range(size // len(block)):
            console.sendall(block)
        console.sendall(block[: size % len(block)])


if __name__ == "__main__":
    main()
