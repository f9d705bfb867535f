"""What a migration goes through: how each end is told of it, and what is to be left behind of it."""

import contextlib
import itertools
import os
import socket
import stat
import tempfile
from collections.abc import Mapping
from typing import Any, Protocol

from vmfsm import ConfigError, Machine

from .end import End

_numbers = itertools.count(1)
_LISTS_CHANNELS = (8, 2, 0)
"""QEMU's version that takes addresses as objects, among them files (QMP reference, `MigrationAddress`)."""

Address = Mapping[str, Any]


class Channel(Protocol):
    """On the I/O thread only."""

    two_way: bool
    """The destination can answer."""
    destination_first: bool
    """The destination must be there when the source begins."""

    async def offer(self, end: End) -> Address:
        """Make it known to one end: the arguments of `migrate` or `migrate-incoming`."""

    async def withdraw(self, end: End) -> None:
        """QEMU refused to migrate: take back what was offered."""

    def connected(self) -> None:
        """Each end that there is has it: drop what was only for that."""

    def cut(self) -> None:
        """Break it under the ends, where that is possible."""

    def close(self) -> None:
        """Leave nothing behind."""


class SocketPair:
    """Each end is handed one of two connected sockets. Nobody else can reach them."""

    two_way = True
    destination_first = False

    def __init__(self) -> None:
        self._sockets = dict(zip(("source", "destination"), socket.socketpair(), strict=True))
        self._name = f"vmfsm-migration-{next(_numbers)}"

    async def offer(self, end: End) -> Address:
        return await _hand_over(end.machine, self._sockets[end.role].fileno(), self._name)

    async def withdraw(self, end: End) -> None:
        await _take_back(end, self._name)

    def connected(self) -> None:
        self._sockets["destination"].close()  # the end of that QEMU is to be the end of file

    def cut(self) -> None:
        # Ours is kept for this: a QEMU that writes to one that does not read may answer nobody any more.
        with contextlib.suppress(OSError):
            self._sockets["source"].shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for end in self._sockets.values():
            end.close()


class UnixSocket:
    """The destination listens at a path."""

    two_way = True
    destination_first = True

    def __init__(self, path: str) -> None:
        self._path = path

    async def offer(self, end: End) -> Address:
        return {"uri": f"unix:{self._path}"}

    async def withdraw(self, end: End) -> None:
        pass

    def connected(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    def cut(self) -> None:
        pass

    def close(self) -> None:
        self.connected()


class File:
    """A file, which the source writes or the destination reads.

    :param fd: open, and closed by this.
    """

    two_way = False
    destination_first = False

    def __init__(self, path: str, fd: int) -> None:
        self._path = path
        self._fd = fd
        self._name = f"vmfsm-migration-{next(_numbers)}"

    @staticmethod
    def has_address(machine: Machine) -> bool:
        """Whether QEMU opens files itself; else it is handed them."""
        return machine.qmp.version >= _LISTS_CHANNELS

    async def offer(self, end: End) -> Address:
        if self.has_address(end.machine):
            address = {"transport": "file", "filename": self._path, "offset": 0}
            return {"channels": [{"channel-type": "main", "addr": address}]}
        return await _hand_over(end.machine, self._fd, self._name)

    async def withdraw(self, end: End) -> None:
        if not self.has_address(end.machine):
            await _take_back(end, self._name)

    def connected(self) -> None:
        self.close()

    def cut(self) -> None:
        pass

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


async def _hand_over(machine: Machine, fd: int, name: str) -> Address:
    await machine.qmp.aio.execute_with_fd(fd, "getfd", fdname=name, timeout=None)
    return {"uri": f"fd:{name}"}


async def _take_back(end: End, name: str) -> None:
    await end.machine.qmp.aio.execute_raw("closefd", fdname=name)  # an error: QEMU has closed it


def open_saved(path: str) -> int:
    """What is to be loaded, opened without waiting for anybody, as opening a FIFO would.

    :raises OSError: as the system says.
    :raises ConfigError: where it is no file: a QEMU that is told to load it may end of that.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        _require_file(path, os.fstat(fd).st_mode)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _require_file(path: str, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise ConfigError(f"{path} is no file", field="path")


class NewFile:
    """A file (0600) that is there when it is whole, and not before, nor instead of one that was there.

    :param overwrite: what is there is replaced, when the new one is whole.
    :raises OSError: as the system says; `FileExistsError` where there is one.
    :raises ConfigError: where there is something else, which is not overwritten.
    """

    def __init__(self, path: str, *, overwrite: bool) -> None:
        self._final = path
        if overwrite:
            with contextlib.suppress(FileNotFoundError):
                _require_file(path, os.lstat(path).st_mode)
            directory, name = os.path.split(path)
            self.fd, self.path = tempfile.mkstemp(prefix=f".{name}.", dir=directory)
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self.fd, self.path = os.open(path, flags, 0o600), path

    def keep(self) -> None:
        if self.path != self._final:
            os.replace(self.path, self._final)

    def abandon(self) -> None:
        """It was made for nobody."""
        os.close(self.fd)
        self.discard()

    def discard(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
