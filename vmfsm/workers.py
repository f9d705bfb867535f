"""A few threads that run what must not run on the I/O thread when no caller is there to run it.

A QEMU that dies unasked is cleaned up by these, with the same hooks; observers are called by them. They are
daemons and exist from the first launch on, because a thread can't be started while the interpreter exits.
"""

import os
import queue
import threading
from collections.abc import Callable
from typing import Self

SIZE = 4


class Workers:
    """A fixed number of threads and one queue."""

    _current: Self | None = None
    _start_lock = threading.Lock()

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        for number in range(SIZE):
            threading.Thread(target=self._work, name=f"vmfsm-worker-{number}", daemon=True).start()

    @classmethod
    def get(cls) -> Self:
        """The workers of this process; a forked child gets its own."""
        current = cls._current
        if current is None:
            with cls._start_lock:
                current = cls._current
                if current is None:
                    current = cls._current = cls()
        return current

    def submit(self, function: Callable[[], object]) -> None:
        """Have `function`, which must not raise, called by one of the threads. From any thread."""
        self._queue.put(function)

    def _work(self) -> None:
        while True:
            self._queue.get()()


def _forget_in_child() -> None:
    Workers._current = None
    Workers._start_lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_in_child)
