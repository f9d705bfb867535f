"""One console during one launch: the socket to QEMU, always drained, and what came out of it."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

from vmfsm_plugins.streams.buffer import Buffer, Position
from vmfsm_plugins.streams.drain import MOST
from vmfsm_plugins.streams.intake import Intake
from vmfsm_plugins.streams.logfile import LogFile
from vmfsm_plugins.subscribers import Subscribers

from .bridge import Bridge
from .expect import Cursor
from .options import Options
from .sender import Progress, Sender


class Stream(Intake):
    """On the I/O thread only, but for `buffer` and `cursor` and what never changes.

    :param file: what it is written to; closed by `close`.
    :param origin: where the stream of the launch before has ended.
    :param record: adds a record about this console to the timeline.
    :param subscribers: of the console.
    """

    def __init__(
        self,
        options: Options,
        file: LogFile,
        origin: Position,
        record: Callable[[str, dict[str, object]], object],
        subscribers: Subscribers[bytes],
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.origin = origin
        self.bridges: set[asyncio.Task[None]] = set()
        self._record = record
        end, self.other = socket.socketpair()
        end.setblocking(False)
        self._sender = Sender(end)
        super().__init__(
            end.fileno(),
            Buffer(options.buffer, options.encoding, "replace", origin),
            file,
            lambda text: record("console", {"text": text}),
            subscribers,
            # Small enough that nothing falls out of the buffer before a search has seen it.
            most=max(256, min(MOST, options.buffer // 4)),
        )
        self.cursor = Cursor(self.buffer, self._skipped)
        self.urgent = -1
        """Searches are due that have not seen this byte, however much they have taken already."""

    def _skipped(self, size: int) -> None:
        """From any thread."""
        data: dict[str, object] = {"bytes": size}
        self.loop.call_soon_threadsafe(self._record, "console-lost", data)

    def hurry(self) -> None:
        """Who waits for what has come is about to be told something else: let it be found before."""
        self.urgent = self.buffer.end.byte
        self.news.tell()

    # -- to QEMU --------------------------------------------------------------------------------------------

    async def write(self, data: bytes, progress: Progress | None = None) -> None:
        """Give all of `data` to QEMU, undivided.

        :raises OSError: when the console is closed.
        """
        await self._sender.write(data, progress)

    def bridge(self, end: socket.socket) -> None:
        """Connect a socket to it."""
        bridge = Bridge(end, self._chunks(), self.write)
        self.bridges.add(bridge.task)
        bridge.task.add_done_callback(self.bridges.discard)

    async def _chunks(self) -> AsyncIterator[bytes]:
        """What is kept, then what comes; without what falls out of the buffer before it is asked for."""
        position = self.buffer.view().start
        while True:
            ended = self.ended
            view = self.buffer.view()
            position = view.clamp(position)
            data = view.data(position, MOST)
            if data:
                position = view.at_byte(position.byte + len(data))
                yield data
            elif ended:
                return
            else:
                await self.news.wait()

    # -- the end --------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Whatever happened: nothing comes any more, nothing stays open. What came stays readable."""
        super().close()
        self._sender.close()
