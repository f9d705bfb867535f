"""Signals, and what else ends a wait of the main thread, at places where that may be."""

import contextlib
import math
import os
import signal
import termios
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, Self

_ENDINGS = (signal.SIGTERM, signal.SIGHUP)
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_OURS = signal.SIGUSR1
"""What wakes the main thread for something that is no signal."""
_AGAIN = 0.02
"""Seconds until the main thread is woken again."""
_SAME = 0.5
"""Seconds between two SIGTERMs that are one: timeout(1) sends it to the process, and then to its group."""


class Interrupted(BaseException):
    """Somebody wants the end: `why` is the name of a signal, or what `Interrupts.interrupt` was given."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Interrupts:
    """Inside of the `with` block, signals and `interrupt` raise `Interrupted`, in `raising` only.

    One that comes elsewhere is raised by the next `raising`. For the main thread.
    """

    def __init__(self) -> None:
        self._raising = False
        self._asked: list[str] = []
        self._before: dict[int, Any] = {}
        self._terminated = -math.inf
        self._unheard = False
        self._pipe = (-1, -1)
        self._fd_before = -1

    def __enter__(self) -> Self:
        for number in (*_SIGNALS, _OURS):
            # What ignores SIGHUP, as nohup(1) has it, goes on doing that.
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._handle)
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        self._fd_before = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._insist, args=(self._pipe[0],), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._fd_before)
        os.close(self._pipe[1])  # which ends the thread
        self._thread.join()
        for number, handler in self._before.items():
            # `interrupt` may be called yet, by a thread: that is nothing to die of.
            signal.signal(number, _nothing if number == _OURS else handler)

    def interrupt(self, why: str) -> None:
        """Interrupt the main thread. From any thread."""
        self._asked.append(why)
        signal.pthread_kill(threading.main_thread().ident or 0, _OURS)

    def _insist(self, fd: int) -> None:
        """Wake the main thread until it has heard of a signal.

        One that comes just before it blocks wakes it no more: Python looks for signals before it begins to
        wait, and when the wait is interrupted (library/signal, `set_wakeup_fd`).
        """
        with open(fd, "rb", buffering=0) as signals:
            while numbers := signals.read(64):
                self._unheard = any(number in _SIGNALS for number in numbers)
                while self._unheard:
                    signal.pthread_kill(threading.main_thread().ident or 0, _OURS)
                    time.sleep(_AGAIN)

    @contextlib.contextmanager
    def raising(self) -> Iterator[None]:
        """A piece of the program that may be interrupted anywhere."""
        self._raising = True
        try:
            self._raise()
            yield
        finally:
            self._raising = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == _OURS:
            self._unheard = False
        if number == signal.SIGTERM:
            before, self._terminated = self._terminated, time.monotonic()
            if self._terminated - before < _SAME:
                return
        if number != _OURS:
            self._asked.append(signal.Signals(number).name)
        if self._raising:
            self._raise()

    def _raise(self) -> None:
        if self._asked:
            self._raising = False
            raise Interrupted(self._asked.pop(0))


def _nothing(number: int, frame: FrameType | None) -> None:
    pass


class _Unwound(SystemExit):
    """asyncio, on which shells run, lets nothing else through, but for KeyboardInterrupt."""


@contextlib.contextmanager
def unwinding() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind what is inside, which gives the terminal back, before they end the process.

    For the main thread.
    """
    came: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) == 1:  # what gives the terminal back is not interrupted
            raise _Unwound

    before = {number: signal.getsignal(number) for number in _ENDINGS}
    settings = None
    with contextlib.suppress(termios.error, OSError):
        settings = termios.tcgetattr(0)
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, end)
        yield
    except _Unwound:
        pass
    finally:
        if came and settings is not None:  # whoever was to give it back may have been hit in that
            with contextlib.suppress(termios.error, OSError):
                termios.tcsetattr(0, termios.TCSANOW, settings)
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
