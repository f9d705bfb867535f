"""What comes from a person or a pipe and goes to a guest, but for what the escape key leads in."""

import os
import select
import threading
from collections.abc import Callable

from .raw import is_of_another_job

ESCAPE = 0x1D
"""Ctrl-], as of telnet and virsh."""
_CHUNK = 4096
_LOOK = 200
"""Milliseconds between two looks at whether another job has given the terminal back."""


class EscapeKeys:
    """Tells what is for the guest from commands: the escape key, and the key after it."""

    def __init__(self) -> None:
        self._escaped = False

    def split(self, data: bytes) -> list[bytes | str]:
        """What is for the guest, as bytes, and commands, as the key of each; twice the key is the key."""
        parts: list[bytes | str] = []
        begin = 0
        for at, byte in enumerate(data):
            if self._escaped:
                self._escaped = False
                if byte != ESCAPE:
                    parts.append(chr(byte))
                    begin = at + 1
            elif byte == ESCAPE:
                parts.append(data[begin:at])
                begin = at + 1
                self._escaped = True
        parts.append(data[begin:])
        return [part for part in parts if part]


class Keyboard:
    """A thread that reads a file descriptor as it comes.

    :param got: called in that thread with what came; with `b""` at the end of the file.
    """

    def __init__(self, fd: int, got: Callable[[bytes], object]) -> None:
        self._fd = fd
        self._got = got
        self._wake, self._woken = os.pipe()
        self._thread = threading.Thread(target=self._run, name="vmfsm-keyboard", daemon=True)
        self._thread.start()

    def close(self, timeout: float | None = 5) -> None:
        """Read no more. What `got` does meanwhile is waited for, so long."""
        os.close(self._woken)
        self._thread.join(timeout)
        if not self._thread.is_alive():
            os.close(self._wake)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        away = select.poll()
        away.register(self._wake, select.POLLIN)
        while True:
            ready = dict(away.poll(_LOOK) if is_of_another_job(self._fd) else poll.poll())
            if self._wake in ready:
                return
            if self._fd not in ready or is_of_another_job(self._fd):
                continue
            try:
                data = os.read(self._fd, _CHUNK)
            except OSError:  # the terminal has gone away
                data = b""
            self._got(data)
            if not data:
                return
