"""QEMU's character devices (`-chardev socket`): at most one connection each, at a time."""

from __future__ import annotations

import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK = 65536


class Channel:
    """A socket that was inherited or is connected to, or one that listens for one connection after the other.

    :param options: those of the character device.
    """

    def __init__(self, options: dict[str, str]) -> None:
        self.reads = True
        """Whether what the other end sends is read."""
        self.begun = False
        """Whether anything is read or accepted at all yet."""
        self.on_connect: Callable[[], object] = lambda: None
        self.on_data: Callable[[bytes], object] = lambda data: None
        self._fd: int | None = None
        self._listener: int | None = None
        self._out = bytearray()
        fd = int(options["fd"]) if "fd" in options else _open(options)
        os.set_blocking(fd, False)
        if options.get("server") == "on":
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

    def close(self, *, for_good: bool = False) -> None:
        """Hang up; `for_good`: and let nobody connect again."""
        if for_good and self._listener is not None:
            os.close(self._listener)  # first: who sees the end of the connection can't get another one
            self._listener = None
        if self._fd is not None:
            os.close(self._fd)
        self._fd = None
        self._out.clear()

    # -- for the loop ---------------------------------------------------------------------------------------

    def interest(self) -> tuple[int, int]:
        """The descriptor to watch, and what for: a mask of poll(2), 0 for nothing."""
        if self._fd is not None:
            return self._fd, (select.POLLIN if self._may_read else 0) | (0 if self.idle else select.POLLOUT)
        if self._listener is not None and self.begun:
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


def _open(options: dict[str, str]) -> int:
    """The socket at a path: one that listens there, or is connected to who does."""
    import socket

    made = socket.socket(socket.AF_UNIX)
    if options.get("server") == "on":
        made.bind(options["path"])
        made.listen(1)
    else:
        made.connect(options["path"])
    return made.detach()
