"""Records of everything that happens to a machine, on one monotonic clock."""

import collections
import contextlib
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from .errors import cut, printable
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
        self._listeners: tuple[Callable[[Record, int], object], ...] = ()

    def listen(self, listener: Callable[[Record, int], object]) -> Callable[[], None]:
        """Have `listener` called with each record and its size; a function that ends it.

        On the I/O thread, all three. It must neither wait nor raise.
        """
        self._listeners += (listener,)

        def stop() -> None:
            self._listeners = tuple(other for other in self._listeners if other is not listener)

        return stop

    def add(self, kind: str, data: Mapping[str, object], size: int) -> Record:
        """Append a record of what happens now; `size` is about how many bytes its data keeps alive."""
        record = Record(kind, time.monotonic(), data)
        self.append(record, size)
        return record

    def append(self, record: Record, size: int) -> None:
        """Append a record."""
        self._records.append(record)
        self._sizes.append(size)
        self._bytes += size
        while len(self._records) > _MOST_RECORDS or (self._bytes > _MOST_BYTES and len(self._records) > 1):
            self._records.popleft()
            self._bytes -= self._sizes.popleft()
        for listener in self._listeners:
            listener(record, size)

    def records(self) -> tuple[Record, ...]:
        while True:
            # The garbage collector may run meanwhile, and let the I/O thread add one.
            with contextlib.suppress(RuntimeError):
                return tuple(self._records)


_WIDTH = 100
"""Columns where there is no terminal."""
_LEAST_ROOM = 20
_LONGEST_VALUE = 80
_LONGEST_LINE = 240
_MOST_ROWS = 8
_MOST_ROWS_OF_COMMAND = 40
_IDENTIFIED_BY = {"hook": ("hook", "plugin"), "wait": ("operation", "thread", "caller")}
"""What a begin and its end have in common."""
_RED, _BOLD, _DIM, _PLAIN = "\x1b[31m", "\x1b[1m", "\x1b[2m", "\x1b[0m"
_COLOURS = dict.fromkeys(("transition", "step-begin", "step", "note"), _BOLD)
_COLOURS |= {"failure": _RED, "verdict": _RED, "dropped": _RED, "hook": _DIM, "spawn": _DIM, "wait": _DIM}


def format_timeline(records: Iterable[Record], *, colour: bool = False, width: int | None = None) -> str:
    """The records as a table for people: when, how long it took, what it was, and what there is to say.

    Times are in seconds since the first record; one that took a while stands where it was over. Where a
    hook began is left out, unless it has not come to its end. Nothing in it, whatever a guest printed, moves
    the cursor of a terminal.

    :param colour: mark what matters with a terminal's colours (ANSI); for `sys.stdout.isatty()`, say.
    :param width: columns to fit it into, as far as that goes without breaking words of the command line and
        with 20 columns for what there is to say. `None`: the terminal's (or `COLUMNS`), 100 without one.
    """
    import shutil

    shown = _without_begins_of_what_ended(records)
    kinds = max((len(record.kind) for record in shown), default=0)
    columns = shutil.get_terminal_size((_WIDTH, 24)).columns if width is None else width
    lines = []
    for kind, at, data in shown:
        head = f"{at - shown[0].at:8.4f} s {_took(data):>9}  {printable(kind):<{kinds}}  "
        first, *more = _summary(kind, data, max(columns - len(head), _LEAST_ROOM))
        entry = [(head + first).rstrip(), *(" " * len(head) + line for line in more)]
        paint = (_RED if data.get("error") else _COLOURS.get(kind)) if colour else None
        lines += [f"{paint}{line}{_PLAIN}" for line in entry] if paint else entry
    return "\n".join(lines)


def _without_begins_of_what_ended(records: Iterable[Record]) -> list[Record]:
    shown = []
    ended: collections.Counter[tuple[object, ...]] = collections.Counter()
    for record in reversed(tuple(records)):
        kind = record.kind.removesuffix("-begin")
        if kind in _IDENTIFIED_BY:
            which = (kind, *map(record.data.get, _IDENTIFIED_BY[kind]))
            if kind == record.kind:
                ended[which] += 1
            elif ended[which]:
                ended[which] -= 1
                continue
        shown.append(record)
    return shown[::-1]


def _took(data: Mapping[str, object]) -> str:
    seconds = data.get("seconds")
    if not isinstance(seconds, float):
        return ""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def _summary(kind: str, data: Mapping[str, object], room: int) -> list[str]:
    """What a record says, in rows of at most `room` columns."""
    try:
        text = _WORDS[kind](data)
    except (KeyError, TypeError):  # a plugin's own kind, or its own idea of one of these
        text = _named(data)
    lines = printable(text).expandtabs().split("\n")
    if kind in {"spawn", "adopt"}:
        rows, most = _options_in_rows(lines, room), _MOST_ROWS_OF_COMMAND
    else:
        rows, most = [row for line in lines for row in _in_rows(line, room)], _MOST_ROWS
    left_out = len(rows) - most
    return rows if left_out <= 1 else [*rows[:most], f"({left_out} more lines)"]


def _in_rows(line: str, room: int) -> list[str]:
    line = cut(line.rstrip(), _LONGEST_LINE)
    if len(line) <= room:
        return [line]
    import textwrap

    return textwrap.wrap(line, room, replace_whitespace=False, break_on_hyphens=False)


def _options_in_rows(options: Iterable[str], room: int) -> list[str]:
    """As many options a row as it takes; one that is too long goes on after a comma or a space."""
    rows = [""]
    for option in options:
        whole = rows[-1] and not rows[-1].startswith("  ")
        if whole and len(rows[-1]) + 1 + len(option) <= room:
            rows[-1] += f" {option}"
            continue
        parts = [option] if len(option) <= room else re.findall("[^ ,]+[ ,]*|[ ,]+", option)
        rows.append("")
        for part in parts:
            if rows[-1].strip() and len(rows[-1]) + len(part.rstrip()) > room:
                rows.append("  ")
            rows[-1] += part
    return [row.rstrip() for row in rows if row] or [""]


def _transition(data: Mapping[str, Any]) -> str:
    reason = f" ({data['reason']})" if data["reason"] else ""
    return f"{data['source']} -> {data['dest']}{reason}"


def _hook(data: Mapping[str, Any]) -> str:
    return f"{data['hook']} of {data['plugin']}" + (f" raised {data['error']}" if data.get("error") else "")


def _spawn(data: Mapping[str, Any]) -> str:
    """One option a line."""
    import shlex

    words = [shlex.quote(word).replace("\n", "\\n") for word in data["command"]]
    return "".join(f"\n{word}" if word.startswith("-") else f" {word}" for word in words).lstrip()


def _started(data: Mapping[str, Any]) -> str:
    return f"pid {data['pid']}" + (f", {data['binary']}" if data["binary"] else "")


def _stop(data: Mapping[str, Any]) -> str:
    way: str = data["way"]
    return way if way.startswith("SIG") else f"politely, by {way}"


def _exit(data: Mapping[str, Any]) -> str:
    return f"QEMU {describe_exit(data['status'], data.get('sent'))}"


def _said(data: Mapping[str, Any]) -> str:
    name = data.get("console", "console")
    text: str = data["text"].strip("\r\n")
    return text if name == "console" else f"{name}: {text}"


def _command(data: Mapping[str, Any]) -> str:
    names = ", ".join(data["arguments"])
    return f"{data['command']} ({names})" if names else str(data["command"])


def _reply(data: Mapping[str, Any]) -> str:
    return f"{data['command']}: {data['error']}" if "error" in data else str(data["command"])


def _greeting(data: Mapping[str, Any]) -> str:
    return f"QEMU {data['version']}"


def _event(data: Mapping[str, Any]) -> str:
    return f"{data['event']}  {_named(data.get('data', {}))}"


def _wait(data: Mapping[str, Any]) -> str:
    outcome = data.get("outcome", "waits")
    said = "" if outcome == "done" else f": {outcome}"
    return f"{data['operation']}{said}{_by(data)}"


def _by(data: Mapping[str, Any]) -> str:
    """Whose call it was, without the directory that this process is in."""
    if not data.get("caller"):
        return ""
    here = ""
    with contextlib.suppress(OSError):  # it is gone
        here = f"{os.getcwd()}/"
    return f"  by {data['caller'].removeprefix(here)}"


def _step_begin(data: Mapping[str, Any]) -> str:
    return f"> {data['step']}  {_said_of(data, 'step')}"


def _step(data: Mapping[str, Any]) -> str:
    return f"< {data['step']}" + (f"  left by {data['error']}" if data["error"] else "")


def _note(data: Mapping[str, Any]) -> str:
    return f"{data['text']}  {_said_of(data, 'text')}"


def _said_of(data: Mapping[str, Any], what: str) -> str:
    return _named({name: value for name, value in data.items() if name not in {what, "thread"}})


def _verdict(data: Mapping[str, Any]) -> str:
    return f"{data['verdict']}, seen by {data['where']} ({data['action']}): {data['what'].get('message', '')}"


def _named(data: Mapping[str, object]) -> str:
    return "  ".join(f"{name}={_value(value)}" for name, value in data.items() if name != "seconds")


_WORDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "transition": _transition,
    "hook-begin": _hook,
    "hook": _hook,
    "spawn": _spawn,
    "adopt": _spawn,
    "started": _started,
    "stop": _stop,
    "exit": _exit,
    "console": _said,
    "output": _said,
    "qmp-greeting": _greeting,
    "qmp-command": _command,
    "qmp-reply": _reply,
    "qmp-event": _event,
    "verdict": _verdict,
    "wait-begin": _wait,
    "wait": _wait,
    "step-begin": _step_begin,
    "step": _step,
    "note": _note,
}
"""What there is to say about records of the kinds that names and values do not serve well."""


def _value(value: object) -> str:
    import json

    text = value if isinstance(value, str) else json.dumps(value, default=repr, ensure_ascii=False)
    return cut(text.replace("\n", "\\n"), _LONGEST_VALUE)
