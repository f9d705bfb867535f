"""What nobody has read yet: first in memory, then in a file."""

import os
import tempfile
from typing import IO

MEMORY = 1024 * 1024
"""Bytes that are kept in memory."""
LIMIT = 1024**3
"""Bytes that are kept in the file: nobody reads so much, but a guest that panics in a loop writes it."""


class Spool:
    """A queue of bytes. On one thread only.

    The file is used again from its beginning once it is `LIMIT` long, so that a reader who is always a little
    behind does not make it grow for ever. It has no name, so nothing is left of it however the process ends.

    :param directory: where the file is made, once memory does not suffice.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._first = bytearray()
        self._file: IO[bytes] | None = None
        self._taken = 0
        self._written = 0
        """Bytes that went through the file since it was empty; where they are in it is modulo `LIMIT`."""

    def put(self, data: bytes) -> None:
        """:raises OSError: when there is no more room on the disk, or more than `LIMIT` in the file."""
        if self._written == self._taken and len(self._first) + len(data) <= MEMORY:
            self._first += data
            return
        if self._written - self._taken + len(data) > LIMIT:
            raise OSError(f"more than {LIMIT} bytes that nobody reads")
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115 - see close
        while data:
            place = self._written % LIMIT
            written = os.pwrite(self._file.fileno(), data[: LIMIT - place], place)
            if not written:
                raise OSError("no room left on the disk")
            self._written += written
            data = data[written:]

    def take(self, most: int) -> bytes:
        """The next bytes, at most so many; none where there are none."""
        if self._first:
            data = bytes(self._first[:most])
            del self._first[:most]
            return data
        if self._file is None or self._taken == self._written:
            return b""
        place = self._taken % LIMIT
        size = min(most, self._written - self._taken, LIMIT - place)
        data = os.pread(self._file.fileno(), size, place)
        self._taken += len(data)
        if self._taken == self._written:
            self._taken = self._written = 0
            self._file.truncate(0)
        return data

    def close(self) -> None:
        """Forget everything."""
        self._first.clear()
        self._taken = self._written = 0
        if self._file is not None:
            self._file.close()
            self._file = None
