"""Records of everything that happens to a machine, on one monotonic clock."""

import collections
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from .errors import printable
from .reports import describe_exit

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


_WIDTH = 80
_MOST_LINES = 8
_RED, _BOLD, _DIM, _PLAIN = "\x1b[31m", "\x1b[1m", "\x1b[2m", "\x1b[0m"
_COLOURS = {"transition": _BOLD, "verdict": _RED, "dropped": _RED, "hook": _DIM, "spawn": _DIM}


def format_timeline(records: Iterable[Record], *, colour: bool = False) -> str:
    """The records as a table for people: when, how long it took, what it was, and what there is to say.

    Times are in seconds since the first record; one that took a while stands where it was over. Where a
    hook began is left out, unless it has not come to its end. Nothing in it, whatever a guest printed, moves
    the cursor of a terminal.

    :param colour: mark what matters with a terminal's colours (ANSI); for `sys.stdout.isatty()`, say.
    """
    shown = _without_begins_of_what_ended(records)
    width = max((len(record.kind) for record in shown), default=0)
    lines = []
    for kind, at, data in shown:
        first, *more = _summary(kind, data)
        head = f"{at - shown[0].at:9.4f} s {_took(data):>10}  {printable(kind):<{width}}  "
        entry = [(head + first).rstrip(), *(" " * len(head) + line for line in more)]
        paint = (_RED if data.get("error") else _COLOURS.get(kind)) if colour else None
        lines += [f"{paint}{line}{_PLAIN}" for line in entry] if paint else entry
    return "\n".join(lines)


def _without_begins_of_what_ended(records: Iterable[Record]) -> list[Record]:
    shown = []
    ended = set()
    for record in reversed(tuple(records)):
        which = record.data.get("hook"), record.data.get("plugin")
        if record.kind == "hook":
            ended.add(which)
        if record.kind == "hook-begin" and which in ended:
            ended.remove(which)
        else:
            shown.append(record)
    return shown[::-1]


def _took(data: Mapping[str, object]) -> str:
    seconds = data.get("seconds")
    if not isinstance(seconds, float):
        return ""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def _summary(kind: str, data: Mapping[str, object]) -> list[str]:
    """What a record says, in lines."""
    try:
        text = _WORDS[kind](data)
    except (KeyError, TypeError):  # a plugin's own kind, or its own idea of one of these
        text = _named(data)
    lines = [_cut(line.rstrip(), 3 * _WIDTH) for line in printable(text).expandtabs().split("\n")]
    left_out = len(lines) - _MOST_LINES
    return lines if left_out <= 1 else [*lines[:_MOST_LINES], f"({left_out} more lines)"]


def _transition(data: Mapping[str, Any]) -> str:
    reason = f" ({data['reason']})" if data["reason"] else ""
    return f"{data['source']} -> {data['dest']}{reason}"


def _hook(data: Mapping[str, Any]) -> str:
    return f"{data['hook']} of {data['plugin']}" + (f" raised {data['error']}" if data.get("error") else "")


def _spawn(data: Mapping[str, Any]) -> str:
    import shlex

    lines = [""]
    for word in re.split(" (?=-)", shlex.join(data["command"])):
        if lines[-1] and len(lines[-1]) + len(word) >= _WIDTH:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return "\n".join(lines)


def _stop(data: Mapping[str, Any]) -> str:
    way: str = data["way"]
    return way if way.startswith("SIG") else f"politely, by {way}"


def _exit(data: Mapping[str, Any]) -> str:
    return describe_exit(data["status"])


def _said(data: Mapping[str, Any]) -> str:
    name = data.get("console", "console")
    text: str = data["text"].strip("\r\n")
    return text if name == "console" else f"{name}: {text}"


def _command(data: Mapping[str, Any]) -> str:
    names = ", ".join(data["arguments"])
    return f"{data['command']} ({names})" if names else str(data["command"])


def _reply(data: Mapping[str, Any]) -> str:
    return f"{data['command']}: {data['error']}" if "error" in data else str(data["command"])


def _event(data: Mapping[str, Any]) -> str:
    return f"{data['event']}  {_named(data.get('data', {}))}"


def _named(data: Mapping[str, object]) -> str:
    return "  ".join(f"{name}={_value(value)}" for name, value in data.items() if name != "seconds")


_WORDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "transition": _transition,
    "hook-begin": _hook,
    "hook": _hook,
    "spawn": _spawn,
    "stop": _stop,
    "exit": _exit,
    "console": _said,
    "output": _said,
    "qmp-command": _command,
    "qmp-reply": _reply,
    "qmp-event": _event,
}
"""What there is to say about records of the kinds that names and values do not serve well."""


def _value(value: object) -> str:
    import json

    text = value if isinstance(value, str) else json.dumps(value, default=repr, ensure_ascii=False)
    return _cut(text.replace("\n", "\\n"), _WIDTH)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
