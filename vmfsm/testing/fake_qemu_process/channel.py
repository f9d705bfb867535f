"""QEMU's character devices (`-chardev socket`): at most one connection each, at a time."""

from __future__ import annotations

import os
import select

from .sockets import open_socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .arguments import Chardev

_CHUNK = 65536


class Channel:
    """A socket that was inherited or is connected to, or one that listens for one connection after the other.

    :raises Refused: by the constructor, when there is no such socket to be had.
    """

    def __init__(self, chardev: Chardev) -> None:
        self.reads = True
        """Whether what the other end sends is read."""
        self.begun = False
        """Whether anything is read or accepted at all yet."""
        self.connections = 0
        """How many have ended: tells one from the next."""
        self.on_connect: Callable[[], object] = lambda: None
        self.on_data: Callable[[bytes], object] = lambda data: None
        self._fd: int | None = None
        self._listener: int | None = None
        self._out = bytearray()
        listens = chardev.flag("server", False)
        self.is_awaited = listens and chardev.flag("wait", True)
        """Whether QEMU starts only when somebody is connected."""
        self._path = chardev.get("path") if listens and not chardev.flag("abstract", False) else None
        fd = open_socket(chardev)
        os.set_blocking(fd, False)
        if listens:
            self._listener = fd
        else:
            self._fd = fd

    @property
    def connected(self) -> bool:
        return self._fd is not None

    @property
    def idle(self) -> bool:
        """Whether the system has taken all that was written, or nobody is there to get it."""
        return not self._out

    def write(self, data: bytes) -> None:
        """Send as much as there is room for; the rest later."""
        if self._fd is not None:
            self._out += data
            if len(self._out) == len(data):
                self._send()

    def close(self) -> None:
        """Hang up."""
        if self._fd is not None:
            os.close(self._fd)
            self.connections += 1
        self._fd = None
        self._out.clear()

    def stop_listening(self) -> None:
        """Let nobody connect any more."""
        if self._listener is not None:
            os.close(self._listener)
            self._listener = None

    def remove(self) -> None:
        """Remove the name of the listening socket, as QEMU does when it ends well."""
        if self._path is not None:
            try:  # `contextlib` is half of what it would take to start
                os.unlink(self._path)
            except OSError:
                return

    # -- for the loop ---------------------------------------------------------------------------------------

    def interest(self) -> tuple[int, int]:
        """The descriptor to watch, and what for: a mask of poll(2), 0 for nothing."""
        if self._fd is not None:
            return self._fd, (select.POLLIN if self._may_read else 0) | (0 if self.idle else select.POLLOUT)
        if self._listener is not None and (self.begun or self.is_awaited):
            return self._listener, select.POLLIN
        return -1, 0

    def serve(self) -> None:
        """Do what there is to be done."""
        if self._fd is None:
            if self._listener is not None:  # it may have been closed since it was seen to be ready
                self._accept(self._listener)
            return
        if not self.idle:
            self._send()
        if self._may_read and self._fd is not None:
            try:
                data = os.read(self._fd, _CHUNK)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if data:
                self.on_data(data)
            else:
                self.close()

    @property
    def _may_read(self) -> bool:
        return self.reads and self.begun

    def _accept(self, fd: int) -> None:
        import socket

        with socket.socket(fileno=os.dup(fd)) as listener:
            try:
                self._fd = listener.accept()[0].detach()
            except OSError:  # who wanted to connect is gone already
                return
        os.set_blocking(self._fd, False)
        self.is_awaited = False
        if self.begun:
            self.on_connect()

    def _send(self) -> None:
        assert self._fd is not None
        try:
            sent = os.write(self._fd, self._out)
        except BlockingIOError:
            return
        except OSError:
            self.close()
        else:
            del self._out[:sent]
