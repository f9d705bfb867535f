"""Those who hold a machine, so that none of its deadlines runs out while somebody looks at it."""

import os
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from .caller import insist
from .clock import Clock
from .deadline import Deadline
from .errors import TransitionError


class Hold:
    """One holder's hold of a machine, made by `Machine.hold`. From any thread; nothing here waits.

    As a context manager it is released at the end of the block.
    """

    def __init__(self, holds: "Holds", by: str, reason: str | None, *, keep: bool) -> None:
        self._holds = holds
        self.by = by
        """The thread that holds, by its name."""
        self.reason = reason
        self.keep = keep
        """`shutdown` waits for its release."""
        self.since: float | None = None
        """When it began, on the monotonic clock."""
        self.inside: int | None = None
        """The thread that is inside of the `with` block of this."""

    def __repr__(self) -> str:
        keep = " keep" if self.keep else ""
        return f"<Hold by={self.by!r} reason={self.reason!r}{keep}{' released' if self.released else ''}>"

    def __str__(self) -> str:
        return self.reason or f"by {self.by}"

    @property
    def released(self) -> bool:
        """It is over: somebody has released it, or the machine was killed. From any thread."""
        return self not in self._holds.held

    def release(self) -> None:
        """Hold the machine no longer. Once more changes nothing, and neither does it in a forked child."""
        self._holds.release(self)

    def __enter__(self) -> Self:
        self.inside = threading.get_ident()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


class Holds:
    """The holds of one machine, and the clock that stands still as long as there is one. From any thread.

    :param ended: called with each hold that is released, by whoever releases it.
    """

    def __init__(self, clock: Clock, ended: Callable[[Hold], object]) -> None:
        self._clock = clock
        self._ended = ended
        self._pid = os.getpid()
        # Not the condition itself: an exception of a signal handler could leave it locked. One that a signal
        # handler's call may enter again.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._closed = False
        self.held: list[Hold] = []

    @property
    def kept(self) -> bool:
        return any(hold.keep for hold in tuple(self.held))

    def kept_in(self, thread: int) -> tuple[Hold, ...]:
        """Those in whose `with` block a thread is."""
        return tuple(hold for hold in tuple(self.held) if hold.keep and hold.inside == thread)

    def __str__(self) -> str:
        return "; ".join(map(str, tuple(self.held)))

    def add(self, hold: Hold) -> None:
        """:raises TransitionError: when the interpreter exits, which nothing may hold up."""
        try:
            self._put(hold)
        except BaseException:  # an interrupt, say: its caller gets no hold that could be released
            insist(lambda: self._take((hold,), {}))
            raise

    def release(self, *holds: Hold) -> None:
        """Release these, of those that are not yet."""
        if os.getpid() != self._pid:
            return  # the machine is the parent's, and so may be the lock
        released: dict[Hold, None] = {}
        try:
            self._take(holds, released)
        except BaseException:
            insist(lambda: self._take(holds, released))
            raise
        for hold in released:
            self._ended(hold)

    def end(self) -> None:
        """Release them all."""
        self.release(*self.held)

    def close(self) -> None:
        """Release them all, and let there be no more."""
        with self._lock:
            self._closed = True
        self.end()

    def _put(self, hold: Hold) -> None:
        with self._lock:
            if self._closed:
                raise TransitionError("the harness is about to exit, and its machines with it", event="hold")
            self.held.append(hold)
            self._settle()

    def _take(self, holds: Iterable[Hold], taken: dict[Hold, None]) -> None:
        with self._lock:
            for hold in holds:
                if hold in self.held:
                    taken[hold] = None
                    self.held.remove(hold)
            self._settle()
            self._changed.notify_all()

    def _settle(self) -> None:
        while self._clock.stands_still != bool(self.held):  # also after what a signal handler did meanwhile
            if self.held:
                self._clock.stop()
            else:
                self._clock.start()

    def wake(self) -> None:
        """Have those that wait look again."""
        with self._lock:
            self._changed.notify_all()

    def wait(self, over: Callable[[], object], deadline: Deadline) -> bool:
        """Wait until `over()`, which a release or `wake` may bring about; `False` at the deadline."""
        with self._lock:
            while not over():
                nap = deadline.nap()
                if nap == 0.0:
                    return False
                self._changed.wait(nap)
        return True
