"""The console of one launch."""

import os
import socket

from vmfsm import Machine

from .command_line import socket_options


class Console:
    """What QEMU's console is connected to, from before a launch to its end.

    :param path: where QEMU listens; `None`: it is given one end of a socket pair.
    :param log: a file that gets all that the guest says.
    :raises OSError: as the system says.
    """

    def __init__(self, path: str | None, log: str | None) -> None:
        self.path = path
        self.log = log
        self.plugins: list[object] = []
        """For the machine."""
        self.pair: tuple[socket.socket, socket.socket] | None = None
        """QEMU's end, inheritable, and the reader's."""
        if path is None:
            self.pair = socket.socketpair()
            self.pair[0].set_inheritable(True)

    @property
    def chardev(self) -> str:
        """For `-chardev`."""
        if self.pair is not None:
            return socket_options("console", fd=self.pair[0].fileno())
        return socket_options("console", address=self.path, listen=True)

    def attach(self, machine: Machine) -> None:
        """QEMU lives, and the monitor, if there is one, has answered."""
        if self.pair is not None:
            self.pair[0].close()

    def connect(self) -> int:
        """A descriptor of a new socket to read the console from, and to write to it; the caller's."""
        if self.pair is not None:
            return os.dup(self.pair[1].fileno())
        assert self.path is not None
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(self.path)
            return connection.detach()

    def close(self) -> None:
        """Nobody reads any more: QEMU is about to be ended. May be called twice."""
        if self.pair is not None:
            for end in self.pair:
                end.close()
