"""The last events of a launch, kept in order: marks into them, and waits for them."""

import asyncio
import collections
import contextlib
import itertools
import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from vmfsm import ConfigError

SIZE = 10_000
"""How many events are kept."""
MOST_BYTES = 64 * 1024 * 1024
"""And how much of them, as JSON, for a QEMU that means no good: its events may be of any size."""

Event = dict[str, Any]
Wanted = Sequence[tuple[str, Mapping[str, Any] | None]]


class Mark:
    """A point in the events of one launch. Opaque: for `since=` of the same monitor."""

    __slots__ = ("_position", "_ring")

    def __init__(self, ring: "EventRing", position: int) -> None:
        self._ring = ring
        self._position = position

    def __repr__(self) -> str:
        return f"<Mark after {self._position} events>"


class EventRing:
    """The last `SIZE` events of one launch, as far as they fit into `MOST_BYTES`; the last one always.

    Written and waited on by the I/O thread; everything else may be called from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: collections.deque[_Entry] = collections.deque()
        self._bytes = 0
        self._total = 0
        self._waits: list[_Wait] = []

    def add(self, event: Event, raw: bytes) -> None:
        """Append an event, and wake who waits for it. `raw` is its JSON."""
        entry = _Entry(event["event"], raw)
        with self._lock:
            self._entries.append(entry)
            self._bytes += len(raw)
            self._total += 1
            while len(self._entries) > SIZE or (self._bytes > MOST_BYTES and len(self._entries) > 1):
                self._bytes -= len(self._entries.popleft().raw)
        for wait in self._waits:
            if not wait.found.done() and _is_wanted(wait.wanted, entry.name, event):
                wait.found.set_result(entry)

    def mark(self) -> Mark:
        return Mark(self, self._total)

    def take(self, wanted: Wanted | None, since: object = None) -> Event | None:
        """The first of the kept events that is wanted, if there is one; it is given then.

        :param wanted: `None`: whatever it is.

        :raises ConfigError: for a mark that is none, that fell out, or is from another launch.
        """
        with self._lock:
            for entry in self._after(since):
                if entry.is_wanted(wanted):
                    return entry.give()
        return None

    async def wait(self, wanted: Wanted | None, since: object = None) -> Event:
        """The same, waiting for it."""
        event = self.take(wanted, since)
        if event is not None:
            return event
        wait = _Wait(wanted, asyncio.get_running_loop().create_future())
        self._waits.append(wait)
        try:
            # Given only now: a wait that ends otherwise in this very moment leaves it for the next one.
            return (await wait.found).give()
        finally:
            self._waits.remove(wait)

    async def arrival(self, wanted: Wanted | None) -> None:
        """Wait until there is one that is wanted and that nobody was given, who asks next."""
        with self._lock:
            if any(entry.is_wanted(wanted) for entry in self._after(None)):
                return
        wait = _Wait(wanted, asyncio.get_running_loop().create_future())
        self._waits.append(wait)
        try:
            await wait.found
        finally:
            self._waits.remove(wait)

    def take_all(self, since: object = None) -> list[Event]:
        """All events since `since`; they are given then.

        :raises ConfigError: as `take`.
        """
        with self._lock:
            return [entry.give() for entry in self._after(since)]

    def last(self, number: int, *, largest: int | None = None) -> tuple[Event, ...]:
        """The last events, without giving them. Takes no lock.

        :param largest: bytes of JSON; of what is larger there is only its name and its size.
        """
        entries: list[_Entry] | None = None
        while entries is None:
            # The garbage collector may run meanwhile, and let the I/O thread add one.
            with contextlib.suppress(RuntimeError):
                entries = list(itertools.islice(reversed(self._entries), number))
        return tuple(entry.parse(largest) for entry in reversed(entries))

    def _after(self, since: object) -> Iterator["_Entry"]:
        if since is None:
            return (entry for entry in self._entries if not entry.given)
        if not isinstance(since, Mark):
            raise ConfigError(f"since must be what mark() returned, or None, not {since!r}", field="since")
        if since._ring is not self:
            raise ConfigError("since is a mark of another launch or machine", field="since")
        first = self._total - len(self._entries)
        if since._position < first:
            raise ConfigError(
                f"since is a mark after {since._position} events, of which the next "
                f"{first - since._position} are not kept any more (the last {SIZE} are)",
                field="since",
            )
        return (entry for at, entry in enumerate(self._entries, first) if at >= since._position)


class _Entry:
    # Kept as JSON: that takes a quarter of the memory, and whoever is given the event may change it.
    __slots__ = ("given", "name", "raw")

    def __init__(self, name: str, raw: bytes) -> None:
        self.name = name
        self.raw = raw
        self.given = False

    def parse(self, largest: int | None = None) -> Event:
        if largest is not None and len(self.raw) > largest:
            return {"event": self.name, "bytes": len(self.raw)}
        event: Event = json.loads(self.raw)
        return event

    def give(self) -> Event:
        self.given = True
        return self.parse()

    def is_wanted(self, wanted: Wanted | None) -> bool:
        if wanted is None:
            return True
        return any(name == self.name for name, _ in wanted) and _is_wanted(wanted, self.name, self.parse())


class _Wait:
    __slots__ = ("found", "wanted")

    def __init__(self, wanted: Wanted | None, found: "asyncio.Future[_Entry]") -> None:
        self.wanted = wanted
        self.found = found


def check_wanted(events: object) -> Wanted:
    """Check the argument of `wait_any`.

    :raises ConfigError: naming what is wrong with it.
    """
    if isinstance(events, str | bytes | Mapping) or not isinstance(events, Iterable):
        raise ConfigError(f"events must be a sequence of (name, match), not {events!r}", field="events")
    wanted = [(event, None) if isinstance(event, str) else event for event in events]
    if not wanted:
        raise ConfigError("events is empty: there is nothing to wait for", field="events")
    for event in wanted:
        if not isinstance(event, tuple | list) or len(event) != 2:
            raise ConfigError(f"events must hold pairs of name and match, not {event!r}", field="events")
        name, match = event
        if not isinstance(name, str) or not name:
            raise ConfigError(f"the name of an event must be a str, not {name!r}", field="name")
        if match is not None and not isinstance(match, Mapping):
            raise ConfigError(f"match must be a mapping or None, not {match!r}", field="match")
    return [(name, None if match is None else _copy_json(match)) for name, match in wanted]


def _copy_json(match: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of plain types, since comparing with others may raise: on the I/O thread, while all listen.

    :raises ConfigError: for what is no JSON.
    """

    def plain(value: object) -> object:
        if isinstance(value, Mapping):
            return dict(value)
        raise TypeError(f"a {type(value).__name__}")

    try:
        copy: dict[str, Any] = json.loads(json.dumps(match, default=plain, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"match is no JSON: {error}", field="match") from error
    return copy


def describe_wanted(wanted: Wanted) -> str:
    """The wait, for messages."""
    names = ", ".join(name for name, _ in wanted)
    return f"wait_event({names!r})" if len(wanted) == 1 else f"wait_any({names!r})"


def _is_wanted(wanted: Wanted | None, name: str, event: Event) -> bool:
    return wanted is None or any(name == its_name and matches(event, match) for its_name, match in wanted)


def matches(value: object, pattern: object) -> bool:
    """Whether `value` has all that `pattern` has, recursively; `None` in the pattern is any value."""
    if pattern is None:
        return True
    if isinstance(pattern, Mapping):
        return isinstance(value, Mapping) and all(
            key in value and matches(value[key], part) for key, part in pattern.items()
        )
    if isinstance(pattern, list | tuple):
        return isinstance(value, list) and len(value) == len(pattern) and all(map(matches, value, pattern))
    return value == pattern
