"""A socket that stands for a console, for code that wants one."""

import asyncio
import contextlib
import io
import select
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import IO, Any, cast

from vmfsm_plugins.streams.drain import MOST


class Bridge:
    """Carries what the console says to a socket, and what is written there to the guest.

    A reader can be as slow as it likes: it holds up nobody. On the I/O thread only.

    :param chunks: what the console says, to its end.
    :param write: gives something to the guest.
    """

    def __init__(
        self, end: socket.socket, chunks: AsyncIterator[bytes], write: Callable[[bytes], Awaitable[None]]
    ) -> None:
        self._end = end
        self._chunks = chunks
        self._write = write
        self._loop = asyncio.get_running_loop()
        self.task = self._loop.create_task(self._serve())

    async def _serve(self) -> None:
        """Until the reader closed its end, or the console has ended and the reader has got all of it."""
        tasks = {self._loop.create_task(self._to_reader()), self._loop.create_task(self._from_reader())}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for task in tasks:
                if not task.cancelled():
                    task.exception()
            self._end.close()

    async def _to_reader(self) -> None:
        """Until the end of the console."""
        gone = False
        async for data in self._chunks:
            if not gone:
                try:
                    await self._loop.sock_sendall(self._end, data)
                except ConnectionError:
                    gone = True  # but the guest may not have all that it wrote

    async def _from_reader(self) -> None:
        """Until the reader is gone, and the guest has what it wrote."""
        with contextlib.suppress(ConnectionError):
            while data := await self._loop.sock_recv(self._end, MOST):
                await self._write(data)
        await self._hang_up()

    async def _hang_up(self) -> None:
        """Wait until the reader is gone, rather than that it has no more to say."""
        with select.epoll() as epoll:
            epoll.register(self._end, 0)  # EPOLLHUP and EPOLLERR come unasked; an end of file is neither
            gone = self._loop.create_future()
            self._loop.add_reader(epoll, lambda: None if gone.done() else gone.set_result(None))
            try:
                await gone
            finally:
                self._loop.remove_reader(epoll)


def as_file(end: socket.socket, mode: str, encoding: str) -> IO[Any]:
    """A file over a socket, which may be closed then."""
    if "b" in mode:
        return cast("IO[Any]", end.makefile(mode))  # type: ignore[call-overload]  # it wants literals
    reader = end.makefile("r", encoding=encoding, errors="replace") if "r" in mode else None
    writer = end.makefile("w", encoding=encoding, errors="replace") if "w" in mode else None
    if writer is not None:
        writer.reconfigure(line_buffering=True)
    if reader is not None and writer is not None:
        return cast("IO[Any]", _TextPair(reader, writer))
    return cast("IO[Any]", reader or writer)


class _TextPair(io.TextIOBase):
    """A text file for both directions: Python's own forgets what it has read ahead when it writes."""

    def __init__(self, reader: io.TextIOWrapper, writer: io.TextIOWrapper) -> None:
        self._reader = reader
        self._writer = writer

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._reader.fileno()

    def read(self, size: int | None = -1, /) -> str:
        return self._reader.read(size)

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]  # as text files do
        return self._reader.readline(size)

    def write(self, text: str, /) -> int:
        return self._writer.write(text)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        if not self.closed:
            try:
                super().close()  # flushes
            finally:
                try:
                    self._writer.close()
                finally:
                    self._reader.close()
