"""The calls that wait for a machine now, and who made them; for snapshots, and for the timeline."""

import asyncio
import sys
import threading
import time
import weakref
from collections.abc import Callable
from types import FrameType

from .deadline import Deadline
from .errors import GuestPanicked, MachineDied, MachineTimeout, describe
from .onlookers import onlooker

SHORT = 0.1
"""Seconds. A call that asks QEMU and is over before, unless it timed out, leaves no record: a QMP command has
two of its own."""

_OURS = frozenset({"vmfsm", "vmfsm_plugins", "contextlib"})
"""Packages whose lines nobody looks for."""

_STARTERS = frozenset({"asyncio", "click", "threading", "concurrent"})
"""What has started them where it comes next: a task, whose awaiter is not on the stack; the command line; a
thread, which may run nothing but a call of a machine."""

Recorder = Callable[[str, dict[str, object], int], object]


class Wait:
    """One call that waits. Made in the thread that does.

    What is to be known of that is looked at when somebody asks: most calls are over before.
    """

    _task = ""
    _caller: str | None = None
    _record: Recorder | None = None
    _is_over = False

    def __init__(self, operation: str, deadline: Deadline) -> None:
        self.operation = operation
        self.began = time.monotonic()
        self._by = onlooker()
        self._deadline = deadline
        self._thread = threading.current_thread()
        self._frame: FrameType | None = sys._getframe(1)

    @property
    def caller(self) -> str | None:
        """The line that made the call, outside of vmfsm, as `path:line`. From any thread."""
        self.find_caller()
        return self._caller

    def find_caller(self) -> None:
        """Have the line while the call is on the stack."""
        frame = self._frame
        if frame is not None:
            self._caller = _line(frame)
            self._frame = None

    def of_task(self) -> None:
        """A coroutine waits: of the running task, and not on the stack later."""
        task = asyncio.current_task()
        self._task = f", {task.get_name()}" if task is not None else ""
        self.find_caller()

    def forget_stack(self) -> None:
        """It waits no more: nothing is to be kept alive by it."""
        self._frame = None

    def shown(self, now: float) -> dict[str, object]:
        """For snapshots. From any thread."""
        return {
            **self._said(),
            "seconds": now - self.began,
            "timeout": self._deadline.timeout,
            "remaining": self._deadline.remaining(),
        }

    def _said(self) -> dict[str, object]:
        thread = f"{self._thread.name}{self._task}"
        return {"operation": self.operation, "thread": thread, "caller": self.caller}

    def _told(self) -> dict[str, object]:
        """For the timeline."""
        return self._said() if self._by is None else {**self._said(), "by": self._by}

    @property
    def is_told(self) -> bool:
        """The timeline has its begin."""
        return self._record is not None

    def tell_begin(self, record: Recorder) -> None:
        """Tell the timeline, once. On the I/O thread."""
        if self._record is None:
            self._record = record
            record("wait-begin", {**self._told(), "timeout": self._deadline.timeout}, 400)

    def tell_end(self, error: BaseException | None = None) -> None:
        """The same, if it has the begin: what the call comes to is known, and is about to be told."""
        if self._record is not None and not self._is_over:
            self._is_over = True
            data = {
                "seconds": time.monotonic() - self.began,
                "outcome": _outcome(error),
                "error": error and describe(error),
            }
            self._record("wait", {**self._told(), **data}, 500)


class Waits:
    """Those of one machine. From any thread; nothing here waits, or takes a lock."""

    def __init__(self) -> None:
        # Weakly, since an exception from a signal handler may keep a caller from taking its own back.
        self._waits: dict[int, weakref.ref[Wait]] = {}

    def add(self, wait: Wait) -> None:
        """It has begun."""
        self._waits[id(wait)] = weakref.ref(wait)

    def remove(self, wait: Wait) -> None:
        """It is over."""
        self._waits.pop(id(wait), None)
        wait.forget_stack()

    def in_progress(self) -> list[Wait]:
        """The oldest first."""
        waits = (reference() for reference in self._waits.copy().values())
        return sorted((wait for wait in waits if wait is not None), key=lambda wait: wait.began)


def _line(frame: FrameType | None) -> str | None:
    while frame is not None:
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package in _STARTERS:
            return None
        if package not in _OURS:
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return None


def _outcome(error: BaseException | None) -> str:
    match error:
        case None:
            return "done"
        case MachineTimeout():
            return "timeout"
        case MachineDied():
            return "died"
        case GuestPanicked():
            return "panicked"
        case Exception():
            return "failed"
        case _:
            return "interrupted"
