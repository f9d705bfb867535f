"""One connection to QEMU's qtest server, on the I/O thread.

A command is a line and so is its reply, in order and without numbers; lines that begin with `IRQ` come in
between (QEMU source, `system/qtest.c`, "QTest Protocol").
"""

import asyncio
import collections
import contextlib
import socket
from collections.abc import Callable

from vmfsm_plugins.console.sender import Sender
from vmfsm_plugins.streams.drain import Drain


class Link:
    """Knows which reply belongs to which command, whether or not anybody waits for it any more.

    :param end: the connection; the link's to close.
    """

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self.irqs: dict[int, bool] = {}
        """Levels of intercepted interrupts, by number, as far as QEMU has told."""
        self.ended = False
        self._socket = end
        self._sender = Sender(end)
        self._replies: collections.deque[Callable[[str], object]] = collections.deque()
        self._line = bytearray()
        self._sending: set[asyncio.Task[None]] = set()
        self._drain = Drain(end.fileno(), self._feed, self.end)

    def ask(self, command: str, deliver: Callable[[str], object]) -> None:
        """Send a command. What answers it, a line with its end, is delivered when it comes; or `""` where
        the connection ends before that.
        """
        if self.ended:
            deliver("")
            return
        self._replies.append(deliver)
        data = command.encode() + b"\n"
        if not self._sending:
            with contextlib.suppress(OSError):  # it is full; or has ended, which is seen where it is read
                data = data[self._socket.send(data) :]
        if data:
            task = asyncio.get_running_loop().create_task(self._send(data))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            await self._sender.write(data)

    def _feed(self, data: bytes) -> None:
        *ends, rest = data.split(b"\n")  # of what is new alone: a reply may be many megabytes long
        for end in ends:
            line, self._line = self._line + end, bytearray()
            self._take(line.decode(errors="replace"))
        self._line += rest

    def _take(self, line: str) -> None:
        words = line.split()
        if words[:1] == ["IRQ"]:
            with contextlib.suppress(ValueError):  # it is none of QEMU's
                _, level, number = words
                self.irqs[int(number)] = level == "raise"
        elif self._replies:
            self._replies.popleft()(line + "\n")

    async def dry(self) -> None:
        """QEMU has ended: read what it left."""
        await self._drain.dry()
        self.end()

    async def close(self) -> None:
        """`end`, from elsewhere."""
        self.end()

    def end(self) -> None:
        """Close the connection; who waits is told."""
        if self.ended:
            return
        self.ended = True
        self._drain.close()
        self._sender.close()
        while self._replies:
            self._replies.popleft()("")
