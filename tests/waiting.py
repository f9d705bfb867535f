"""Waiting for what happens elsewhere: conditions, and calls in other threads."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIMIT = 100.0
"""Seconds that anything may take on a busy machine that is not itself about time."""
SLACK = 20.0
"""Seconds by which a busy machine may be late; what should not be waited for is longer, or has no end."""


def until(condition: Callable[[], object], limit: float = LIMIT) -> None:
    """Wait for `condition` to hold."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.001)


class InThread:
    """A call in a thread of its own, begun at once."""

    def __init__(self, function: Callable[..., object], *args: Any, **kw: Any) -> None:
        self.error: BaseException | None = None
        self.value: object = None
        self.seconds = 0.0

        def call() -> None:
            begin = time.monotonic()
            try:
                self.value = function(*args, **kw)
            except BaseException as error:  # noqa: BLE001 - for the test to look at
                self.error = error
            finally:
                self.seconds = time.monotonic() - begin

        self._thread = threading.Thread(target=call, daemon=True)
        self._thread.start()

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()

    def join(self, limit: float = LIMIT) -> "InThread":
        self._thread.join(limit)
        assert self.over, "it hangs"
        return self

    def result(self, limit: float = LIMIT) -> Any:
        """What it returned; raises what it raised."""
        self.join(limit)
        if self.error is not None:
            raise self.error
        return self.value


def rests(thread: threading.Thread, seconds: float = 0.2) -> bool:
    """Whether a thread of this process takes no processor time at all for so long.

    That of the whole process says less: the interpreter collects garbage in whichever thread it likes.
    """
    assert thread.ident is not None
    clock = time.pthread_getcpuclockid(thread.ident)
    before = time.clock_gettime(clock)
    time.sleep(seconds)
    return time.clock_gettime(clock) == before


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal by now (`proc(5)`, `SigCgt`)."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = int(status.partition("SigCgt:")[2].split(maxsplit=1)[0], 16)
    return bool(mask >> (number - 1) & 1)


def stand_still(pid: int) -> None:
    """Stop a process (SIGSTOP), all of its threads: one takes the signal; others go on until it runs."""
    os.kill(pid, signal.SIGSTOP)
    until(lambda: all(task.read_text().rpartition(") ")[2][0] == "T" for task in _tasks(pid)))


def _tasks(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/task").glob("*/stat"))


def is_alive(pid: int) -> bool:
    """Whether there is such a process, other than as a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False
