"""QEMU's monitors: one on a socket pair, and one that listens, for connecting again and for others.

The listening socket is made here and given to QEMU, so that it is there before QEMU is: no port can be taken
by somebody else meanwhile.
"""

import asyncio
import contextlib
import errno
import os
import socket
import stat
from typing import Any, Protocol

from vmfsm import LaunchPlan, check_peer, socket_name
from vmfsm_plugins.blocking import in_thread

_FULL_QUEUE = 0.01
"""Seconds until the next try where others wait for QEMU already."""

_MONITOR = "vmfsm-qmp"
"""The id of the monitor's character device."""

Address = str | tuple[str, int] | None
Chardevs = dict[str, str]
"""QEMU's sockets for monitors: the options of the character devices, by id."""


class Connector(Protocol):
    """Where connections to a monitor come from. On the I/O thread only, but for `address`."""

    @property
    def address(self) -> Address:
        """Where others can connect to it."""

    async def connect(self) -> socket.socket:
        """A connected socket, which is the caller's.

        :raises OSError: as the system says.
        """


class Transport:
    """The sockets of one launch. On the I/O thread only, but for `address`.

    A socket pair has nobody else connect to it and ends at once when QEMU does, but can't be connected twice.
    So QEMU has a second monitor, which listens: at the address, or in the machine's private directory.

    The first connection is never to a listening monitor: QEMU (7.2 and 10.0) watches its socket in two
    threads while it sets it up, and who comes in that moment may get two greetings, or none for ever. When
    QEMU has answered a command, that is over.
    """

    def __init__(self, address: Address) -> None:
        self._ours: socket.socket | None = None
        self._listener: _UnixListener | _TCPListener | None = None
        self._is_private = address is None
        self._plan: LaunchPlan | None = None
        if isinstance(address, str):
            self._listener = _UnixListener(address)
        elif address is not None:
            self._listener = _TCPListener(*address)

    @property
    def address(self) -> Address:
        """Where QEMU listens for others; `None`: nowhere."""
        return None if self._is_private or self._listener is None else self._listener.address

    async def prepare(self, plan: LaunchPlan) -> Chardevs:
        """Make QEMU's sockets and put them on the plan; the character devices to use them by.

        :raises OSError: as the system says.
        """
        self._plan = plan
        if self._listener is None:
            self._listener = _UnixListener(os.path.join(plan.directory, "qmp"))
        listening = await self._listener.listen(plan)
        self._ours, theirs = socket.socketpair()
        return {_MONITOR: f"fd={plan.give(theirs)}", f"{_MONITOR}-spare": listening}

    async def connect(self) -> socket.socket:
        """A socket that is connected to a monitor.

        :raises OSError: as the system says; `PermissionError` where the other end is another user's.
        """
        ours, self._ours = self._ours, None
        if ours is None:
            assert self._listener is not None
            assert self._plan is not None
            connection = await self._listener.connect()
            try:
                check_peer(connection, pid=self._plan.pid)
            except BaseException:
                connection.close()
                raise
            return connection
        ours.setblocking(False)
        return ours

    async def close(self) -> None:
        """Leave nothing behind of what was not handed out."""
        ours, self._ours = self._ours, None
        if ours is not None:
            ours.close()
        if isinstance(self._listener, _UnixListener):
            self._listener.unlink()


def _listening(fd: int) -> str:
    return f"fd={fd},server=on,wait=off"


class _TCPListener:
    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._bound: tuple[socket.AddressFamily, tuple[object, ...]] | None = None

    @property
    def address(self) -> tuple[str, int]:
        return self._host, self._port

    async def listen(self, plan: LaunchPlan) -> str:
        """Put the listening socket on the plan; the options of its character device.

        :raises OSError: as the system says.
        """
        try:
            family, listener = await self._bind()
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror}: {self._host}:{self._port}") from error
        self._bound = family, listener.getsockname()
        self._port = listener.getsockname()[1]
        return f"{_listening(plan.give(listener))},nodelay=on"

    async def _bind(self) -> tuple[socket.AddressFamily, socket.socket]:
        family, address = await _resolve(self._host, self._port)
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(1)
        except OSError:
            listener.close()
            raise
        return family, listener

    async def connect(self) -> socket.socket:
        assert self._bound is not None
        family, address = self._bound
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(connection, address)
        except BaseException:
            connection.close()
            raise
        return connection


class _UnixListener:
    def __init__(self, path: str) -> None:
        self.address = path
        self._path = os.path.abspath(path)
        self._bound = False

    async def listen(self, plan: LaunchPlan) -> str:
        """Put the listening socket on the plan; the options of its character device.

        :raises OSError: as the system says.
        """
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.fchmod(
                listener.fileno(), 0o600
            )  # Linux makes the file with it (unix(7)): never open to others
            self._bind(listener)
            listener.listen(1)
        except OSError as error:
            listener.close()
            self.unlink()
            raise OSError(error.errno, f"{error.strerror}: {self._path}") from error
        plan.sockets.append(self._path)
        return _listening(plan.give(listener))

    def _bind(self, listener: socket.socket) -> None:
        with socket_name(self._path) as path:
            try:
                listener.bind(path)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                self._require_stale(path)
                os.unlink(self._path)
                listener.bind(path)
        self._bound = True

    def _require_stale(self, path: str) -> None:
        """:raises OSError: unless there is the socket of a process that has ended."""
        if not stat.S_ISSOCK(os.lstat(self._path).st_mode):
            raise FileExistsError(errno.EEXIST, "there is something else than a socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                return
            except OSError as error:  # it is not refused: somebody listens
                raise OSError(errno.EADDRINUSE, "in use by a living process") from error
        raise OSError(errno.EADDRINUSE, "in use by a living process")

    async def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            with socket_name(self._path) as path:
                # Not asyncio's: it takes "the queue is full" (connect(2), EAGAIN) for "on its way".
                while True:
                    try:
                        connection.connect(path)
                        return connection
                    except BlockingIOError:
                        await asyncio.sleep(_FULL_QUEUE)
        except BaseException:
            connection.close()
            raise

    def unlink(self) -> None:
        """Remove its file, if it is there."""
        if self._bound:
            self._bound = False
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)


async def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    """The family and address to bind to.

    :raises OSError: as the system says.
    """

    def look_up(flags: int = 0) -> tuple[socket.AddressFamily, Any]:
        flags |= socket.AI_PASSIVE
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=flags)
        return found[0][0], found[0][4]

    with contextlib.suppress(socket.gaierror):
        return look_up(socket.AI_NUMERICHOST)
    return await in_thread(look_up)  # a name may take long
