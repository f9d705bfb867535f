"""The files of one recording: bounded, the first kept, the oldest of the others removed for new ones."""

import contextlib
import os
from collections.abc import Mapping, Sequence

from .header import clocks
from .lines import as_object
from .options import Limits

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Pieces:
    """`BASE.jsonl`, then `BASE.jsonl.0002` and so on; each begins with the header. On one thread only.

    A new file is made by this and nobody else (`O_EXCL`), so no link that was planted leads it elsewhere, and
    only its owner may read it.

    :param base: path without extension. Where there is such a file, a number is added to it.
    """

    def __init__(self, base: str, header: Mapping[str, object], limits: Limits) -> None:
        self.base = base
        """Of all their paths."""
        self._header = header
        self._limits = limits
        self._fd = -1
        self._path = ""
        self._identity: tuple[int, int] | None = None
        self._size = 0
        self._room = 0
        self._made: list[tuple[int, str]] = []
        self.path: str | None = None
        """The first file, as soon as there is one."""
        self.lines = 0
        """How many were written."""

    def write(self, lines: Sequence[bytes]) -> None:
        """Write lines, each as a whole or not at all; `self.lines` counts them.

        :raises OSError: when one could not be written; those after it are not.
        """
        if lines:
            self._open()
        done = 0
        while done < len(lines):
            until, room = done, self._room
            while until < len(lines) and len(lines[until]) <= room:
                room -= len(lines[until])
                until += 1
            if until == done:
                if self._room < self._limits.bytes_a_file:
                    self._create()
                    continue
                until += 1  # it is longer than all files: one line has a file for itself
            self._append(b"".join(lines[done:until]), lines[done:until])
            done = until

    def close(self) -> None:
        """Nothing is to be written for now."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):  # a file server's, of what was written before
                os.close(fd)

    def _open(self) -> None:
        if self._fd >= 0:
            if os.fstat(self._fd).st_nlink:
                return
            self.close()  # it was removed: what is written there is lost
            self._identity = None
        elif self._identity is not None:
            with contextlib.suppress(OSError):  # it was removed, or a link is there
                fd = os.open(self._path, _FLAGS)
                found = os.fstat(fd)
                if (found.st_dev, found.st_ino) == self._identity:
                    self._fd = fd
                    return
                os.close(fd)  # another one in its place
            self._identity = None
        self._create()

    def _create(self) -> None:
        if len(self._made) >= self._limits.files:
            with contextlib.suppress(OSError):
                os.unlink(self._made[1][1])
            del self._made[1]
        fd, path, number = self._new_file(self._made[-1][0] + 1 if self._made else 1)
        try:
            header = {**self._header, "recording": os.path.basename(self.base), "piece": number}
            line = as_object({**header, "before": self.lines, "clocks": clocks()}).encode() + b"\n"
            if os.write(fd, line) < len(line):
                os.write(fd, line[len(line) :])
        except OSError:
            os.close(fd)
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise
        self.close()
        self._fd, self._path = fd, path
        found = os.fstat(fd)
        self._identity = found.st_dev, found.st_ino
        self._size, self._room = len(line), self._limits.bytes_a_file
        self._made.append((number, path))
        if self.path is None:
            self.path = path

    def _new_file(self, number: int) -> tuple[int, str, int]:
        while True:
            path = f"{self.base}.jsonl" + (f".{number:04}" if number > 1 else "")
            try:
                return os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600), path, number
            except FileNotFoundError:
                if number > 1 or os.path.isdir(os.path.dirname(path)):
                    raise
                os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)  # it was removed since
            except FileExistsError:
                if number > 1:
                    number += 1
                else:  # of another host or container, by the same pid in the same second
                    self.base += f"-{os.urandom(4).hex()}"

    def _append(self, data: bytes, lines: Sequence[bytes]) -> None:
        written = 0
        try:
            while written < len(data):
                written += os.write(self._fd, memoryview(data)[written:])
        except OSError:
            whole = 0
            for line in lines:
                if whole + len(line) > written:
                    break
                whole += len(line)
                self.lines += 1
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size + whole)
            self._size += whole
            self._room -= whole
            raise
        self._size += len(data)
        self._room -= len(data)
        self.lines += len(lines)
