"""Telling people how to look at a machine that is held for them."""

import collections
import contextlib
import os
import shlex
import threading
from typing import TYPE_CHECKING

from .errors import printable
from .perprocess import per_process
from .workers import Workers

if TYPE_CHECKING:
    from .holds import Hold
    from .machine import Machine

_TERMINAL = "/dev/tty"


def how_to_attach(machine: "Machine", hold: "Hold") -> str:
    """Why it is held, and by which commands people get at what of it."""
    name = printable(machine.name)
    argument = shlex.quote(name)
    head = f"vmfsm: {name} is held ({printable(str(hold))}): its deadlines stand still"
    lines = [
        f"{head}, and it is kept until it is released" if hold.keep else head,
        f"  console: vmfsm console {argument}",
        f"  monitor: vmfsm qmp {argument}",
        f"  gdb:     vmfsm gdb {argument}",
        f"  go on:   {release_by(name)}",
    ]
    address = getattr(machine._plugins.get("qmp"), "address", None)
    if address is not None and machine.pid is not None:
        where = address if isinstance(address, str) else ":".join(map(str, address))
        lines.append(f"  QEMU is process {machine.pid}; its QMP for anybody is at {printable(where)}")
    return "\n".join(lines)


def release_by(name: str) -> str:
    """The command that releases a machine."""
    return f"vmfsm release {shlex.quote(name)}"


def say(text: str, *, on_terminal: bool = False) -> None:
    """Print a text on stderr, soon. From any thread; never waits.

    :param on_terminal: and on the terminal that the harness was started from, where stderr is none: a test
        runner may keep stderr for itself, until a test is over that waits for who is to see this.
    """
    with contextlib.suppress(OSError, RuntimeError):  # no thread can be had, or the interpreter exits
        per_process(_Voice).say(f"{text}\n".encode(), on_terminal)


class _Voice:
    """Prints by threads of the framework's, in the order of the texts."""

    def __init__(self) -> None:
        self._texts: collections.deque[tuple[bytes, bool]] = collections.deque()
        self._printing = threading.Lock()

    def say(self, text: bytes, on_terminal: bool) -> None:
        self._texts.append((text, on_terminal))
        Workers.get().submit_observer(self._print_next)

    def _print_next(self) -> None:
        with self._printing:
            _print(*self._texts.popleft())


def _print(data: bytes, on_terminal: bool) -> None:
    with contextlib.suppress(OSError):  # it is closed, say
        os.write(2, data)
    with contextlib.suppress(OSError):  # there is no terminal
        if on_terminal and not os.isatty(2):
            terminal = os.open(_TERMINAL, os.O_WRONLY | os.O_NOCTTY)
            try:
                if os.tcgetpgrp(terminal) == os.getpgrp():  # else writing might stop this process
                    os.write(terminal, data)
            finally:
                os.close(terminal)
