"""From the keyboard, or a pipe, to the guest's console."""

import contextlib
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Self

from vmfsm import Machine
from vmfsm.cli.terminal.keys import EscapeKeys, Keyboard
from vmfsm.cli.terminal.raw import RawTerminal

_STDIN = 0

HELP = """\
Ctrl-] ?       this
Ctrl-] q       stop the machine, as Ctrl-C does; again: kill it
Ctrl-] k       kill it
Ctrl-] c       send Ctrl-C to the guest
Ctrl-] s       what is going on
Ctrl-] Ctrl-]  send Ctrl-] to the guest"""


class Talking:
    """Inside of the `with` block, what comes on stdin goes to the machine's first console.

    :param terminal: stdin is one: it is made raw, and the escape key leads in commands.
    :param interrupts: Ctrl-C is not for the guest.
    :param ask: what to do on a command: `quit`, `kill`.
    :param tell: shows something to the person.
    :param status: what is going on, in a line.

    The machine is running. What comes once it is not is thrown away.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        terminal: bool,
        interrupts: bool,
        ask: Callable[[str], object],
        tell: Callable[[str], object],
        status: Callable[[], str],
    ) -> None:
        self._machine = machine
        self._ask = ask
        self._tell = tell
        self._status = status
        self._keys = EscapeKeys() if terminal else None
        self._raw = RawTerminal(_STDIN, interrupts=interrupts) if terminal else None
        self._socket: socket.socket | None = None
        self._keyboard: Keyboard | None = None

    def __enter__(self) -> Self:
        self._socket = self._machine.console.socket()
        self._socket.shutdown(socket.SHUT_RD)  # what the guest says goes another way
        if self._raw is not None:
            self._raw.__enter__()
        self._keyboard = Keyboard(_STDIN, self._got)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._raw is not None:
            self._raw.__exit__(kind, error, traceback)
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # lets go who waits for the guest to read
        if self._keyboard is not None:
            self._keyboard.close()
        if self._socket is not None:
            self._socket.close()

    def _got(self, data: bytes) -> None:
        for part in [data] if self._keys is None else self._keys.split(data):
            if isinstance(part, bytes):
                self._send(part)
            else:
                self._command(part)

    def _send(self, data: bytes) -> None:
        assert self._socket is not None
        with contextlib.suppress(OSError):  # the machine has ended
            self._socket.sendall(data)

    def _command(self, key: str) -> None:
        match key:
            case "?" | "h":
                self._tell(HELP)
            case "q" | "." | "d":
                self._ask("quit")
            case "k":
                self._ask("kill")
            case "c":
                self._send(b"\x03")
            case "s":
                self._tell(self._status())
            case _:
                self._tell("Ctrl-] ? shows what there is")
