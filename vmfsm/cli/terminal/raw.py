"""A terminal whose keys come one by one, as they are, and how it was before."""

import contextlib
import os
import signal
import termios
from types import FrameType, TracebackType
from typing import Any, Self


def is_ours(fd: int) -> bool:
    """Whether `fd` is a terminal that this process may read: not one that another job has."""
    try:
        return os.isatty(fd) and os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:  # no terminal of our session
        return False


def is_of_another_job(fd: int) -> bool:
    """Whether who reads this terminal is stopped for that (SIGTTIN): another job of the shell has it."""
    try:
        return os.isatty(fd) and os.tcgetpgrp(fd) != os.getpgrp()
    except OSError:  # no terminal of our session: nobody minds
        return False


class RawTerminal:
    """Inside of the `with` block, no key means anything to the terminal, and nothing is echoed.

    :param interrupts: Ctrl-C still does: it sends SIGINT.

    What is written to it is treated as ever, since others write there, too: LF is CR LF, and what has a CR
    already gets another one, which does nothing.

    While the process is stopped by SIGTSTP, and in the background after that, it is as it was. For the main
    thread.
    """

    def __init__(self, fd: int, *, interrupts: bool) -> None:
        self._fd = fd
        self._interrupts = interrupts
        self._before: list[Any] = []
        self._raw: list[Any] = []
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = termios.tcgetattr(self._fd)
        raw: list[Any] = [*self._before[:6], list(self._before[6])]
        changed = termios.BRKINT | termios.ICRNL | termios.INLCR | termios.IGNCR
        raw[0] &= ~(changed | termios.INPCK | termios.ISTRIP | termios.IXON)
        raw[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN)
        if self._interrupts:
            never = os.fpathconf(self._fd, "PC_VDISABLE").to_bytes(1, "little")
            for key in (termios.VQUIT, termios.VSUSP):
                raw[6][key] = never
        else:
            raw[3] &= ~termios.ISIG
        raw[6][termios.VMIN], raw[6][termios.VTIME] = 1, 0
        self._raw = raw
        self._handlers[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, self._stop)
        self._handlers[signal.SIGCONT] = signal.signal(signal.SIGCONT, self._go_on)
        self._set(self._raw)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._set(self._before)

    def _set(self, attributes: list[Any]) -> None:
        """Where it is ours: another job's is not to be changed, and who tries is stopped (SIGTTOU)."""
        if is_ours(self._fd):
            with contextlib.suppress(termios.error):  # it has gone away
                termios.tcsetattr(self._fd, termios.TCSANOW, attributes)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._set(self._before)
        os.kill(os.getpid(), signal.SIGSTOP)

    def _go_on(self, number: int, frame: FrameType | None) -> None:
        """Also each time that the shell brings it to the foreground."""
        self._set(self._raw)
