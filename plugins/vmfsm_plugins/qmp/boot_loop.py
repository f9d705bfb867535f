"""Resets, counted; and a guest that does nothing but reset: a boot loop, which is a verdict."""

import collections
import time

from vmfsm import Verdict

from .events import Event

Limit = tuple[int, float]
"""More resets than this in so many seconds are a boot loop."""

BOOT_LOOP: Limit = (50, 600.0)
"""Ten reboots in a row are none, though SeaBIOS makes up to five resets of one. A Linux that panics as soon
as it has booted, and makes two of one, is one where that takes less than 20 s."""


class Resets:
    """Those of one launch, as far as the monitor tells of them. On the I/O thread only, but for `total`."""

    def __init__(self, limit: Limit | None) -> None:
        self.total = 0
        """All of them, whoever caused them."""
        self._limit = limit
        self._by_guest: collections.deque[float] = collections.deque()
        """When the last of them were: as many as it takes."""
        self._looping = False

    def hear(self, event: Event) -> Verdict | None:
        """Count a `RESET`; the verdict, where a boot loop is found out by it."""
        self.total += 1
        if self._limit is None or event.get("data", {}).get("guest") is not True:
            return None
        most, seconds = self._limit
        now, times = time.monotonic(), self._by_guest
        if times and now - times[-1] > seconds:
            times.clear()
            self._looping = False
        times.append(now)
        if len(times) > most + 1:
            times.popleft()
        took = now - times[0]
        was_looping, self._looping = self._looping, len(times) > most and took <= seconds
        if was_looping or not self._looping:
            return None
        message = f"{most + 1} resets by the guest in {took:.1f} s (boot_loop is {most}, {seconds:g} s)"
        return Verdict("boot-loop", "qmp", {"count": most + 1, "seconds": seconds, "message": message})
