"""A snapshot, laid out for people: what matters first, each thing on a line of its own."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click

from vmfsm.reports import describe_exit

from .output import age, duration, one_line
from .ps import COLORS, program
from .table import Cell, Column, print_table

_LONGEST = 1e12
"""Seconds that anything takes; what is beyond, infinite or no number is not shown."""
_SLOW = 0.1
"""Seconds after which a hook's implementation is shown."""


def show(snapshot: dict[str, Any], lines: int) -> None:
    """Print it.

    :param lines: of consoles, of QEMU's output and of events, at most.

    It may be of another version, or of a file that somebody has made: what is missing in it is left out.
    """
    _head(snapshot)
    _waits(_rows(snapshot, "waits"))
    _history(_rows(snapshot, "history"))
    _hooks(_rows(snapshot, "hooks"))
    _verdicts(_rows(snapshot, "verdicts"))
    details = _mapping(snapshot.get("details"))
    for name, console in _mapping(details.get("console")).items():
        _text(f"CONSOLE {name}", _mapping(console).get("lines"), lines)
    _events(_rows(_mapping(details.get("qmp")), "events"), snapshot.get("taken"), lines)
    _text("OUTPUT OF QEMU", _mapping(details.get("logs")).get("lines"), lines)
    _command(snapshot)


# -- what may be missing ------------------------------------------------------------------------------------


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _rows(snapshot: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [row for row in _list(snapshot.get(name)) if isinstance(row, dict)]


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and abs(value) < _LONGEST else None


def _for(value: object) -> str:
    seconds = _seconds(value)
    return "" if seconds is None else duration(max(0.0, seconds))


def _ago(value: object) -> str:
    """How many seconds ago, without that word: it is the column's title."""
    seconds = _seconds(value)
    return "" if seconds is None else duration(seconds) if seconds < 10 else age(seconds)


def _words(value: object) -> str:
    return "" if value is None else one_line(value)


# -- the parts ----------------------------------------------------------------------------------------------


def _section(title: str) -> None:
    click.echo()
    click.secho(f"  {title}", dim=True)


def _head(snapshot: dict[str, Any]) -> None:
    state, reason = _words(snapshot.get("state")), _words(snapshot.get("reason"))
    since = _for(snapshot.get("since"))
    line = [click.style(state, fg=COLORS.get(state))]
    line += [f"({reason})"] if reason else []
    line += [f"for {since}"] if since else []
    line += ["when the last record was made"] if _mapping(snapshot.get("recording")) else []
    click.echo(f"{click.style(_words(snapshot.get('name')), bold=True)}  {' '.join(line)}")
    harness, paths = _mapping(snapshot.get("harness")), _mapping(snapshot.get("paths"))
    recording = _mapping(snapshot.get("recording"))
    facts = [
        ("held", "magenta", snapshot.get("held")),
        ("qemu", None, _qemu(snapshot)),
        ("runs", "yellow", snapshot.get("running_hook")),
        ("test", None, harness.get("test")),
        ("harness", None, _program(harness)),
        ("in", None, harness.get("cwd")),
        ("files", None, paths.get("directory")),
        ("logs", None, paths.get("log_dir")),
        ("last", None, _when(snapshot.get("taken")) if recording else None),
        *(("record", None, path) for path in _list(recording.get("files"))),
        *(("trouble", "yellow", problem) for problem in _list(recording.get("problems"))),
    ]
    for name, color, value in facts:
        if value:  # not cut, so that it can be copied
            click.echo(f"  {click.style(f'{name:8}', dim=True)} {click.style(_words(value), fg=color)}")


def _when(taken: object) -> str:
    """A time of day here, and how long ago that was."""
    try:
        at = datetime.fromisoformat(str(taken)).astimezone()
    except (ValueError, OverflowError, OSError):
        return ""
    ago = (datetime.now().astimezone() - at).total_seconds()
    return f"{at:%Y-%m-%d %H:%M:%S}, {age(max(0.0, ago))} ago"


def _qemu(snapshot: dict[str, Any]) -> str:
    qmp = _mapping(_mapping(snapshot.get("details")).get("qmp"))
    status, launches = snapshot.get("exit_status"), snapshot.get("launches")
    facts = [
        f"pid {snapshot['pid']}" if snapshot.get("pid") else "",
        describe_exit(status) if isinstance(status, int) else "",
        f"version {str(qmp['version']).partition(' ')[0]}" if qmp.get("version") else "",
        f"run state {qmp['run_state']}" if qmp.get("run_state") else "",
        f"launch {launches}" if isinstance(launches, int) and launches > 1 else "",
    ]
    return ", ".join(filter(None, facts))


def _program(harness: dict[str, Any]) -> str:
    command = [str(word) for word in _list(harness.get("command"))]
    return f"pid {harness['pid']}, {program(command)}" if "pid" in harness else ""


def _waits(waits: Sequence[dict[str, Any]]) -> None:
    if not waits:
        return
    click.echo()
    rows: list[list[str | Cell]] = []
    for wait in waits:
        has_limit = _seconds(wait.get("timeout")) is not None
        rows.append(
            [
                Cell(_words(wait.get("operation")), fg="yellow"),
                _for(wait.get("seconds")),
                _for(wait.get("remaining")) if has_limit else "no limit",
                _words(wait.get("thread")),
                _words(wait.get("caller")),
            ]
        )
    columns = (
        Column("WAITS FOR"),
        Column("WAITED", right=True),
        Column("LEFT", right=True),
        Column("THREAD", rank=2),
        Column("CALLER", rank=1),
    )
    print_table(columns, rows, indent="  ")


def _history(history: Sequence[dict[str, Any]]) -> None:
    if not history:
        return
    click.echo()
    rows: list[list[str | Cell]] = []
    for change in history:
        dest = _words(change.get("dest"))
        rows.append(
            [
                _ago(change.get("at")),
                Cell(dest, fg=COLORS.get(dest)),
                _for(change.get("seconds")),
                _words(change.get("reason")),
            ]
        )
    columns = (Column("AGO", right=True), Column("STATE"), Column("FOR", right=True), Column("REASON"))
    print_table(columns, rows, indent="  ")


def _hooks(hooks: Sequence[dict[str, Any]]) -> None:
    """Those that took long or failed; of the others only how long they took together."""
    if not hooks:
        return
    click.echo()

    def taken(hook: dict[str, Any]) -> float:
        return _seconds(hook.get("seconds")) or 0.0

    remarkable = [hook for hook in hooks if hook.get("error") or taken(hook) >= _SLOW]
    others = [taken(hook) for hook in hooks if hook not in remarkable]
    rows: list[list[str | Cell]] = [
        [
            _words(hook.get("hook")),
            _words(hook.get("plugin")),
            _for(hook.get("seconds")),
            Cell(_words(hook.get("error")), fg="red"),
        ]
        for hook in remarkable
    ]
    columns = (Column("HOOK"), Column("PLUGIN"), Column("TOOK", right=True), Column("ERROR"))
    if rows:
        print_table(columns, rows, indent="  ")
    if others:
        more = "other hooks" if rows else "hooks"
        click.secho(f"  {len(others)} {more} took {duration(sum(others))} together", dim=True)


def _verdicts(verdicts: Sequence[dict[str, Any]]) -> None:
    if not verdicts:
        return
    click.echo()
    rows: list[list[str | Cell]] = []
    for record in verdicts:
        data = _mapping(record.get("data"))
        what = _mapping(data.get("what"))
        message = what.get("message", what or "")
        rows.append(
            [
                _ago(record.get("at")),
                Cell(_words(data.get("kind")), fg="red"),
                _words(data.get("where")),
                _words(message),
            ]
        )
    columns = (Column("AGO", right=True), Column("KIND"), Column("WHERE", rank=1), Column("WHAT"))
    print_table(columns, rows, indent="  ")


def _events(events: Sequence[dict[str, Any]], taken: object, lines: int) -> None:
    if not events[-lines:] or not lines:
        return
    click.echo()
    rows: list[list[str | Cell]] = []
    for event in events[-lines:]:
        data = event.get("data")
        text = "" if not data else json.dumps(data, ensure_ascii=False)
        rows.append([_since(event, taken), _words(event.get("event")), Cell(one_line(text), dim=True)])
    print_table((Column("AGO", right=True), Column("EVENT"), Column("DATA")), rows, indent="  ")


def _since(event: dict[str, Any], taken: object) -> str:
    """How long before the snapshot was taken, by the clock on the wall."""
    stamp = _mapping(event.get("timestamp"))
    try:
        now = datetime.fromisoformat(str(taken)).timestamp()
        return _ago(max(0.0, now - float(stamp["seconds"]) - float(stamp["microseconds"]) / 1e6))
    except (ValueError, KeyError, TypeError, OverflowError):
        return ""


def _text(title: str, text: object, lines: int) -> None:
    shown = [str(line) for line in _list(text)][-lines:] if lines else []
    if not any(shown):
        return
    _section(one_line(title))
    for line in shown:
        click.echo(f"  {click.style('|', dim=True)} {one_line(line)}".rstrip())


def _command(snapshot: dict[str, Any]) -> None:
    if snapshot.get("shell"):
        _section("COMMAND")
        click.echo(f"  {one_line(snapshot['shell'])}")
