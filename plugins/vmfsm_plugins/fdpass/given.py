"""What a user gives to be passed: a descriptor or a path, checked, and opened when its time has come."""

import errno
import os
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from vmfsm import ConfigError, check_fd, check_path
from vmfsm_plugins.blocking import in_thread

FDOrPath = int | str | os.PathLike[str]

_MODE = 0o666
"""Of a file that is made (`O_CREAT`), before the umask."""
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ETXTBSY}


class Descriptor:
    """A descriptor of ours, not inheritable, closed once at the most."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


@dataclass(frozen=True)
class GivenFD:
    """A descriptor of the user's."""

    fd: int
    identity: tuple[object, ...]
    """What it was open on when it was given."""

    @property
    def shown(self) -> str:
        return f"descriptor {self.fd}"

    def open(self) -> Descriptor:
        """A copy.

        :raises OSError: where it is closed, or open on something else than when it was given.
        """
        try:
            copy = Descriptor(os.dup(self.fd))
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            raise OSError(errno.EBADF, f"{self.shown} was closed since it was given to `fds`") from None
        if _identity(copy.fileno()) != self.identity:
            copy.close()
            raise OSError(errno.EBADF, f"{self.shown} was closed since it was given to `fds`, and reused")
        return copy


@dataclass(frozen=True)
class GivenPath:
    """A file to be opened."""

    path: str
    flags: int | None

    @property
    def shown(self) -> str:
        return self.path

    def open(self) -> Descriptor:
        """Open it, without waiting for the other end of a FIFO, say.

        :raises OSError: as open(2) says.
        """
        flags = os.O_RDWR if self.flags is None else self.flags
        try:
            opened = os.open(self.path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, _MODE)
        except OSError as error:
            hint = ""
            if self.flags is None and error.errno in _NOT_WRITABLE:
                hint = " (opened for reading and writing; flags=os.O_RDONLY opens it for reading only)"
            raise OSError(error.errno, f"{error.strerror}{hint}", self.path) from None
        try:
            os.set_blocking(opened, not flags & os.O_NONBLOCK)
        except OSError:
            os.close(opened)
            raise
        return Descriptor(opened)


Given = GivenFD | GivenPath


async def open_given(given: Given) -> Descriptor:
    """Open it, however long the file system takes for that: only the caller waits.

    :raises OSError: as of `open`.
    """
    return await in_thread(given.open, Descriptor.close)


def check_given(fd_or_path: object, flags: object = None) -> Given:
    """What was given, checked as far as that needs no look at files.

    :raises ConfigError: for what is neither an open descriptor nor a path, and for wrong `flags`.
    """
    if isinstance(fd_or_path, str | os.PathLike):
        path = check_path(fd_or_path, field="fd_or_path")
        if flags is not None and (isinstance(flags, bool) or not isinstance(flags, int) or flags < 0):
            raise ConfigError(f"flags must be an int, as of os.open, not {flags!r}", field="flags")
        return GivenPath(os.path.abspath(path), flags)
    fd = check_fd(fd_or_path)
    if flags is not None:
        raise ConfigError("flags are for paths: a descriptor is open already", field="flags")
    return GivenFD(fd, _identity(fd))


def _identity(fd: int) -> tuple[object, ...]:
    """What a descriptor is open on, as far as that can be told.

    All event descriptors, timers and the like are of one inode; their kind is in the name of the link. A
    file's link is no part of it, for a file may be renamed.
    """
    found = os.fstat(fd)
    link = os.readlink(f"/proc/self/fd/{fd}")
    return found.st_dev, found.st_ino, link if link.startswith("anon_inode:") else None
