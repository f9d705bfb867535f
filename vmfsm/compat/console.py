"""The console of one launch."""

import contextlib
import os
import socket

from vmfsm import LaunchPlan, Machine, hookimpl

from .command_line import socket_options
from .relay import Relay


class _UntilTheEnd:
    """The plugin that reads what QEMU leaves."""

    name = "compat-console"

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self.planned = False

    @hookimpl
    async def pre_launch(self, plan: LaunchPlan) -> None:
        self.planned = True
        plan.on_exit(self._relay.dry)
        plan.defer(self._end)

    async def _end(self) -> None:
        self._relay.close()


class Console:
    """What QEMU's console is connected to, from before a launch to its end.

    It is always drained, so that QEMU never waits for a reader; who reads gets everything from power-on.

    :param path: where QEMU listens; `None`: it is given one end of a socket pair.
    :param log: a file that gets all that the guest says, as it comes.
    :param directory: for what nobody has read yet and does not fit into memory.
    :raises OSError: as the system says.
    """

    def __init__(self, path: str | None, log: str | None, directory: str) -> None:
        self.path = path
        self.pair: tuple[socket.socket, socket.socket] | None = None
        """QEMU's end, inheritable, and the reader's; `None` with a path."""
        self._relay = Relay(log, directory)
        self._reader = self._relay.reader
        self._until_the_end = _UntilTheEnd(self._relay)
        self.plugins: list[object] = [self._until_the_end]
        """For the machine."""
        if path is None:
            with contextlib.ExitStack() as unless_made:
                unless_made.callback(self.close)
                ours, theirs = socket.socketpair()
                theirs.set_inheritable(True)
                self._relay.attach(ours)
                self.pair = theirs, self._reader
                unless_made.pop_all()

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
        elif self.path is not None:
            self._relay.connect(self.path)

    def connect(self) -> int:
        """A descriptor of the reader's socket, to write to, too; the caller's. All of them are one stream."""
        return os.dup(self._reader.fileno())

    def close(self) -> None:
        """Nobody reads any more: QEMU is about to be ended. May be called twice."""
        if self.pair is not None:
            self.pair[0].close()
        self._reader.close()
        if not self._until_the_end.planned:
            self._relay.close()
