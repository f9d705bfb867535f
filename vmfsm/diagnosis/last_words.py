"""What a guest says last, each time before it resets: where that repeats, it is why."""

import collections
import re

_TAIL = 4_096
"""Characters of a console that are looked at."""
_MOST = 50
"""Different lines that are counted."""
_LATE = 0.05
"""Seconds: what a guest says comes by another way than QEMU's event, and may come after it."""
_TIME = re.compile(r"\[ *\d+\.\d+\] *(?:\[ *[TC]\d+\] *)?")
_RESTARTING = re.compile(r"reboot: |ACPI: PM: Preparing to enter system sleep state|\s*$")
"""What Linux says whenever it restarts (kernel/reboot.c, drivers/acpi/sleep.c)."""


class LastWords:
    """Those of one guest, in bounded memory."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}
        """By each console since the last reset, the one that spoke last at the end."""
        self._reset_at: float | None = None
        self._counts: collections.Counter[str] = collections.Counter()
        self._last: str | None = None

    def hear(self, console: str, text: str, at: float) -> None:
        """A console says something."""
        if self._reset_at is not None and at > self._reset_at + _LATE:
            self._count(self._words())
            self._said, self._reset_at = {}, None
        self._said[console] = (self._said.pop(console, "") + text[-_TAIL:])[-_TAIL:]

    def reset(self, at: float) -> None:
        """The guest resets. A machine may do so several times for one reboot: those count once."""
        if self._said and self._reset_at is None:
            self._reset_at = at

    def repeated(self) -> tuple[str, int, int] | None:
        """A line that was the last one more than once: before how many reboots, of how many."""
        counts = self._counts.copy()
        if self._reset_at is not None and (words := self._words()) is not None:
            counts[words] += 1
        line, times = next(iter(counts.most_common(1)), ("", 0))
        return (line, times, counts.total()) if times > 1 else None

    def last(self) -> str | None:
        """Before the last reset."""
        return self._last if self._reset_at is None else self._words() or self._last

    def _count(self, words: str | None) -> None:
        if words is not None:
            self._last = words
            if words in self._counts or len(self._counts) < _MOST:
                self._counts[words] += 1

    def _words(self) -> str | None:
        """The last line that says more than that it restarts."""
        for text in reversed(self._said.values()):
            lines = [_TIME.sub("", line, count=1) for line in text.splitlines() if line.strip()]
            if lines:
                telling = (line for line in reversed(lines) if not _RESTARTING.match(line))
                return next(telling, lines[-1]).strip()
        return None
