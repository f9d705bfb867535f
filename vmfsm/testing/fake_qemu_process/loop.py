"""One thread for everything: descriptors, signals, and tasks that wait."""

from __future__ import annotations

import os
import select
import signal
import time

TYPE_CHECKING = False  # `typing` is half of what it would take to start
if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from .channel import Channel

    Task = Generator[float | Callable[[], bool], None, None]
    """It yields what it waits for: so many seconds, or that a condition holds."""


class Loop:
    """Runs tasks, serves channels, and tells of signals. A task that waits holds up nobody else."""

    def __init__(self, on_signal: Callable[[int], object]) -> None:
        self.channels: list[Channel] = []
        self._on_signal = on_signal
        self._waiting: list[tuple[float | Callable[[], bool], Task]] = []
        self._signals, written = os.pipe()
        os.set_blocking(written, False)
        signal.set_wakeup_fd(written)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):  # those that end QEMU well
            signal.signal(number, lambda number, frame: None)

    def spawn(self, task: Task) -> None:
        """Run `task` as far as it goes now; the rest when that may be."""
        try:
            wanted = next(task)
        except StopIteration:
            return
        if not callable(wanted):
            wanted += time.monotonic()
        self._waiting.append((wanted, task))

    def run(self) -> None:
        """For ever."""
        while True:
            poll = select.poll()
            poll.register(self._signals, select.POLLIN)
            by_fd = {}
            for channel in self.channels:
                fd, mask = channel.interest()
                if mask:
                    poll.register(fd, mask)
                    by_fd[fd] = channel
            for fd, _ in poll.poll(self._milliseconds()):
                if fd in by_fd:
                    by_fd[fd].serve()
                else:
                    for number in os.read(fd, 64):
                        self._on_signal(number)
            self._resume()

    def _milliseconds(self) -> int | None:
        if any(callable(wanted) and wanted() for wanted, _ in self._waiting):
            return 0
        times = [wanted for wanted, _ in self._waiting if not callable(wanted)]
        return max(0, int((min(times) - time.monotonic()) * 1000) + 1) if times else None

    def _resume(self) -> None:
        waiting, self._waiting = self._waiting, []
        now = time.monotonic()
        for wanted, task in waiting:
            if wanted() if callable(wanted) else wanted <= now:
                self.spawn(task)
            else:
                self._waiting.append((wanted, task))
