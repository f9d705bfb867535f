"""What was said at the monitor: nine records in ten, in a long recording.

So nothing is done for each of them that can be done for the few that are kept.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from vmfsm.jsonable import JSON

from .items import Item, Lane
from .logs import Line
from .values import number, text

_FIRST, _LAST, _NEAR, _MOST_NEAR = 3_000, 6_000, 60, 1_200
_EVENTS = {
    "GUEST_PANICKED": "bad",
    "MEMORY_FAILURE": "bad",
    "BLOCK_IO_ERROR": "bad",
    "WATCHDOG": "bad",
    "GUEST_CRASHLOADED": "bad",
    "RESET": "warn",
    "STOP": "warn",
    "SHUTDOWN": "warn",
    "POWERDOWN": "warn",
    "RESUME": "good",
}


class _Said(NamedTuple):
    """A line of the log, before it is one."""

    number: int
    at: float
    sign: str
    name: str
    seconds: float | None
    more: str
    tone: str | None

    def line(self) -> Line:
        took = "" if self.seconds is None else f" ({1000 * self.seconds:.1f} ms)"
        said = f"{self.sign} {self.name}{took}{' ' if self.more else ''}{self.more}"
        said = said if said.isprintable() else said.replace("\n", "\\n").replace("\r", "\\r")
        return Line(self.number, self.at, said, self.tone)


class Conversation:
    """All that was said, in lines: the first ones, the last, and those near a mark.

    :param share: how much of the numbers of lines that one machine has.
    :param file: which file has all of it.
    """

    def __init__(self, share: float, file: str | None) -> None:
        self.total = 0
        self._file = file
        self._most_first = int(_FIRST * share)
        self._first: list[_Said] = []
        self._last: deque[_Said] = deque(maxlen=int(_LAST * share))
        self._near: dict[int, _Said] = {}
        self._after = 0

    @property
    def file(self) -> str | None:
        """That, where not all is here."""
        return self._file if self.total > len(self._first) + len(self._last) else None

    def add(self, said: _Said) -> None:
        """The next line."""
        self.total += 1
        if len(self._first) < self._most_first:
            self._first.append(said)
        else:
            self._last.append(said)
        if self._after:
            self._after -= 1
            self._near[said.number] = said

    def mark(self) -> None:
        """What is near the line that came last is to be kept."""
        if len(self._near) < _MOST_NEAR:
            self._near.update((said.number, said) for said in list(self._last)[-_NEAR:])
            self._after = _NEAR

    def close(self) -> None:
        """Nothing more is expected."""

    def kept(self) -> list[Line]:
        """In order."""
        found = {said.number: said for said in (*self._first, *self._near.values(), *self._last)}
        return [found[number].line() for number in sorted(found)]


class Monitor:
    """Its commands and events, each on a lane, and both in the log."""

    def __init__(self, commands: Lane, events: Lane, log: Conversation) -> None:
        self._commands = commands
        self._events = events
        self._log = log

    def command(self, at: float, data: Mapping[str, Any]) -> None:
        """One was sent."""
        log = self._log
        name, key = data.get("command"), data.get("id")
        if type(name) is not str or len(name) > 80:
            name = text(name, 80)
        if type(key) is not str or len(key) > 80:
            key = text(key, 80)
        given = data.get("values") or data.get("arguments")
        arguments = text(given) if given else ""
        told: dict[str, JSON] | None = {"arguments": arguments} if arguments else None
        tone, by = "busy", data.get("by")
        if by:  # no test's: it is not to draw the eye
            by, tone = text(by, 40), "neutral"
            name, told = f"{name} (by {by})", {**(told or {}), "by": by}
        self._commands.begin(key, Item(at, name, tone, told, None, False, log.total))
        log.add(_Said(log.total, at, "→", name, None, arguments, None))

    def reply(self, at: float, data: Mapping[str, Any]) -> None:
        """It was answered."""
        log, key = self._log, data.get("id")
        if type(key) is not str or len(key) > 80:
            key = text(key, 80)
        begun = self._commands.end(key)
        if begun is None:
            began, by = at - max(number(data.get("seconds")) or 0.0, 0.0), text(data.get("by") or "", 40)
            label = text(data.get("command"), 80)
            label = f"{label} (by {by})" if by else label
            begun = Item(began, label, detail={"by": by} if by else None, line=log.total)
        began, name, _, told, _, _, line = begun
        error, returned = data.get("error"), data.get("return")
        if error:
            said, tone = text(error, 300), "neutral" if data.get("by") else "bad"
            told = {**(told or {}), "error": said}
        elif returned is not None:
            said, tone = text(returned, 300), "neutral"
            told = {**(told or {}), "return": said}
        else:
            said, tone = "", "neutral"
        self._commands.add(Item(began, name, tone, told, at, False, line), matters=tone == "bad")
        log.add(_Said(log.total, at, "←", name, at - began, said, tone if tone == "bad" else None))

    def close(self, exited: float | None) -> None:
        """Nothing more is said: what has no answer by now never had one.

        :param exited: when QEMU ended, where it did.
        """
        for item in self._commands.take_open():
            end = None if exited is None else max(exited, item.at)
            self._commands.add(
                item._replace(label=f"{item.label}: no answer", tone="bad", end=end), matters=True
            )

    def event(self, at: float, data: Mapping[str, Any]) -> None:
        """One came."""
        log, name, of_it = self._log, text(data.get("event"), 80), data.get("data")
        tone = _EVENTS.get(name, "neutral")
        said = text(of_it) if of_it else ""
        told: dict[str, JSON] | None = {"data": said} if said else None
        self._events.add(Item(at, name, tone, told, None, True, log.total))
        log.add(_Said(log.total, at, "*", name, None, said, tone))
