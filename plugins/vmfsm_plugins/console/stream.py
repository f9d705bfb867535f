"""One console during one launch: the socket to QEMU, always drained, and what came out of it."""

import asyncio
import socket
from collections.abc import Callable

from vmfsm_plugins.streams.buffer import Buffer, Position
from vmfsm_plugins.streams.drain import MOST
from vmfsm_plugins.streams.intake import Intake
from vmfsm_plugins.streams.logfile import LogFile

from .bridge import Bridge
from .expect import Cursor
from .options import Options

_SLICE = 256 * 1024


class Progress:
    """How much of something was written."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.taken = 0


class Stream(Intake):
    """On the I/O thread only, but for `buffer` and `cursor` and what never changes.

    :param file: what it is written to; closed by `close`.
    :param origin: where the stream of the launch before has ended.
    :param record: adds a record about this console to the timeline.
    """

    def __init__(
        self,
        options: Options,
        file: LogFile,
        origin: Position,
        record: Callable[[str, dict[str, object]], object],
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.origin = origin
        self.bridges: set[asyncio.Task[None]] = set()
        self._record = record
        self._sending = asyncio.Lock()
        self._socket, self.other = socket.socketpair()
        self._socket.setblocking(False)
        super().__init__(
            self._socket.fileno(),
            Buffer(options.buffer, options.encoding, "replace", origin),
            file,
            lambda text: record("console", {"text": text}),
            # Small enough that nothing falls out of the buffer before a search has seen it.
            most=max(256, min(MOST, options.buffer // 4)),
        )
        self.cursor = Cursor(self.buffer, self._skipped)

    def _skipped(self, size: int) -> None:
        """From any thread."""
        data: dict[str, object] = {"bytes": size}
        self.loop.call_soon_threadsafe(self._record, "console-lost", data)

    # -- to QEMU --------------------------------------------------------------------------------------------

    async def write(self, data: bytes, progress: Progress | None = None) -> None:
        """Give all of `data` to QEMU, undivided.

        :raises OSError: when the console is closed.
        """
        progress = progress or Progress(len(data))
        async with self._sending:
            rest = memoryview(data)
            while rest:
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
        writable = self.loop.create_future()
        fd = self._socket.fileno()
        self.loop.add_writer(fd, lambda: None if writable.done() else writable.set_result(None))
        try:
            await writable
        finally:
            if self._socket.fileno() == fd:  # else it was closed meanwhile, and the number may be another's
                self.loop.remove_writer(fd)

    def bridge(self, end: socket.socket) -> None:
        """Connect a socket to it."""
        bridge = Bridge(end, self.buffer.view, self.news, lambda: self.ended, self.write)
        self.bridges.add(bridge.task)
        bridge.task.add_done_callback(self.bridges.discard)

    # -- the end --------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Whatever happened: nothing comes any more, nothing stays open. What came stays readable."""
        super().close()
        if self._socket.fileno() >= 0:
            self.loop.remove_writer(self._socket.fileno())
            self._socket.close()
