"""A terminal whose keys come one by one, as they are, and how it was before."""

import contextlib
import os
import termios
from types import TracebackType
from typing import Any, Self


def is_ours(fd: int) -> bool:
    """Whether `fd` is a terminal that this process may read: not one that another job has."""
    try:
        return os.isatty(fd) and os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:  # no terminal of our session
        return False


class RawTerminal:
    """Inside of the `with` block, no key means anything to the terminal, and nothing is echoed.

    :param interrupts: Ctrl-C still does: it sends SIGINT.

    What is written to it is treated as ever, since others write there, too: LF is CR LF, and what has a CR
    already gets another one, which does nothing.
    """

    def __init__(self, fd: int, *, interrupts: bool) -> None:
        self._fd = fd
        self._interrupts = interrupts
        self._before: list[Any] = []

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
        termios.tcsetattr(self._fd, termios.TCSANOW, raw)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.suppress(termios.error, OSError):  # it may have gone away
            termios.tcsetattr(self._fd, termios.TCSANOW, self._before)
