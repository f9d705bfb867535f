"""The sockets by which QEMU's monitor is reached: made here, before QEMU is."""

import asyncio
import contextlib
import errno
import os
import socket
import stat

from vmfsm.peers import check_peer

from .command_line import Address, socket_options


class Pair:
    """A socket pair. QEMU is given one end, which it inherits."""

    address: Address = None

    def __init__(self) -> None:
        """:raises OSError: as the system says."""
        self.ends = socket.socketpair()
        """QEMU's, inheritable, and ours."""
        self.ends[0].set_inheritable(True)

    @property
    def chardev(self) -> str:
        return socket_options("mon", fd=self.ends[0].fileno())

    async def connect(self) -> socket.socket:
        ours = socket.socket(fileno=self.ends[1].detach())
        ours.setblocking(False)
        return ours

    def close(self) -> None:
        for end in self.ends:
            end.close()


class Listener:
    """A socket that QEMU connects to: at a path, or at host and port (0: a free one).

    A socket at that path which nobody listens at any more is replaced.
    """

    def __init__(self, address: str | tuple[str, int]) -> None:
        """:raises OSError: as the system says."""
        self._path = address if isinstance(address, str) else None
        if isinstance(address, str):
            self._socket = listen_at_path(address)
            self.address: Address = address
        else:
            self._socket = listen_at_port(*address)
            self.address = address[0], self._socket.getsockname()[1]

    @property
    def chardev(self) -> str:
        return socket_options("mon", address=self.address)

    async def connect(self) -> socket.socket:
        """The first connection on which anything is said: QEMU greets, whoever has lost his way does not."""
        try:
            return await self._accept()
        finally:
            self._socket.close()

    async def _accept(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        self._socket.setblocking(False)
        found: asyncio.Future[socket.socket] = loop.create_future()
        waiting: set[socket.socket] = set()

        def accept() -> None:
            with contextlib.suppress(OSError):  # it has gone again
                connection, _ = self._socket.accept()
                if not _is_ours(connection):
                    connection.close()
                    return
                connection.setblocking(False)
                waiting.add(connection)
                loop.add_reader(connection, hear, connection)

        def hear(connection: socket.socket) -> None:
            said = b""
            with contextlib.suppress(OSError):
                said = connection.recv(1, socket.MSG_PEEK)
            loop.remove_reader(connection)
            waiting.discard(connection)
            if said and not found.done():
                found.set_result(connection)
            else:
                connection.close()

        loop.add_reader(self._socket, accept)
        try:
            return await found
        except BaseException:
            if found.done() and not found.cancelled():
                found.result().close()
            raise
        finally:
            loop.remove_reader(self._socket)
            for connection in waiting:
                loop.remove_reader(connection)
                connection.close()

    def close(self) -> None:
        self._socket.close()


def _is_ours(connection: socket.socket) -> bool:
    try:
        check_peer(connection)
    except PermissionError:
        return False
    return True


def listen_at_path(path: str) -> socket.socket:
    """A listener there, for this user only, in place of a socket that nobody listens at any more.

    :raises OSError: as the system says, with the path, or that of the directory where that is missing.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(listener.fileno(), 0o600)  # Linux makes the file with it (unix(7))
        try:
            listener.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_stale(path):
                raise
            os.unlink(path)
            listener.bind(path)
        listener.listen()
    except OSError as error:
        listener.close()
        if error.errno is None:  # only Python refuses it
            raise OSError(errno.ENAMETOOLONG, "the path is too long for a socket", path) from error
        is_missing = error.errno == errno.ENOENT
        error.filename = os.path.dirname(path) or "." if is_missing else path  # `bind` does not tell
        raise
    except BaseException:
        listener.close()
        raise
    return listener


def _is_stale(path: str) -> bool:
    """Whether there is a socket that nobody listens at."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(path) == errno.ECONNREFUSED


def listen_at_port(host: str, port: int) -> socket.socket:
    """A listener there; port 0: at a free one.

    :raises OSError: as the system says.
    """
    family, _, _, _, address = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener
