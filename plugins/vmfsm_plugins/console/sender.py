"""What is sent to a console: in order, undivided, without holding up anybody."""

import asyncio
import socket

_SLICE = 256 * 1024


class Progress:
    """How much of something was written."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.taken = 0


class Sender:
    """Writes to a non-blocking socket. On the I/O thread only."""

    def __init__(self, end: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = end
        self._sending = asyncio.Lock()
        self._writable: asyncio.Future[None] | None = None

    async def write(self, data: bytes, progress: Progress | None = None) -> None:
        """Give all of `data` to the other end, undivided.

        :raises OSError: when it is closed, `ConnectionError` by the other end or by `close`.
        """
        progress = progress or Progress(len(data))
        async with self._sending:
            rest = memoryview(data)
            while rest:
                if self._socket.fileno() < 0:
                    raise BrokenPipeError("the console is closed")
                try:
                    taken = self._socket.send(rest[:_SLICE])
                except (BlockingIOError, InterruptedError):
                    await self._until_writable()
                    continue
                progress.taken += taken
                rest = rest[taken:]
                if rest:
                    await asyncio.sleep(0)

    async def _until_writable(self) -> None:
        self._writable = writable = self._loop.create_future()
        fd = self._socket.fileno()
        self._loop.add_writer(fd, _wake, writable)
        try:
            await writable
        finally:
            if self._socket.fileno() == fd:  # else it was closed meanwhile, and the number may be another's
                self._loop.remove_writer(fd)

    def close(self) -> None:
        """Close the socket; who waits to write is woken."""
        if self._socket.fileno() >= 0:
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()
        if self._writable is not None:
            _wake(self._writable)


def _wake(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
