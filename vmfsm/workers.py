"""A few threads that run what must not run on the I/O thread when no caller is there to run it.

A QEMU that dies unasked is cleaned up by these, with the same hooks; observers are called by them. They are
daemons and exist from the first launch on, because a thread can't be started while the interpreter exits.
"""

import queue
import threading
from collections.abc import Callable

from .perprocess import per_process

SIZE = 4


class Workers:
    """A fixed number of threads and one queue."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        for number in range(SIZE):
            threading.Thread(target=self._work, name=f"vmfsm-worker-{number}", daemon=True).start()

    @classmethod
    def get(cls) -> "Workers":
        """The workers of this process."""
        return per_process(cls)

    def submit(self, function: Callable[[], object]) -> None:
        """Have `function`, which must not raise, called by one of the threads. From any thread."""
        self._queue.put(function)

    def _work(self) -> None:
        while True:
            self._queue.get()()
