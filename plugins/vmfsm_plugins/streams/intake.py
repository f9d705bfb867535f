"""All that becomes of what QEMU writes to one descriptor."""

from collections.abc import Callable

from .buffer import Buffer
from .drain import MOST, Drain, News, Records
from .logfile import LogFile


class Intake:
    """Drained, kept within a bound, written to a file, recorded. On the I/O thread only, but for `buffer`.

    :param fd: non-blocking; closing it is up to who has it.
    :param file: closed by `close`.
    :param record: adds text to the timeline.
    :param most: how many bytes are read at once.
    """

    def __init__(
        self, fd: int, buffer: Buffer, file: LogFile, record: Callable[[str], object], most: int = MOST
    ) -> None:
        self.buffer = buffer
        self.file = file
        self.news = News()
        self.ended = False
        """Nothing more will come."""
        self._records = Records(record)
        self._drain = Drain(fd, self._feed, self._end, most)

    def _feed(self, data: bytes) -> None:
        text = self.buffer.append(data)
        self.file.write(data)
        self._records.add(text)
        self.news.tell()

    def _end(self) -> None:
        self._records.add(self.buffer.finish())
        self._records.flush()
        self.ended = True
        self.news.tell()

    async def dry(self) -> None:
        """QEMU has ended: read what it left."""
        await self._drain.dry()
        self._records.flush()

    def flush(self) -> None:
        """Let the timeline have what came so far."""
        self._records.flush()

    def close(self) -> None:
        """Nothing comes any more; what came stays readable."""
        self._drain.close()
        self.file.close()
