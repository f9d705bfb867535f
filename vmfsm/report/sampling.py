"""What is kept of many: all of few; of many those that matter, and an even sample of the others."""

from collections import deque
from typing import Generic, TypeVar

from vmfsm.jsonable import JSON

T = TypeVar("T")

_BINS = 240
_FINEST = 0.001
"""Seconds of a bin, at first."""
_OF_A_LABEL = 3
_MOST_LABELS = 200


class Density:
    """How many there were, over time, from the first one on. The bins grow, lest they be too many."""

    def __init__(self) -> None:
        self._begin = 0.0
        self._step = _FINEST
        self._counts: list[int] = []

    def add(self, at: float, count: int = 1) -> None:
        """So many more. What is earlier than the first one is counted with that."""
        if not self._counts:
            self._begin = at
        place = int((at - self._begin) / self._step)
        if place >= len(self._counts):
            while place >= _BINS:
                self._step *= 2
                pairs = [*self._counts, 0]
                self._counts = [one + other for one, other in zip(pairs[::2], pairs[1::2], strict=False)]
                place = int((at - self._begin) / self._step)
            self._counts.extend([0] * (place + 1 - len(self._counts)))
        self._counts[max(place, 0)] += count

    def told(self, begin: float) -> JSON:
        """As the data has it, in seconds since `begin`; `None` where there was nothing."""
        if not self._counts:
            return None
        return {
            "begin": round(self._begin - begin, 6),
            "step": round(self._step, 6),
            "counts": [*self._counts],
        }


class Sample(Generic[T]):
    """At most `most` of any number: the first and the last, what matters, what is rare, what is near a mark.

    Of all others each second, fourth, eighth one and so on is kept, so that they show how it went.
    """

    def __init__(self, most: int) -> None:
        self.total = 0
        self._part = max(most // 8, 1)
        self._first: dict[int, T] = {}
        self._mattering: dict[int, T] = {}
        self._near: dict[int, T] = {}
        self._even: list[tuple[int, T]] = []
        self._stride = 1
        self._last: deque[tuple[int, T]] = deque(maxlen=self._part)
        self._labels: dict[str, int] = {}
        self._after = 0

    def add(self, item: T, label: str = "", *, matters: bool = False) -> None:
        """The next one.

        :param label: the first ones of each are kept.
        """
        number = self.total
        self.total += 1
        self._last.append((number, item))
        if not number % self._stride:
            self._even.append((number, item))
            if len(self._even) > 3 * self._part:
                del self._even[1::2]
                self._stride *= 2
        if matters and len(self._mattering) < self._part:
            self._mattering[number] = item
        if (number < self._part or self._is_rare(label)) and len(self._first) < 2 * self._part:
            self._first[number] = item
        if self._after:
            self._after -= 1
            self._near[number] = item

    def mark(self) -> None:
        """What is near the one that was added last is to be kept."""
        around = max(self._part // 8, 1)
        if len(self._near) + 2 * around <= self._part:
            self._near.update(list(self._last)[-around:])
            self._after = around

    def kept(self) -> list[T]:
        """In the order in which they came."""
        found = {**dict(self._even), **self._first, **self._mattering, **self._near, **dict(self._last)}
        return [found[number] for number in sorted(found)]

    def _is_rare(self, label: str) -> bool:
        seen = self._labels.get(label, 0)
        if seen < _OF_A_LABEL and (seen or len(self._labels) < _MOST_LABELS):
            self._labels[label] = seen + 1
            return True
        return False
