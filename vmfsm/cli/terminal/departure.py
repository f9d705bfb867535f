"""That whoever reads the output has gone, also where there is nothing to write that would fail."""

import contextlib
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from .interrupts import Interrupted, Interrupts


class Departure:
    """Inside of the `with` block, a thread waits for the other end of a pipe, socket or terminal to go.

    :param gone: called once then, in that thread.
    """

    def __init__(self, fd: int, gone: Callable[[], object]) -> None:
        self._fd = fd
        self._gone = gone

    def __enter__(self) -> Self:
        self._wake, self._woken = os.pipe()
        self._thread = threading.Thread(target=self._run, name="vmfsm-departure", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._woken)
        self._thread.join()
        os.close(self._wake)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.register(self._fd, 0)  # POLLERR and POLLHUP are told anyway
        if self._wake not in dict(poll.poll()):
            self._gone()


@contextlib.contextmanager
def broken_pipe(fd: int) -> Iterator[None]:
    """Inside of it, BrokenPipeError is raised as soon as nobody reads `fd` any more. For the main thread.

    Signals are as ever, but that they unwind what is inside.
    """
    why = None
    with Interrupts() as interrupts, Departure(fd, lambda: interrupts.interrupt("pipe")):
        try:
            with interrupts.raising():
                yield
        except Interrupted as interrupt:
            why = interrupt.why
    match why:
        case None:
            return
        case "pipe":
            raise BrokenPipeError
        case "SIGINT":
            raise KeyboardInterrupt
        case _:
            signal.raise_signal(signal.Signals[why])
