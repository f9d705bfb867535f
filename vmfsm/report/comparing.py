"""Two recordings, side by side: what took how long in each."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from vmfsm.jsonable import JSON

_MOST_ROWS = 1_000
_NOTABLE = 0.02
"""Seconds, and a tenth of what it took: what is less is chance."""
_MOSTLY = 0.8


class Spent(NamedTuple):
    """A step, hook, wait or state, and for how long."""

    kind: str
    name: str
    at: float
    seconds: float


class _Row(NamedTuple):
    kind: str
    name: str
    at: float
    seconds: tuple[float | None, float | None]

    @property
    def delta(self) -> float | None:
        one, other = self.seconds
        return None if one is None or other is None else other - one

    @property
    def is_slower(self) -> bool:
        delta, one = self.delta, self.seconds[0]
        return delta is not None and one is not None and delta > _NOTABLE + one / 10


def compare(names: Sequence[str], first: Sequence[Spent], second: Sequence[Spent]) -> JSON:
    """As the data has it. What has the same name is matched by which time it is: the second with the second.

    `most` is what explains most of the time that the second took longer: of all that lost nearly as much as
    the worst, the shortest one, since a step takes longer when what is in it does.
    """
    rows = _rows(first, second)[:_MOST_ROWS]
    slower = [row for row in rows if row.is_slower]
    worst = max((row.delta or 0.0 for row in slower), default=0.0)
    suspects = [row for row in slower if (row.delta or 0.0) >= _MOSTLY * worst]
    most = min(suspects, key=lambda row: row.seconds[1] or 0.0, default=None)
    return {
        "names": [*names],
        "rows": [
            {
                "kind": row.kind,
                "name": row.name,
                "seconds": [_rounded(one) for one in row.seconds],
                "delta": _rounded(row.delta),
                "slower": row.is_slower,
                "most": row is most,
            }
            for row in rows
        ],
    }


def _rows(first: Sequence[Spent], second: Sequence[Spent]) -> list[_Row]:
    """In the order in which they began, on a clock that begins with each recording."""
    found: dict[tuple[str, str], list[list[Spent]]] = defaultdict(lambda: [[], []])
    for side, spent in enumerate((first, second)):
        for one in sorted(spent, key=lambda one: one.at):
            found[one.kind, one.name][side].append(one)
    rows = []
    for (kind, name), (ones, others) in found.items():
        count = max(len(ones), len(others))
        for number in range(count):
            pair = [side[number] if number < len(side) else None for side in (ones, others)]
            begun = next(one.at for one in pair if one is not None)
            seconds = (pair[0] and pair[0].seconds, pair[1] and pair[1].seconds)
            rows.append(_Row(kind, f"{name} ({number + 1})" if count > 1 else name, begun, seconds))
    return sorted(rows, key=lambda row: row.at)


def _rounded(value: float | None) -> JSON:
    return None if value is None else round(value, 6)
