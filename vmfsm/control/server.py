"""The socket of this process at which its machines can be asked, by programs of the same user.

It is served by the I/O thread, so it answers while the harness computes, waits, or stands in a debugger.
"""

import asyncio
import atexit
import contextlib
import functools
import importlib
import logging
import os
import socket
import time
from typing import TYPE_CHECKING, Any

from vmfsm.iothread import IOThread, outcome
from vmfsm.paths import socket_name
from vmfsm.peers import check_peer, credentials
from vmfsm.perprocess import per_process
from vmfsm.workers import Workers

if TYPE_CHECKING:
    from .connection import Connection

# The rest is imported when somebody asks, or a while after the first launch, which has no need of it.

_LOGGER = logging.getLogger("vmfsm.control")

_MOST_CONNECTIONS = 64
_BACKLOG = 128
_ACCEPTED_A_TURN = 16
_PAUSE = 1.0
"""Seconds until it is tried again to take a connection, where the system lacks descriptors."""

_WARM_UP = 1.0
"""Seconds until what is needed for an answer is made ready: who asks many harnesses waits for all of them."""
_LAST_WORDS = 1.0
"""Seconds that the end of the program may take longer for those who are connected."""


_open: set[socket.socket] = set()
"""Which a forked child is to close: else nobody would see that its parent has ended."""


class Server:
    """Of this process. On the I/O thread only."""

    def __init__(self) -> None:
        self.connections: set[Connection] = set()
        self._io = IOThread.get()
        self._listener: socket.socket | None = None
        self._one_has_left = asyncio.Event()

    @classmethod
    def get(cls) -> "Server":
        return per_process(cls)

    def listen(self, path: str) -> None:
        """Answer at `path` from now on, to the end of the process; where that can't be, log a warning."""
        try:
            self._listener = listener = _bound(path)
        except OSError as error:
            _LOGGER.warning("no control socket, so `vmfsm` can't look at this process: %s", error)
            return
        _open.add(listener)
        self._io.loop.add_reader(listener, self._accept, listener)
        atexit.register(self._leave, path, os.getpid())
        self._io.loop.call_later(_WARM_UP, Workers.get().submit, _warm_up)

    @property
    def descriptors(self) -> frozenset[int]:
        """Those that are open for it. From any thread."""
        return frozenset(one.fileno() for one in tuple(_open))

    @property
    def tasks(self) -> frozenset[Any]:
        """Those of the requests in progress."""
        return frozenset(task for connection in self.connections for task in connection.tasks.values())

    def _leave(self, path: str, pid: int) -> None:
        """The interpreter exits."""
        if os.getpid() != pid:
            return  # a forked child
        with contextlib.suppress(OSError):
            os.unlink(path)  # the watchdog would do it, too, a moment later
        if self.connections:
            told = asyncio.run_coroutine_threadsafe(self._say_goodbye(), self._io.loop)
            with contextlib.suppress(TimeoutError):
                told.result(_LAST_WORDS)

    async def _say_goodbye(self) -> None:
        """Tell what happened last: many programs end when their machine has been ended from here."""
        from .operations import ends_are_told

        await ends_are_told()
        for connection in tuple(self.connections):
            connection.leave()
        while self.connections:  # those who read a little later
            self._one_has_left.clear()
            await self._one_has_left.wait()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTED_A_TURN):
            try:
                connection, _ = listener.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue  # that one has gone already
            except OSError as error:  # no descriptor is free
                _LOGGER.warning("the control socket takes nobody for a while: %s", error)
                self._io.loop.remove_reader(listener)
                self._io.loop.call_later(_PAUSE, self._io.loop.add_reader, listener, self._accept, listener)
                return
            connection.setblocking(False)
            try:
                check_peer(connection)
                peer = credentials(connection)
            except OSError as error:
                _LOGGER.warning("refused at the control socket: %s", error)
                connection.close()
                continue
            if len(self.connections) >= _MOST_CONNECTIONS:
                _turn_away(connection)
                continue
            _open.add(connection)
            self._io.start(self._connect(connection, peer))

    async def _connect(self, end: socket.socket, peer: tuple[int, int]) -> None:
        from .connection import Connection
        from .protocol import Peer

        connection = Connection(end, Peer(*peer), _greeting(), self._lost)
        self.connections.add(connection)
        error, _ = await outcome(self._io.loop.connect_accepted_socket(lambda: connection, end))
        if error is not None:
            end.close()
            self._lost(connection)

    def _lost(self, connection: "Connection") -> None:
        self.connections.discard(connection)
        _open.discard(connection.socket)
        self._one_has_left.set()


def _bound(path: str) -> socket.socket:
    """A listening socket at `path`, this user's alone from its first moment.

    :raises OSError: as the system says.
    """
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.setblocking(False)
        os.fchmod(listener.fileno(), 0o600)  # Linux makes the file with it (unix(7))
        with socket_name(path) as name:
            listener.bind(name)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _warm_up() -> None:
    """In a worker, which nothing may end: where it fails, who asks is told."""
    with contextlib.suppress(Exception):
        importlib.import_module("vmfsm.control.connection")
        _version()


def _greeting() -> dict[str, object]:
    from .protocol import PROTOCOL

    return {
        "vmfsm": _version(),
        "protocol": PROTOCOL,
        "pid": os.getpid(),
        "time": time.time(),
        "monotonic": time.monotonic(),
    }


@functools.cache
def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("vmfsm")
    except metadata.PackageNotFoundError:  # it runs from somewhere that it was not installed to
        return "unknown"


def _turn_away(connection: socket.socket) -> None:
    from .protocol import encode

    message = {"type": "Busy", "message": f"there are {_MOST_CONNECTIONS} connections already"}
    with contextlib.suppress(OSError):
        connection.send(encode({"id": None, "error": message}))
    connection.close()


def _close_in_child() -> None:
    # Not by their `close`, nor ever by the garbage collector: they are of a loop that is the parent's.
    for one in _open:
        with contextlib.suppress(OSError):
            os.close(one.detach())
    _open.clear()


os.register_at_fork(after_in_child=_close_in_child)
