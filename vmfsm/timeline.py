"""Records of everything that happens to a machine, on one monotonic clock."""

import collections
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

_MOST_RECORDS = 2_000
_MOST_BYTES = 256 * 1024


class Record(NamedTuple):
    """Something that happened. `at` is in seconds on the monotonic clock (`time.monotonic()`).

    `docs/timeline.md` lists the kinds and what `data` holds for each.
    """

    kind: str
    at: float
    data: Mapping[str, object]


class Timeline:
    """The last records of one machine, bounded in number and in bytes.

    Written on the I/O thread only, read from any.
    """

    def __init__(self) -> None:
        self._records: collections.deque[Record] = collections.deque()
        self._sizes: collections.deque[int] = collections.deque()
        self._bytes = 0

    def add(self, kind: str, data: Mapping[str, object], size: int) -> Record:
        """Append a record; `size` is about how many bytes its data keeps alive."""
        record = Record(kind, time.monotonic(), data)
        self._records.append(record)
        self._sizes.append(size)
        self._bytes += size
        while len(self._records) > _MOST_RECORDS or (self._bytes > _MOST_BYTES and len(self._records) > 1):
            self._records.popleft()
            self._bytes -= self._sizes.popleft()
        return record

    def records(self) -> tuple[Record, ...]:
        return tuple(self._records)


def format_timeline(records: Iterable[Record]) -> str:
    """The records as a table for people: a line each, with the time since the first and what it says."""
    lines = []
    start: float | None = None
    for kind, at, data in records:
        start = at if start is None else start
        lines.append(f"{at - start:9.4f}  {kind:<12} {_summary(kind, data)}")
    return "\n".join(lines)


def _summary(kind: str, data: Mapping[str, object]) -> str:
    if kind == "transition":
        reason = f"  ({data['reason']})" if data["reason"] else ""
        return f"{data['source']} -> {data['dest']}{reason}"
    if kind == "hook":
        seconds = data["seconds"]
        assert isinstance(seconds, float)
        failed = f"  raised {data['error']}" if data["error"] else ""
        return f"{data['hook']} of {data['plugin']}  {seconds * 1000:.2f} ms{failed}"
    return "  ".join(f"{name}={_short(value)}" for name, value in data.items())


def _short(value: object, most: int = 100) -> str:
    text = value if isinstance(value, str) else repr(value)
    text = ascii(text)[1:-1] if isinstance(value, str) else text
    return text if len(text) <= most else text[: most - 1] + "…"
