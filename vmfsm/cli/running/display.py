"""What is shown of a machine: its console on stdout, and on stderr what QEMU and vmfsm have to say."""

import contextlib
import errno
import os
import time
from collections.abc import Callable

from vmfsm import ConfigError, Machine, printable
from vmfsm.cli.terminal.departure import Departure
from vmfsm.cli.terminal.raw import is_ours
from vmfsm.cli.terminal.sinks import Plain, Screen, StatusLine
from vmfsm.cli.terminal.writer import Writer

_STDOUT, _STDERR = 1, 2
_STDERR_PATIENCE = 2.0
"""Seconds for who reads stderr to take the last of it; who reads stdout has all the time that it wants."""
_LONGEST_LINE = 4096
_GONE = frozenset({errno.EPIPE, errno.EIO, errno.ECONNRESET})
"""What it is to write where nobody reads any more: a pipe, a terminal, a socket."""


class Display:
    """Writers for stdout and stderr: one, where both are the terminal.

    :param status: asked for the status line, where there is a terminal for it; `None` for no such line.
    :param interrupt: called with `pipe` when whoever read stdout has gone, with `stdout` when that can't be
        written.
    :param quiet: no messages but the verdict.
    """

    def __init__(
        self, *, status: Callable[[], str] | None, interrupt: Callable[[str], object], quiet: bool
    ) -> None:
        self._quiet = quiet
        self._interrupt = interrupt
        self.failed = False
        """Something of the console's output could not be written, and not for want of a reader."""
        self.last_output = time.monotonic()
        """When the console said something last."""
        self._departure = contextlib.ExitStack()
        on_terminal = is_ours(_STDERR) and os.environ.get("TERM") != "dumb"
        self.has_console = os.isatty(_STDOUT) and on_terminal
        """Console and messages share a terminal."""
        if self.has_console:
            self._out = self._err = Writer(Screen(_STDOUT), status=status, failed=self._stdout_failed)
        else:
            self._out = Writer(Plain(_STDOUT), failed=self._stdout_failed)
            self._departure.enter_context(Departure(_STDOUT, lambda: interrupt("pipe")))
            sink = StatusLine(_STDERR) if on_terminal else Plain(_STDERR)
            self._err = Writer(sink, status=status if on_terminal else None)

    def follow(self, machine: Machine) -> None:
        """Show the first console, and QEMU's output, of this machine."""
        with contextlib.suppress(ConfigError):  # there is none
            machine.console.subscribe(self._console)
        with contextlib.suppress(ConfigError):
            machine.log.subscribe(_Lines(self.message))

    def message(self, text: str) -> None:
        """Something to be told, but not with `--quiet`. From any thread; never waits."""
        if not self._quiet:
            self.verdict(text)

    def verdict(self, text: str) -> None:
        """The same, also with `--quiet`."""
        self._err.message(printable(text))

    def close_console(self) -> None:
        """Wait until all that the console said is written: as long as whoever reads that takes."""
        self._departure.close()
        if self._out is not self._err:
            self._out.close()
        if self._out.lost:
            self.verdict(
                f"{self._out.lost} bytes of the console were not shown: no room for what was not read in time"
            )

    def close(self) -> None:
        """Write what is left of the messages."""
        self._err.close(None if self._out is self._err else _STDERR_PATIENCE)

    def _stdout_failed(self, error: OSError) -> None:
        if error.errno in _GONE:
            self._interrupt("pipe")
        else:
            self.message(f"vmfsm run: stdout: {error}")
            self.failed = True
            self._interrupt("stdout")

    def _console(self, data: bytes) -> None:
        if data:
            self.last_output = time.monotonic()
            self._out.data(data)


class _Lines:
    """Makes lines of bytes as they come."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        self._tell = tell
        self._begun = b""

    def __call__(self, data: bytes) -> None:
        *lines, self._begun = (self._begun + data).split(b"\n")
        if self._begun and (not data or len(self._begun) > _LONGEST_LINE):
            lines.append(self._begun)
            self._begun = b""
        for line in lines:
            self._tell(line.decode("utf-8", "backslashreplace").removesuffix("\r"))
