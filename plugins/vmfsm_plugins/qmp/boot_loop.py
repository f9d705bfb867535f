"""Resets, counted; and a guest that does nothing but reset: a boot loop, which is a verdict."""

import collections
import time

from vmfsm import Verdict

from .events import Event

Limit = tuple[int, float]
"""More resets than this in so many seconds are a boot loop."""


class Resets:
    """Those of one launch, as far as the monitor tells of them. On the I/O thread only, but for `total`."""

    def __init__(self, limit: Limit | None) -> None:
        self.total = 0
        """All of them, whoever caused them."""
        self._limit = limit
        self._by_guest: collections.deque[float] = collections.deque()
        self._looping = False

    def hear(self, event: Event) -> Verdict | None:
        """Count a `RESET`; the verdict, where a boot loop is found out by it."""
        self.total += 1
        if self._limit is None or event.get("data", {}).get("guest") is not True:
            return None
        most, seconds = self._limit
        now = time.monotonic()
        self._by_guest.append(now)
        while self._by_guest[0] < now - seconds:
            self._by_guest.popleft()
        was_looping, self._looping = self._looping, len(self._by_guest) > most
        if was_looping or not self._looping:
            return None
        return Verdict("boot-loop", "qmp", {"count": len(self._by_guest), "seconds": seconds})
