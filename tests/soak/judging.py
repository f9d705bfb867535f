"""What is measured over a soak, and what is made of it.

Numbers of things are the same after every piece of work as they were after the warm-up: one more is a leak.
Memory is never the same twice, so what counts is how fast it grows.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from .plot import Panel

Row = dict[str, float]
"""What was seen at one moment, by column."""

PER_CYCLE = {"resident_kib": 0.125, "malloc_kib": 0.125, "blocks": 0.05}
"""128 bytes are less than the smallest object with an attribute takes; in 10,000 cycles they are 1.2 MiB, and
the pages of an interpreter that leaks nothing come and go by as much. One object that stays makes it 1 block,
or several; caches of the interpreter's fill slowly."""
COLUMNS = tuple(PER_CYCLE)
IN_ALL = {"resident_kib": 1_024, "malloc_kib": 192, "blocks": 1_500}
"""What any two moments may differ by of a process that leaks nothing. Python's own caches take some thousand
cycles to fill, with about as many blocks as this."""
EXACT = ("malloc_kib", "blocks")
"""What is in use, not what the system was asked for: it tells of a leak within a few cycles."""
LONG = 1_000
"""Cycles after which pages tell something, too."""


class Criterion(NamedTuple):
    """A figure that is to be at most its limit."""

    name: str
    value: float
    unit: str
    limit: float

    @property
    def met(self) -> bool:
        return self.value <= self.limit

    def __str__(self) -> str:
        verdict = "met   " if self.met else "MISSED"
        return f"  {verdict}  {self.name}: {_short(self.value)} {self.unit} (at most {_short(self.limit)})"


class Outcome(NamedTuple):
    """What a scenario has to show."""

    rows: list[Row]
    criteria: list[Criterion]
    panels: list[Panel]
    notes: list[str]


def slope(points: Sequence[tuple[float, float]]) -> float:
    """How much the second grows with the first, by Theil and Sen: the median of the slopes of all pairs.

    A step, or a quarter of the points gone astray, does not move it; what grows all the time does.
    """
    return statistics.median(
        (y2 - y1) / (x2 - x1)
        for number, (x1, y1) in enumerate(points)
        for x2, y2 in points[number + 1 :]
        if x2 != x1
    )


def steady(rows: Sequence[Row], columns: Iterable[str]) -> list[Criterion]:
    """Numbers of things are in no row more than in the first."""
    return [
        Criterion(f"{column}, more than at first", max(row[column] for row in rows) - rows[0][column], "", 0)
        for column in columns
    ]


def growth(rows: Sequence[Row], over: str, in_all: Mapping[str, float] = IN_ALL) -> list[Criterion]:
    """Memory does not grow from row to row.

    :param over: the column that counts what may have leaked it.
    :param in_all: what any two moments may differ by, by column.

    In a few cycles even a little that came once is much for each: what any amount may differ by is allowed
    for in the limit, which is next to none of the one for a long run. Pages are judged in long runs only.
    """
    cycles = rows[-1][over] - rows[0][over]
    limits = {column: PER_CYCLE[column] + in_all[column] / cycles for column in PER_CYCLE}
    return [
        Criterion(f"{column} per {over}", slope([(row[over], row[column]) for row in rows]), "", limit)
        for column, limit in limits.items()
        if cycles >= LONG or column in EXACT
    ]


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
