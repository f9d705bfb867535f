"""Reading what QEMU writes, from its first byte to its last, and recording it in chunks."""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable

MOST = 64 * 1024
"""Bytes that are read at once. More is no faster, and would keep other machines waiting."""
_LEAST = 4 * 1024
"""Bytes that are read at once however long they take."""
_SHARE = 0.002
"""Seconds of CPU time that what was read at once should take, or other machines wait: less is read then."""
_AT_THE_END = 0.25
"""Seconds for what is left when QEMU has ended, where a process it left behind goes on writing."""
_COLLECT = 0.01
"""Seconds for which text is collected into one record."""


class Drain:
    """Reads a non-blocking descriptor whenever there is something to read. On the I/O thread only.

    :param feed: gets the bytes.
    :param ended: called once: at end of file, or by `close`.
    """

    def __init__(
        self,
        fd: int,
        feed: Callable[[bytes], object],
        ended: Callable[[], object],
        most: int = MOST,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._fd = fd
        self._feed = feed
        self._ended = ended
        self._most = self._size = most
        self.open = True
        self._loop.add_reader(fd, self._read)

    def _read(self) -> bool:
        """Read once; whether there was anything."""
        try:
            data = os.read(self._fd, self._size)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:  # ECONNRESET where QEMU had not read all that it was sent: the end like any other
            data = b""
        if data:
            begin = time.thread_time()
            self._feed(data)
            if time.thread_time() - begin > _SHARE:  # a guest may know what makes work
                self._size = min(self._size, max(_LEAST, len(data) // 2))
            else:
                self._size = min(self._size * 2, self._most)
        else:
            self.close()
        return bool(data)

    async def dry(self) -> None:
        """QEMU has ended, so all it wrote is there: read that.

        The end of file is not waited for: a process that QEMU left behind may hold it off for ever.
        """
        until = time.monotonic() + _AT_THE_END
        while self.open and time.monotonic() < until and self._read():  # noqa: ASYNC110 - no wait but work
            await asyncio.sleep(0)  # who waits for something sees it before it can fall out of a buffer

    def close(self) -> None:
        """Read no more. Closing the descriptor is up to its owner."""
        if self.open:
            self.open = False
            self._loop.remove_reader(self._fd)
            self._ended()


class News:
    """Wakes those who wait for something to come. On the I/O thread only."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def tell(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    async def wait(self, timeout: float | None = None) -> None:
        """Until there is something new, at most `timeout` seconds."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await future
        finally:
            self._waiting.discard(future)


class Records:
    """Collects text, which may come character by character, into few records. On the I/O thread only."""

    def __init__(self, record: Callable[[str], object]) -> None:
        self._record = record
        self._parts: list[str] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, text: str) -> None:
        if not text:
            return
        self._parts.append(text)
        self._size += len(text)
        if self._size >= MOST:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_COLLECT, self.flush)

    def flush(self) -> None:
        """Record now what was collected."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._parts:
            text, self._parts, self._size = "".join(self._parts), [], 0
            self._record(text)
