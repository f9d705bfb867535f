"""A report as text, for terminals: what matters first, and of everything else what is near the failure.

Whatever a guest has printed, nothing in it moves a cursor.
"""

import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from vmfsm.errors import printable

from .lanes import LOOK_ON

WIDTH = 100
"""Columns, where there is no terminal that has some."""
_LEAST = 40
_BEFORE, _AFTER = 14, 5
"""Lines of the timeline around a failure."""
_SLOWEST = 5
_MOST_ROWS = 40
_LONGEST = 4_000
_LANES = ("state", "steps", "waits", "process", "holds", "migration", "verdicts", "notes", "events", "qmp")
"""Whose items are in the timeline; of hooks only those that failed or took long."""
_SLOW = 0.1
_NOTABLE = 0.01
"""Seconds, in a comparison."""
_STYLES = {"bold": "1", "dim": "2", "bad": "31", "good": "32", "warn": "33", "busy": "36", "held": "35"}
_OUTCOMES = {"ok": "good", "failed": "bad", "unfinished": "warn"}

Data = Mapping[str, Any]


def render(data: Data, *, width: int | None = None, colour: bool = False) -> str:
    """The report that `data` is, in lines of at most `width` columns, without the last line's end.

    :param data: as of `vmfsm.report.data`.
    :param width: columns; 100 without it. Less than 40 are 40. A command line is not broken.
    :param colour: with a terminal's colours (ANSI).
    """
    page = _Page(max(width or WIDTH, _LEAST), colour)
    _head(page, data)
    if data.get("comparison"):
        _comparison(page, data["comparison"])
    for machine in data["machines"]:
        _machine(page, machine, "" if data.get("test") else _words(machine.get("test")))
    return "\n".join(page.lines)


class _Entry(NamedTuple):
    """A line of the timeline."""

    at: float
    what: str
    text: str
    style: str


class _Page:
    def __init__(self, width: int, colour: bool) -> None:
        self.width = width
        self.lines: list[str] = []
        self._colour = colour

    def styled(self, text: str, style: str) -> str:
        code = _STYLES.get(style)
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour and code and text else text

    def add(self, text: str = "", style: str = "", indent: int = 2) -> None:
        """One line, cut where it is too long."""
        self.lines.append(" " * indent + self.styled(_fitting(text, self.width - indent), style))

    def wrapped(self, text: str, style: str = "", first: str = "  ", further: str = "  ") -> None:
        """As many lines as it takes."""
        self.lines += [
            line[: len(first) if not number else len(further)]
            + self.styled(line[len(first) if not number else len(further) :], style)
            for number, line in enumerate(_wrapped(text, self.width, first, further))
        ]

    def section(self, title: str) -> None:
        self.lines.append("")
        self.add(title, "dim")


def _words(value: object) -> str:
    """Somebody else's, on one line, and safe."""
    shown = printable(str("" if value is None else value)[:_LONGEST].expandtabs(4))
    return shown.replace("\n", "\\n")


def _columns(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


def _fitting(text: str, width: int) -> str:
    if _columns(text) <= width:
        return text
    while text and _columns(text) >= width:
        text = text[:-1]
    return f"{text}…"


def _wrapped(text: str, width: int, first: str, further: str) -> list[str]:
    """By words; `textwrap` counts characters, which are not columns everywhere."""
    most = width if text.isascii() else max(width // 2, _LEAST // 2)
    lines = textwrap.wrap(text, most, initial_indent=first, subsequent_indent=further, break_on_hyphens=False)
    return lines or [first]


def _took(seconds: object) -> str:
    if not isinstance(seconds, int | float):
        return ""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


# -- the parts ----------------------------------------------------------------------------------------------


def _head(page: _Page, data: Data) -> None:
    title = _words(data.get("test") or data.get("title"))
    page.wrapped(title, "bold", "", "")
    when = _words(str(data.get("begin"))[:19].replace("T", " "))
    machines = len(data["machines"])
    many = f", {machines} machines" if machines > 1 else ""
    lasted = f"{data.get('length', 0.0):.1f} s"
    page.add(f"began {when} UTC, {lasted}{many}; times are in seconds since then", "dim", 0)


def _machine(page: _Page, machine: Data, test: str) -> None:
    diagnosis = machine["diagnosis"]
    outcome, kind = _words(diagnosis["outcome"]), _words(diagnosis["kind"])
    style = _OUTCOMES.get(outcome, "")
    launch = machine.get("launch")
    name = _words(machine["name"]) + (f" (launch {launch})" if isinstance(launch, int) and launch > 1 else "")
    page.lines.append("")
    said = outcome if kind in {outcome, "unfinished"} else f"{outcome}: {kind}"
    said = _fitting(said, page.width // 2)
    room = page.width - _columns(said) - 2
    page.lines.append(f"{page.styled(_fitting(name, room), 'bold')}  {page.styled(said, style)}")
    if test:
        page.wrapped(test, "dim")
    page.wrapped(_words(diagnosis["cause"]), "" if outcome == "ok" else style)
    _clues(page, diagnosis["clues"])
    _wait(page, diagnosis.get("wait"))
    _timeline(page, machine)
    _slowest(page, machine)
    _facts(page, machine)
    _command(page, machine.get("command"))
    _missing(page, machine)


def _clues(page: _Page, clues: Sequence[Data]) -> None:
    if not clues:
        return
    page.section("CLUES")
    for clue in clues:
        at = clue.get("at")
        when = f"{max(at, 0.0):9.3f}" if isinstance(at, int | float) else " " * 9
        page.wrapped(_words(clue["text"]), "", f"  {when}  ", " " * 13)


def _wait(page: _Page, wait: Data | None) -> None:
    if not wait:
        return
    page.section("WAITED FOR")
    since, until, timeout = wait.get("since"), wait.get("until"), wait.get("timeout")
    limit = f" of {_took(timeout)}" if timeout is not None else ", without a limit"
    span = f"from {since:.3f} to {until:.3f}" if until is not None and since is not None else "until the end"
    lasted = f" ({_took(until - since)}{limit})" if until is not None and since is not None else limit
    outcome = _words(wait.get("outcome"))
    page.wrapped(f"{_words(wait.get('operation'))}: {outcome}", "bad" if outcome != "done" else "")
    by = f"{_words(wait.get('caller'))}, " if wait.get("caller") else ""
    page.wrapped(f"by {by}{_words(wait.get('thread'))}, {span}{lasted}")


def _timeline(page: _Page, machine: Data) -> None:
    """What happened around the failure, or at the end, of all lanes."""
    entries = sorted(_entries(machine), key=lambda entry: entry.at)
    at = machine["diagnosis"].get("at")
    here = machine["end"] if at is None else at
    before = [entry for entry in entries if entry.at <= here][-_BEFORE:]
    after = [entry for entry in entries if entry.at > here][:_AFTER]
    if not before and not after:
        return
    page.section("WHAT HAPPENED" if at is None else "AROUND IT")
    what = max(len(entry.what) for entry in (*before, *after))
    for entry in before:
        _entry(page, entry, what)
    if at is not None:
        kind = _words(machine["diagnosis"]["kind"])
        style = _OUTCOMES.get(machine["diagnosis"]["outcome"], "")
        rule = "─" * max(page.width - 15 - len(kind), 3)
        page.add(f"{at:9.3f}  {kind} {rule}", style)
    for entry in after:
        _entry(page, entry, what)


def _entry(page: _Page, entry: _Entry, what: int) -> None:
    head = f"  {entry.at:9.3f}  {entry.what:<{what}}  "
    text = _fitting(entry.text, page.width - len(head))
    page.lines.append((page.styled(head, "dim") + page.styled(text, entry.style)).rstrip())


def _entries(machine: Data) -> Iterator[_Entry]:
    """Of lanes what was begun, and the lines of consoles and of QEMU's output."""
    for lane in machine["lanes"]:
        name = _words(lane["id"])
        if name not in _LANES and name != "hooks":
            continue
        for item in lane["items"]:
            if _is_aside(name, item):
                continue
            end, tone = item.get("end"), _words(item.get("tone"))
            took = end - item["t"] if isinstance(end, int | float) else 0.0
            if name == "hooks" and took < _SLOW and tone not in {"bad", "warn"}:
                continue
            lasted = f" ({_took(took)})" if took >= 0.001 and name != "state" else ""
            label = _words(item["label"])
            caller = _caller(item.get("detail")) if name == "waits" else ""
            yield _Entry(item["t"], name, f"{label}{lasted}{caller}", tone)
    for log in machine["logs"]:
        name = _words(log["id"])
        if name.startswith("console:") or name == "output":
            for line in log["lines"]:
                shown = _words(line[1]).rstrip()
                if shown:
                    yield _Entry(line[0], name.removeprefix("console:"), f"│ {shown}", "")


def _is_aside(lane: str, item: Data) -> bool:
    """What was made of the machine for people to look at, not what the test did with it."""
    detail = item.get("detail")
    by = detail.get("by") if isinstance(detail, Mapping) else None
    return lane in {"hooks", "waits", "qmp"} and by in LOOK_ON


def _caller(detail: object) -> str:
    caller = detail.get("caller") if isinstance(detail, Mapping) else None
    return f"  {_words(caller).rpartition('/')[2]}" if caller else ""


def _slowest(page: _Page, machine: Data) -> None:
    spans = [
        (item["end"] - item["t"], item["t"], _words(lane["id"]).removesuffix("s"), _words(item["label"]))
        for lane in machine["lanes"]
        if lane["id"] in {"steps", "hooks", "waits"}
        for item in lane["items"]
        if isinstance(item.get("end"), int | float) and not _is_aside(str(lane["id"]), item)
    ]
    slow = sorted((span for span in spans if span[0] >= _SLOW), reverse=True)[:_SLOWEST]
    if not slow:
        return
    page.section("SLOWEST")
    for seconds, at, lane, label in slow:
        page.add(f"{_took(seconds):>9}  {lane:<4}  {label}, at {at:.3f}")


def _facts(page: _Page, machine: Data) -> None:
    state = _words(machine.get("state"))
    reason = f" ({_words(machine['reason'])})" if machine.get("reason") else ""
    own = [("state", f"{state}{reason}"), ("QEMU's end", _words(machine.get("exit")))]
    facts = [(name, value) for name, value in own if value]
    facts += [(_words(fact["name"]), _words(fact["value"])) for fact in machine["facts"]]
    page.section("FACTS")
    room = min(max(len(name) for name, _ in facts), 20)
    for name, value in facts[:_MOST_ROWS]:
        page.wrapped(value, "", f"  {_fitting(name, room):<{room}}  ", " " * (room + 4))


def _command(page: _Page, command: object) -> None:
    """Whole, and in one piece, to be copied."""
    if command:
        page.section("COMMAND")
        page.lines.append(f"  {_words(command)}")


def _missing(page: _Page, machine: Data) -> None:
    missing = [f"{_words(one['what'])}: {_words(one['why'])}" for one in machine.get("missing") or ()]
    missing += map(_words, machine.get("problems") or ())
    if missing:
        page.section("MISSING")
        for line in missing[:_MOST_ROWS]:
            page.wrapped(line, "warn", "  ", "    ")
    files = machine.get("files") or ()
    if files:
        page.section("FILES")
        for file in files[:_MOST_ROWS]:
            page.add(f"{_words(file['file'])}  {_words(file['what'])}")


def _comparison(page: _Page, comparison: Data) -> None:
    """What took longer in one than in the other."""
    names = [_words(name) for name in comparison["names"]]
    page.lines += ["", page.styled("COMPARED", "bold")]
    notable = [row for row in comparison["rows"] if _is_notable(row)]
    rows = list(_rows(notable))
    if not rows:
        page.add("nothing took longer in one than in the other")
        return
    titles = ("", *(_fitting(name, 14) for name in names), "more", "")
    widths = [max(_columns(row[n]) for row, _ in [(titles, ""), *rows]) for n in (1, 2, 3)]
    room = page.width - sum(widths) - 8
    for row, style in [(titles, "dim"), *rows[:_MOST_ROWS]]:
        numbers = "  ".join(f"{_fitting(row[n], widths[n - 1]):>{widths[n - 1]}}" for n in (1, 2, 3))
        page.add(f"{numbers}  {_fitting(row[0], max(room - _columns(row[4]), 10))}{row[4]}".rstrip(), style)
    if len(rows) > _MOST_ROWS:
        page.add(f"and {len(rows) - _MOST_ROWS} more", "dim")


def _is_notable(row: Data) -> bool:
    """Milliseconds are chance; a step is somebody's own."""
    seconds = [one for one in row["seconds"] if one is not None]
    return row["kind"] == "step" or max(seconds, default=0.0) >= _NOTABLE


def _rows(rows: Iterable[Data]) -> Iterator[tuple[tuple[str, ...], str]]:
    for row in rows:
        delta = row.get("delta")
        more = "" if delta is None else f"{'+' if delta >= 0 else '-'}{_took(abs(delta))}"
        mark = "  ← most of it" if row.get("most") else ""
        style = "bad" if row.get("most") else "warn" if row.get("slower") else ""
        name = f"{_words(row['kind'])} {_words(row['name'])}"
        yield (name, *(_took(seconds) or "-" for seconds in row["seconds"]), more, mark), style
