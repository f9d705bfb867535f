"""Signals, and what else ends a wait of the main thread, at places where that may be."""

import contextlib
import math
import os
import select
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

    Signals come through a pipe, which the main thread reads whenever it is woken by one; and as long as there
    is something to read, a thread wakes it. For one that comes just before a wait begins, or in another
    thread, does not end the wait: Python looks for signals before it begins to wait, and when the wait is
    interrupted (library/signal, `set_wakeup_fd`).
    """

    def __init__(self) -> None:
        self._raising = self._looking = False
        self._asked: list[str] = []
        self._before: dict[int, Any] = {}
        self._terminated = -math.inf

    def __enter__(self) -> Self:
        self._signals, self._wakeup = os.pipe()
        os.set_blocking(self._signals, False)
        os.set_blocking(self._wakeup, False)
        self._wakeup_before = signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        for number in (*_SIGNALS, _OURS):
            # What ignores SIGHUP, as nohup(1) has it, goes on doing that.
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._look)
        self._thread = threading.Thread(target=self._insist, name="vmfsm-signals", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._wakeup)  # which ends the thread
        self._thread.join()
        for number, handler in self._before.items():
            # `interrupt` may be called yet, by a thread: that is nothing to die of.
            signal.signal(number, _nothing if number == _OURS else handler)
        os.close(self._signals)

    def interrupt(self, why: str) -> None:
        """Interrupt the main thread. From any thread."""
        self._asked.append(why)
        _wake_main_thread()

    @contextlib.contextmanager
    def raising(self) -> Iterator[None]:
        """A piece of the program that may be interrupted anywhere."""
        self._raising = True
        try:
            self._look()
            yield
        finally:
            self._raising = False

    def _look(self, number: int = 0, frame: FrameType | None = None) -> None:
        """In the main thread: hear what came, and raise it where that may be."""
        if self._looking:
            return  # what came is read, or the thread wakes this one again
        self._looking = True
        with contextlib.suppress(BlockingIOError):
            while numbers := os.read(self._signals, 4096):
                for one in numbers:
                    self._note(one)
        self._looking = False
        if self._raising and self._asked:
            self._raising = False
            raise Interrupted(self._asked.pop(0))

    def _note(self, number: int) -> None:
        if number == signal.SIGTERM:
            before, self._terminated = self._terminated, time.monotonic()
            if self._terminated - before < _SAME:
                return
        if number in self._before and number != _OURS:
            self._asked.append(signal.Signals(number).name)

    def _insist(self) -> None:
        """In its thread: until the other end of the pipe is closed."""
        poll = select.poll()
        poll.register(self._signals, select.POLLIN)
        while not poll.poll()[0][1] & select.POLLHUP:
            _wake_main_thread()
            time.sleep(_AGAIN)


def _wake_main_thread() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, _OURS)


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
