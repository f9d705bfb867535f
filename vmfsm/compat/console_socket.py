"""`ConsoleSocket`: a socket that is a guest's console."""

import contextlib
import socket
import tempfile

from .relay import Relay

PATIENCE = 300.0
"""Seconds that a call on a draining socket waits, unless `settimeout` or `setblocking` say otherwise."""


class ConsoleSocket(socket.socket):
    """A console that somebody listens at, or that is there already.

    :param address: the path of a Unix socket, connected to at once.
    :param sock_fd: a connected socket's descriptor, in place of `address`; it is the object's from now on.
    :param file: a file that gets every byte as it comes, read or not, which takes draining; what was in it
        is removed.
    :param drain: read it always, whether or not anybody looks, so that the guest never waits for a reader.
        Everything is kept until it is received.
    :raises ValueError: unless exactly one of `address` and `sock_fd` is given.
    :raises OSError: when it cannot be connected, or `file` cannot be opened.

    A socket like any other, draining or not: `recv` gives what there is and `b""` at the end, and
    `setblocking`, `settimeout` and `makefile` do what they always do. The size that `recv` takes is 1 where
    it is not given. Where it drains its timeout is 300 seconds to begin with.
    """

    _relay: Relay | None = None
    _file: str | None = None

    def __init__(
        self,
        address: str | None = None,
        file: str | None = None,
        drain: bool = False,
        *,
        sock_fd: int | None = None,
    ) -> None:
        if (address is None) == (sock_fd is None):
            raise ValueError("a console takes either an address or a descriptor (address, sock_fd)")
        console = _connected(address) if sock_fd is None else socket.socket(fileno=sock_fd)
        self._file = file
        if not drain and file is None:
            super().__init__(fileno=console.detach())
            self.setblocking(True)  # somebody may have had it before
            return
        try:
            relay = Relay(file, tempfile.gettempdir(), alone=True)
        except BaseException:
            console.close()
            raise
        super().__init__(fileno=relay.reader.detach())
        self._relay = relay
        relay.attach(console)
        self.settimeout(PATIENCE)

    def __repr__(self) -> str:
        drained = ", drained" if self._relay else ""
        file = "" if self._file is None else f", file={self._file!r}"
        return f"{super().__repr__().removesuffix('>')}{drained}{file}>"

    def recv(self, bufsize: int = 1, flags: int = 0) -> bytes:
        """As any socket's; one byte without a size."""
        return super().recv(bufsize, flags)

    def close(self) -> None:
        """As any socket's. What was sent is given a second to be taken, and the file is closed."""
        super().close()
        if self._relay is not None and self.fileno() < 0:
            self._relay.close()


def _connected(address: str | None) -> socket.socket:
    with contextlib.ExitStack() as unless_connected:
        console = unless_connected.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        console.settimeout(PATIENCE)
        console.connect(address)  # type: ignore[arg-type]  # it says so itself
        console.settimeout(None)
        unless_connected.pop_all()
    return console
