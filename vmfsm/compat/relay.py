"""Between QEMU's console and whoever reads it: always drained, so that the guest never waits for a reader."""

import asyncio
import logging
import os
import socket
import threading
from collections.abc import AsyncIterator

from vmfsm_plugins.console.bridge import Bridge
from vmfsm_plugins.console.sender import Sender
from vmfsm_plugins.streams.drain import MOST, Drain, News
from vmfsm_plugins.streams.logfile import LogFile

from vmfsm.iothread import IOThread

from .spool import Spool

_LOGGER = logging.getLogger("vmfsm.compat.console")
_LINGER = 1.0
"""Seconds for QEMU to take what was sent last."""

_AGAIN = 0.01
"""Seconds after which it is tried again to reach a console that is not there yet."""


class Relay:
    """One console for one reader, who gets everything that it ever said, however late.

    What is public may be called from any thread; everything happens on the I/O thread. Nothing does before
    there is a console: who is interrupted while a relay is made leaves nothing behind.

    :param log: the file that gets every byte as it comes; what was in it is removed.
    :param directory: for what does not fit into memory (see `Spool`).
    :param alone: the console is nobody else's: it is closed as soon as the reader is gone.
    :raises OSError: when `log` cannot be opened.
    """

    def __init__(self, log: str | None, directory: str, *, alone: bool = False) -> None:
        self._io = IOThread.get()
        self._pid = os.getpid()
        self._alone = alone
        self._news = News()
        self._ended = False
        self._full = False
        self._over = threading.Event()
        self._spool: Spool | None = Spool(directory)
        self._sender: Sender | None = None
        self._drain: Drain | None = None
        self._bridge: Bridge | None = None
        self._log = None if log is None else LogFile(log, _LOGGER.warning)
        try:
            self.reader, self._readers_end = socket.socketpair()
            """The reader's socket: the reader closes it. It has its end when the console does."""
        except BaseException:
            if self._log is not None:
                self._log.close()
            raise
        self._readers_end.setblocking(False)

    def attach(self, source: socket.socket) -> None:
        """This is the console, from now on the relay's to close."""
        source.setblocking(False)
        self._io.post(self._attach, source)

    def connect(self, path: str) -> None:
        """The console is where somebody listens at, or will."""
        self._io.post(lambda: self._io.start(self._connect(path)))

    def close(self) -> None:
        """The console has ended, or is not wanted any more. The reader still gets what came.

        With `alone`, what was sent last is given a second to be taken.
        """
        if os.getpid() != self._pid:
            return  # a forked child closes its copies; the relay is its parent's
        if self._io.inside():
            self._end()
        elif not (self._alone and self._over.wait(_LINGER)):
            self._io.post(self._end)
            self._over.wait(_LINGER)

    async def dry(self) -> None:
        """QEMU has ended: read what it left. On the I/O thread."""
        if self._drain is not None:
            await self._drain.dry()

    # -- on the I/O thread ----------------------------------------------------------------------------------

    def _attach(self, source: socket.socket) -> None:
        if self._ended:
            source.close()
            return
        self._sender = Sender(source)
        self._drain = Drain(source.fileno(), self._feed, self._end)
        self._bridge = Bridge(self._readers_end, self._chunks(), self._sender.write)
        self._bridge.task.add_done_callback(self._reader_gone)

    async def _connect(self, path: str) -> None:
        while not self._ended:
            end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            end.setblocking(False)
            try:
                end.connect(path)
            except OSError as error:
                end.close()
                if not isinstance(error, FileNotFoundError | ConnectionRefusedError | BlockingIOError):
                    _LOGGER.warning("a console at %s: %s", path, error)
                    self._end()
                await asyncio.sleep(_AGAIN)
            else:
                self._attach(end)
                return

    def _feed(self, data: bytes) -> None:
        if self._log is not None:
            self._log.write(data)
        if self._spool is not None and not self._full:
            try:
                self._spool.put(data)
            except OSError as error:
                self._full = True  # the reader gets what came until now, and then the end: never a gap
                _LOGGER.warning("a console's output cannot be kept for its reader any more: %s", error)
            self._news.tell()

    async def _chunks(self) -> AsyncIterator[bytes]:
        while self._spool is not None:
            over = self._ended or self._full
            data = self._spool.take(MOST)
            if data:
                yield data
            elif over:
                return
            else:
                await self._news.wait()

    def _reader_gone(self, _: "asyncio.Task[None]") -> None:
        if self._spool is not None:
            self._spool.close()
            self._spool = None
        if self._alone:
            self._end()

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        if self._drain is not None:
            self._drain.close()
        if self._sender is not None:
            self._sender.close()
        if self._log is not None:
            self._log.close()
        if self._bridge is None:
            self._readers_end.close()
        self._news.tell()
        self._over.set()
