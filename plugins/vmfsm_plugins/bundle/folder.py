"""The directory of one bundle: for its owner alone, and nothing that was planted leads out of it.

All of this may block, as a file system may: it is called in threads that nobody waits for too long.
"""

import contextlib
import itertools
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE = 1024 * 1024
MOST_OF_A_FILE = 256 * 1024 * 1024
"""Bytes that are copied of one file: of a longer one the beginning and the end."""
_RESERVE, _RESERVED = ".room", 32 * 1024
_serials = itertools.count(1)


class Copied(NamedTuple):
    """What came of a copy."""

    bytes: int
    left_out: int


class Folder:
    """Made by `make`. Files in it are whole or not there."""

    def __init__(self, path: str, identity: tuple[int, int]) -> None:
        self.path = path
        self._identity = identity

    def write(self, name: str, pieces: Iterable[bytes]) -> int:
        """Write a file, in place of one that is there; its size.

        :raises OSError: when it can't be written; nothing is left of it then.
        """
        with self._opened() as directory:
            part = f".{name}.part"
            fd = os.open(part, _NEW, 0o600, dir_fd=directory)
            try:
                size = 0
                for piece in pieces:
                    view = memoryview(piece)
                    while view:
                        written = os.write(fd, view)
                        size += written
                        view = view[written:]
                os.rename(part, name, src_dir_fd=directory, dst_dir_fd=directory)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(part, dir_fd=directory)
                raise
            finally:
                os.close(fd)
            return size

    def copy(self, source: str, name: str) -> Copied:
        """Copy an ordinary file, as much of it as `MOST_OF_A_FILE`.

        :raises OSError: when it can't be read or written, or is none.
        """
        fd = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(0, "no ordinary file", source)
            left_out = max(0, found.st_size - MOST_OF_A_FILE)
            return Copied(self.write(name, _pieces(fd, found.st_size, left_out)), left_out)
        finally:
            os.close(fd)

    def adopt(self, name: str) -> int:
        """Make a file that QEMU has written its owner's alone; its size.

        :raises OSError: when it is not there, or is no ordinary file.
        """
        with self._opened() as directory:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
            try:
                found = os.fstat(fd)
                if not stat.S_ISREG(found.st_mode):
                    raise OSError(0, "no ordinary file", name)
                with contextlib.suppress(PermissionError):  # another user's QEMU has made it
                    os.fchmod(fd, 0o600)
                return found.st_size
            finally:
                os.close(fd)

    def remove(self, name: str) -> None:
        """Of what is not whole. It need not be there."""
        with contextlib.suppress(OSError), self._opened() as directory:
            os.unlink(name, dir_fd=directory)

    def reserve(self) -> None:
        """Keep room for what is written last.

        :raises OSError: when there is none.
        """
        self.write(_RESERVE, [bytes(_RESERVED)])

    def release(self) -> None:
        """Give it back."""
        self.remove(_RESERVE)

    def remove_if_empty(self) -> None:
        """It is of no use where nothing is in its files."""
        with contextlib.suppress(OSError), self._opened() as directory:
            for name in os.listdir(directory):
                if not os.stat(name, dir_fd=directory, follow_symlinks=False).st_size:
                    os.unlink(name, dir_fd=directory)
            os.rmdir(self.path)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        fd = os.open(self.path, _DIRECTORY)
        try:
            if _identity(os.fstat(fd)) != self._identity:
                raise OSError(0, "another directory is in its place", self.path)
            yield fd
        finally:
            os.close(fd)


def prepare(directory: str) -> None:
    """Have a directory for bundles.

    :raises OSError: where none can be made in it.
    """
    os.makedirs(directory, mode=0o700, exist_ok=True)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(13, os.strerror(13), directory)


def make(directory: str, machine: str, made: float) -> Folder:
    """A new one in `directory`, which nobody else has the name of, or gets in.

    :raises OSError: when it can't be made.
    """
    prepare(directory)
    when = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(made))
    base = path = os.path.join(directory, f"{machine}-{when}-{os.getpid()}-{next(_serials):04}")
    while True:
        try:
            os.mkdir(path, 0o700)
            break
        except FileExistsError:  # of another host or container, or planted
            path = f"{base}-{os.urandom(4).hex()}"
    fd = os.open(path, _DIRECTORY)
    try:
        found = os.fstat(fd)
        if found.st_uid != os.geteuid() or os.listdir(fd):
            raise OSError(0, "somebody has put another directory in its place", path)
        os.fchmod(fd, 0o700)
        return Folder(path, _identity(found))
    finally:
        os.close(fd)


def safe_name(text: str) -> str:
    """`text` as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9._+@:-]", "_", text)[:64]


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _pieces(fd: int, size: int, left_out: int) -> Iterator[bytes]:
    """What the file had when it was looked at: it may grow."""
    head = size if not left_out else MOST_OF_A_FILE // 2
    yield from _range(fd, 0, head)
    if left_out:
        yield f"\n[{left_out} bytes are left out here]\n".encode()
        yield from _range(fd, head + left_out, size)


def _range(fd: int, begin: int, end: int) -> Iterator[bytes]:
    while begin < end:
        data = os.pread(fd, min(_PIECE, end - begin), begin)
        if not data:
            return
        begin += len(data)
        yield data
