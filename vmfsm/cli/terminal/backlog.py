"""What is still to be written: in memory, and in a file where the reader is much slower than the writer."""

import collections
import contextlib
import os
import tempfile
import threading

MOST_IN_MEMORY = 1024 * 1024
CHUNK = 64 * 1024


class Message(str):
    """A line of ours, among the bytes of a guest."""

    __slots__ = ()


class Backlog:
    """A queue of bytes and messages without a bound but that of the disk; neither end ever waits.

    From any thread. What was added comes out in its order; messages that had to go to the file come out as
    bytes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: collections.deque[bytes | Message] = collections.deque()
        self._bytes = 0
        self._spool: int | None = None
        self._read = self._written = 0
        self.lost = 0
        """Bytes for which there was no room."""

    def add(self, item: bytes | Message) -> None:
        """Add to the end."""
        with self._lock:
            if self._read == self._written and self._bytes < MOST_IN_MEMORY:
                self._items.append(item)
                self._bytes += len(item)
                return
            data = item if isinstance(item, bytes) else f"\r\n{item}\r\n".encode()
            try:
                if self._spool is None:
                    with tempfile.TemporaryFile(prefix="vmfsm-", buffering=0) as file:
                        self._spool = os.dup(file.fileno())
                size = os.pwrite(self._spool, data, self._written)
            except OSError:  # the disk is full: a guest may not be held up by that
                size = 0
            self._written += size
            self.lost += len(data) - size

    def take(self) -> bytes | Message | None:
        """What comes next; `None` where there is nothing."""
        with self._lock:
            if self._items:
                item = self._items.popleft()
                self._bytes -= len(item)
                return item
            if self._spool is None or self._read == self._written:
                return None
            data = os.pread(self._spool, min(CHUNK, self._written - self._read), self._read)
            self._read += len(data)
            if self._read == self._written:
                os.ftruncate(self._spool, 0)
                self._read = self._written = 0
            return data

    def close(self) -> None:
        """Forget all of it."""
        with self._lock:
            self._items.clear()
            self._read = self._written = 0
            if self._spool is not None:
                with contextlib.suppress(OSError):
                    os.close(self._spool)
                self._spool = None
