"""A few threads that run what must not run on the I/O thread when no caller is there to run it.

A QEMU that dies unasked is cleaned up by these, with the same hooks; observers are called by them. They are
daemons and exist from the first launch on, because a thread can't be started while the interpreter exits.
"""

import queue
import threading
from collections.abc import Callable

from .perprocess import per_process

SIZE = 4
OBSERVER_SIZE = 2


class Workers:
    """A fixed number of threads, some of them for observers."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._observers: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        for number in range(SIZE):
            self._start(f"vmfsm-worker-{number}", self._jobs)
        for number in range(OBSERVER_SIZE):
            self._start(f"vmfsm-observer-{number}", self._observers)

    def _start(self, name: str, jobs: "queue.SimpleQueue[Callable[[], object]]") -> None:
        threading.Thread(target=_work, args=(jobs,), name=name, daemon=True).start()

    @classmethod
    def get(cls) -> "Workers":
        """The workers of this process."""
        return per_process(cls)

    def submit(self, function: Callable[[], object]) -> None:
        """Have `function`, which must not raise, called by one of the threads. From any thread."""
        self._jobs.put(function)

    def submit_observer(self, function: Callable[[], object]) -> None:
        """The same by threads that do nothing else: a slow observer holds up observers only."""
        self._observers.put(function)


def _work(jobs: "queue.SimpleQueue[Callable[[], object]]") -> None:
    while True:
        jobs.get()()
