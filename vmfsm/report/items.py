"""What lies on the lanes, and the lanes."""

import heapq
from collections.abc import Callable, Iterable
from typing import NamedTuple

from vmfsm.jsonable import JSON

from .sampling import Density, Sample

_MOST_OPEN = 1_000
_MOST_ROWS = 12
_DETAIL_OF_AN_ITEM = 160
"""Characters, on the average of a lane."""
_ETERNITY = float("inf")


class Item(NamedTuple):
    """Something that happened, at one moment or for a while."""

    at: float
    label: str
    tone: str = "neutral"
    detail: dict[str, JSON] | None = None
    end: float | None = None
    """Of what has taken a while; `None`: not over at the end of the recording."""
    is_point: bool = False
    line: int | None = None
    """Its number in the lane's log."""


class Lane:
    """What happened of one sort, in order.

    :param shape: `spans`, `points`, or `density`, where single items say little.
    """

    def __init__(self, key: str, title: str, shape: str, most: int) -> None:
        self.key = key
        self.title = title
        self.shape = shape
        self._items: Sample[Item] = Sample(most)
        self._density = Density()
        self._detail = most * _DETAIL_OF_AN_ITEM
        self._open: dict[object, list[Item]] = {}
        self._open_count = 0

    def add(self, item: Item, *, matters: bool = False) -> None:
        """Something that is over, or has no duration."""
        self._density.add(item.at)
        self._items.add(item, item.label, matters=matters)

    def begin(self, key: object, item: Item) -> None:
        """Something begins that `end` tells of again, by `key`."""
        if self._open_count < _MOST_OPEN:
            self._open_count += 1
            begun = self._open.get(key)
            if begun is None:
                self._open[key] = [item]
            else:
                begun.append(item)
        else:
            self.add(item._replace(end=item.at))

    def end(self, key: object) -> Item | None:
        """What began last by that key; it is for the caller to add it, with its end."""
        begun = self._open.get(key)
        if not begun:
            return None
        item = begun.pop()
        self._open_count -= 1
        if not begun:
            del self._open[key]
        return item

    @property
    def open(self) -> list[Item]:
        """What has begun, and is not over."""
        return [item for items in self._open.values() for item in items]

    def take_open(self) -> list[Item]:
        """What has begun, and is not over: it is for the caller to add it."""
        begun = self.open
        self._open.clear()
        self._open_count = 0
        return begun

    def mark(self) -> None:
        """What is near the last one is to be kept."""
        self._items.mark()

    def close(self) -> None:
        """Nothing is added any more: what is open stays so."""
        for item in self.take_open():
            self.add(item, matters=True)

    @property
    def total(self) -> int:
        """How many there were."""
        return self._items.total

    def told(self, begin: float, line_of: Callable[[int], int | None]) -> dict[str, JSON]:
        """As the data has it, after `close`; in seconds since `begin`.

        :param line_of: where a line is among those of the log that are kept.
        """
        kept = _within(sorted(self._items.kept(), key=_by_begin), self._detail)
        return {
            "id": self.key,
            "title": self.title,
            "shape": self.shape,
            "items": [_told(item, row, begin, line_of) for item, row in zip(kept, _rows(kept), strict=True)],
            "total": self.total,
            "left_out": self.total - len(kept),
            "density": self._density.told(begin),
        }


def _within(items: list[Item], most: int) -> list[Item]:
    """Without the details that are too much for a page: what went wrong has its own first."""
    room, left_out = most, {}
    for place, item in sorted(enumerate(items), key=lambda one: one[1].tone != "bad"):
        size = len(repr(item.detail)) if item.detail else 0
        if size <= room:
            room -= size
        else:
            left_out[place] = item._replace(detail={"…": "left out"})
    return [left_out.get(place, item) for place, item in enumerate(items)]


def _by_begin(item: Item) -> tuple[float, float]:
    """What another one lies in comes before that."""
    return item.at, -_ETERNITY if item.end is None else -item.end


def _told(item: Item, row: int, begin: float, line_of: Callable[[int], int | None]) -> JSON:
    told: dict[str, JSON] = {"t": round(item.at - begin, 6)}
    if not item.is_point:
        told["end"] = None if item.end is None else round(item.end - begin, 6)
    return {
        **told,
        "label": item.label,
        "tone": item.tone,
        "row": row,
        "detail": item.detail or {},
        "line": None if item.line is None else line_of(item.line),
    }


def _rows(items: Iterable[Item]) -> list[int]:
    """The lowest row that is free, for each: so what began within another one is below that."""
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    rows: list[int] = []
    used = 0
    for item in items:
        if item.is_point:
            rows.append(0)
            continue
        while busy and busy[0][0] <= item.at:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if free:
            row = heapq.heappop(free)
        else:
            row = min(used, _MOST_ROWS - 1)
            used += 1
        heapq.heappush(busy, (_ETERNITY if item.end is None else item.end, row))
        rows.append(row)
    return rows
