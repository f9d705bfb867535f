"""What is to happen at the end of a deadline, on an event loop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from .deadline import Deadline


class Alarm:
    """Calls a function when a deadline is over, but not at once. On the thread of the running loop only."""

    __slots__ = ("_deadline", "_function", "_handle")

    def __init__(self, deadline: Deadline, function: Callable[[], object]) -> None:
        self._deadline = deadline
        self._function: Callable[[], object] | None = function
        self._handle: asyncio.TimerHandle | None = None
        self._wait(deadline.nap())

    def _wait(self, nap: float | None) -> None:
        if nap is not None:
            self._handle = asyncio.get_running_loop().call_later(nap, self._look)

    def _look(self) -> None:
        nap = self._deadline.nap()
        if nap != 0.0:
            self._wait(nap)
        elif self._function is not None:
            self._function()

    def cancel(self) -> None:
        self._function = None  # it may know who has this, which would keep both alive
        if self._handle is not None:
            self._handle.cancel()


@contextlib.asynccontextmanager
async def limit(deadline: Deadline) -> AsyncIterator[None]:
    """See `Deadline.limit`."""
    async with asyncio.timeout(None) as bound:
        alarm = Alarm(deadline, lambda: bound.reschedule(0.0))
        try:
            yield
        finally:
            alarm.cancel()
