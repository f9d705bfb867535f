"""The least that running QEMU can cost from Python: subprocess, socket, json, poll, and nothing else."""

import json
import os
import select
import socket
import subprocess
from typing import Any, Self

QEMU = "qemu-system-x86_64"
NO_MACHINE = ("-M", "none", "-nodefaults")
"""Arguments for the QEMU that has the least to do."""


class BareQEMU:
    """A QEMU with a monitor on a socket pair."""

    def __init__(self) -> None:
        self.monitor, theirs = socket.socketpair()
        with theirs:
            chardev = f"socket,id=monitor,fd={theirs.fileno()}"
            self.process = subprocess.Popen(
                [QEMU, *NO_MACHINE, "-display", "none", "-chardev", chardev, "-mon", "monitor,mode=control"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self.pidfd = os.pidfd_open(self.process.pid)
        self._lines = self.monitor.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._lines.close()
        self.monitor.close()
        os.close(self.pidfd)

    def negotiate(self) -> None:
        """Read the greeting and make the monitor ready for commands."""
        assert "QMP" in json.loads(self._lines.readline())
        self.execute("qmp_capabilities")

    def execute(self, command: str) -> dict[str, Any]:
        self.monitor.sendall(json.dumps({"execute": command}).encode())
        while True:
            said: dict[str, Any] = json.loads(self._lines.readline())
            if "event" not in said:
                return said

    def quit(self) -> None:
        """Ask it to end, and reap it."""
        self.monitor.sendall(b'{"execute": "quit"}')
        self.await_end()
        self.process.wait()

    def await_end(self) -> None:
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        poll.poll()
