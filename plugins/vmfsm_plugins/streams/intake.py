"""All that becomes of what QEMU writes to one descriptor."""

import asyncio
from collections.abc import Callable

from vmfsm import Secrets
from vmfsm_plugins.subscribers import Subscribers

from .buffer import Buffer
from .drain import MOST, Drain, News, Records
from .logfile import LogFile

_PATIENCE = 1.0
"""Seconds for the rest of what may be a secret: after that somebody may wait for what looks like one."""


class Intake:
    """Drained, kept within a bound, written to a file, recorded. On the I/O thread only, but for `buffer`.

    :param fd: non-blocking; closing it is up to who has it.
    :param file: closed by `close`.
    :param record: adds text to the timeline.
    :param subscribers: they get every byte, and an empty `bytes` when it is over: at the end of the file, or
        when QEMU has ended and what it left was read.
    :param most: how many bytes are read at once.
    :param secrets: what is hidden in all of that.
    """

    def __init__(
        self,
        fd: int,
        buffer: Buffer,
        file: LogFile,
        record: Callable[[str], object],
        subscribers: Subscribers[bytes],
        most: int = MOST,
        secrets: Secrets | None = None,
    ) -> None:
        self.buffer = buffer
        self.file = file
        self.news = News()
        self.ended = False
        """Nothing more will come."""
        self._records = Records(record)
        self._subscribers: Subscribers[bytes] | None = subscribers
        self._filter = None if secrets is None else secrets.filter()
        self._letting_go: asyncio.TimerHandle | None = None
        self._drain = Drain(fd, self._filtered, self._end, most)

    def _filtered(self, data: bytes) -> None:
        if self._filter is not None:
            self._keep_holding()
            data = self._filter.feed(data)
            if self._filter.holds:
                self._letting_go = asyncio.get_running_loop().call_later(_PATIENCE, self._feed_held)
        if data:
            self._feed(data)

    def _keep_holding(self) -> None:
        if self._letting_go is not None:
            self._letting_go.cancel()
            self._letting_go = None

    def _feed_held(self) -> None:
        """What the filter holds back, since it may be the beginning of a secret, is none."""
        self._keep_holding()
        data = b"" if self._filter is None else self._filter.finish()
        if data:
            self._feed(data)

    def _feed(self, data: bytes) -> None:
        text = self.buffer.append(data)
        self.file.write(data)
        self._records.add(text)
        self.news.tell()
        if self._subscribers is not None:  # last: those who wait for these bytes see them first
            self._subscribers.tell(data)

    def _end(self) -> None:
        self._feed_held()
        self._records.add(self.buffer.finish())
        self._records.flush()
        self.ended = True
        self.news.tell()
        self._end_subscription()

    def _end_subscription(self) -> None:
        subscribers, self._subscribers = self._subscribers, None
        if subscribers is not None:
            subscribers.tell(b"")

    async def dry(self) -> None:
        """QEMU has ended: read what it left."""
        await self._drain.dry()
        self._feed_held()
        self._records.flush()
        self._end_subscription()

    def flush(self) -> None:
        """Let the timeline have what came so far."""
        self._records.flush()

    def close(self) -> None:
        """Nothing comes any more; what came stays readable."""
        self._drain.close()
        self._keep_holding()
        self.file.close()
