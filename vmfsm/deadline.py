"""One total deadline for everything that a public call does."""

import math
import os
import threading
import time

from .clock import Clock
from .errors import ConfigError

TYPE_CHECKING = False  # `asyncio` takes a while to import, and the command line has deadlines too
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Collection
    from contextlib import AbstractAsyncContextManager
    from typing import Any

SCALE_VARIABLE = "VMFSM_TIMEOUT_SCALE"

# What the system's clocks can wait for; more, a century or two, is no limit.
_LONGEST = threading.TIMEOUT_MAX / 2
_LOOK = 0.05
"""Seconds between two looks at a deadline that is all but over while its clock stands still."""


def _scale() -> float:
    text = os.environ.get(SCALE_VARIABLE)
    if not text:
        return 1.0
    try:
        scale = float(text)
    except ValueError:
        scale = math.nan
    if not (0 < scale < math.inf):
        raise ConfigError(f"{SCALE_VARIABLE} must be a positive number, not {text!r}", field=SCALE_VARIABLE)
    return scale


class Deadline:
    """A point on a clock by which something must be over.

    `timeout` is in seconds, multiplied by the environment's `VMFSM_TIMEOUT_SCALE`; int and float mean the
    same, `None` is no limit. Safe to use from any thread.

    :param clock: a machine's, which stands still while that is held (`Machine.deadline` makes such
        deadlines); without it, the monotonic clock.
    :raises ConfigError: for a timeout that is not a number, is negative, or is not a time.
    """

    __slots__ = ("_end", "clock", "timeout")

    def __init__(self, timeout: float | None, clock: Clock | None = None) -> None:
        if timeout is not None:
            if isinstance(timeout, bool) or not isinstance(timeout, int | float):
                raise ConfigError(
                    f"timeout must be a number of seconds or None, not {timeout!r}", field="timeout"
                )
            if timeout < 0 or timeout != timeout:  # noqa: PLR0124 - not a number is not itself; a huge int is
                raise ConfigError(f"timeout must not be negative, but is {timeout!r}", field="timeout")
            try:
                timeout = float(timeout) * _scale()
            except OverflowError:
                timeout = math.inf
            if timeout > _LONGEST:
                timeout = None
        self.timeout = timeout
        self.clock = clock
        self._end = math.inf if timeout is None else self._now() + timeout

    def _now(self) -> float:
        return time.monotonic() if self.clock is None else self.clock.now()

    def __repr__(self) -> str:
        still = " stands still" if self.stands_still else ""
        return f"<Deadline timeout={self.timeout} remaining={self.remaining()}{still}>"

    @property
    def stands_still(self) -> bool:
        """Whether no time passes for it now, since its machine is held."""
        return self.clock is not None and self.clock.stands_still

    def remaining(self) -> float | None:
        """Seconds left, never below 0; `None` without a limit."""
        return None if self._end == math.inf else max(0.0, self._end - self._now())

    @property
    def expired(self) -> bool:
        return self.remaining() == 0.0

    def as_timeout(self, most: float = math.inf) -> float | None:
        """What is left as a `timeout` for another call, which will scale it again.

        :param most: a timeout that it is not to be more than.
        """
        remaining = self.remaining()
        timeout = most if remaining is None else min(most, remaining / _scale())
        return None if timeout == math.inf else timeout

    def leaving(self, least: float) -> "Deadline":
        """This deadline, or one `least` seconds from now if that is later."""
        later = self._now() + least
        return self if self._end >= later else self._moved(later)

    def after(self, seconds: float) -> "Deadline":
        """The one that is so many seconds later."""
        return self._moved(self._end + seconds)

    def _moved(self, end: float) -> "Deadline":
        moved = Deadline.__new__(Deadline)
        moved.timeout, moved.clock, moved._end = self.timeout, self.clock, end
        return moved

    # -- waiting for it -------------------------------------------------------------------------------------

    def nap(self, reserve: float = 0.0) -> float | None:
        """Seconds to wait at most before the next look at it, since a wait knows nothing of its clock.

        0 when no more than `reserve` seconds are left; `None` without a limit. For a loop: never late by more
        than 50 ms, and no more than 20 looks a second while the clock stands still.
        """
        if self._end == math.inf:
            return None
        left = max(0.0, self._end - self._now() - reserve)
        return max(left, _LOOK) if left and self.stands_still else left

    async def first(self, futures: "Collection[asyncio.Future[Any]]", reserve: float = 0.0) -> bool:
        """Wait until one of `futures` is done, or no more than `reserve` seconds are left; whether one is."""
        import asyncio

        while not any(future.done() for future in futures):
            nap = self.nap(reserve)
            if nap == 0.0:
                return False
            await asyncio.wait(futures, timeout=nap, return_when=asyncio.FIRST_COMPLETED)
        return True

    def limit(self) -> "AbstractAsyncContextManager[None]":
        """Bound what is awaited in an `async with` block, as `asyncio.timeout` does.

        :raises TimeoutError: when it is over first.
        """
        from .alarm import limit

        return limit(self)
