"""A snapshot, laid out for people: what matters first, each thing on a line of its own."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click

from .output import age, duration, one_line
from .ps import COLORS, program
from .table import Cell, Column, print_table

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
        _text(f"console {name}" if name != "console" else "console", _mapping(console).get("lines"), lines)
    _events(_rows(_mapping(details.get("qmp")), "events"), snapshot.get("taken"), lines)
    _text("output of QEMU", _mapping(details.get("logs")).get("lines"), lines)
    _command(snapshot)


# -- what may be missing ------------------------------------------------------------------------------------


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _rows(snapshot: dict[str, Any], name: str) -> list[dict[str, Any]]:
    value = snapshot.get(name)
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _for(value: object) -> str:
    seconds = _seconds(value)
    return "" if seconds is None else duration(max(0.0, seconds))


def _ago(value: object) -> str:
    seconds = _seconds(value)
    if seconds is None:
        return ""
    return f"{duration(seconds) if seconds < 10 else age(seconds)} ago"


def _words(value: object) -> str:
    return "" if value is None else one_line(value)


# -- the parts ----------------------------------------------------------------------------------------------


def _section(title: str) -> None:
    click.echo()
    click.secho(title, bold=True)


def _head(snapshot: dict[str, Any]) -> None:
    state = _words(snapshot.get("state"))
    title = click.style(_words(snapshot.get("name")), bold=True)
    since = _for(snapshot.get("since"))
    reason = f" ({_words(snapshot.get('reason'))})" if snapshot.get("reason") else ""
    click.echo(f"{title}  {click.style(state, fg=COLORS.get(state))}{reason}{f' for {since}' if since else ''}")
    harness, qmp = _mapping(snapshot.get("harness")), _mapping(_mapping(snapshot.get("details")).get("qmp"))
    paths, recording = _mapping(snapshot.get("paths")), _mapping(snapshot.get("recording"))
    qemu = [
        f"pid {snapshot['pid']}" if snapshot.get("pid") else "",
        _words(qmp.get("run_state")),
        f"version {_words(qmp['version'])}" if qmp.get("version") else "",
        f"exit status {snapshot['exit_status']}" if snapshot.get("exit_status") is not None else "",
        f"launched {snapshot['launches']} times" if (snapshot.get("launches") or 0) > 1 else "",
    ]
    command = harness.get("command")
    facts = {
        "held": Cell(_words(snapshot.get("held")), fg="magenta"),
        "qemu": Cell(one_line(", ".join(filter(None, qemu)))),
        "runs": Cell(_words(snapshot.get("running_hook")), fg="yellow"),
        "test": Cell(_words(harness.get("test"))),
        "harness": Cell(
            f"pid {harness.get('pid')}, {_words(program(command if isinstance(command, list) else []))}"
            if harness
            else ""
        ),
        "in": Cell(_words(harness.get("cwd"))),
        "directory": Cell(_words(paths.get("directory"))),
        "logs": Cell(_words(paths.get("log_dir"))),
        **{f"file {n + 1}": Cell(_words(path)) for n, path in enumerate(_list(recording.get("files")))},
        **{f"trouble {n + 1}": Cell(_words(what), fg="yellow") for n, what in enumerate(_list(recording.get("problems")))},
    }
    rows = [[Cell(name, dim=True), cell] for name, cell in facts.items() if cell.text]
    print_table((Column(""), Column("")), rows, indent="  ")


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _waits(waits: Sequence[dict[str, Any]]) -> None:
    if not waits:
        return
    _section("waits")
    rows = []
    for wait in waits:
        limit = _seconds(wait.get("timeout"))
        of = f"of {duration(limit)}" if limit is not None else "no limit"
        rows.append(
            [
                Cell(_words(wait.get("operation")), fg="yellow"),
                _for(wait.get("seconds")),
                of,
                _words(wait.get("thread")),
                _words(wait.get("caller")),
            ]
        )
    columns = (Column(""), Column("", right=True), Column(""), Column("", rank=2), Column("", rank=1))
    print_table(columns, rows, indent="  ")


def _history(history: Sequence[dict[str, Any]]) -> None:
    if not history:
        return
    _section("history")
    rows: list[list[str | Cell]] = []
    for change in history:
        dest = _words(change.get("dest"))
        rows.append(
            [
                _ago(change.get("at")),
                Cell(dest, fg=COLORS.get(dest)),
                f"for {_for(change.get('seconds'))}",
                _words(change.get("reason")),
            ]
        )
    print_table((Column("", right=True), Column(""), Column(""), Column("")), rows, indent="  ")


def _hooks(hooks: Sequence[dict[str, Any]]) -> None:
    """Those that took long or failed; of the others only how long they took together."""
    remarkable = [hook for hook in hooks if hook.get("error") or (_seconds(hook.get("seconds")) or 0) >= _SLOW]
    if not hooks:
        return
    _section("hooks")
    others = [_seconds(hook.get("seconds")) or 0.0 for hook in hooks if hook not in remarkable]
    rows: list[list[str | Cell]] = [
        [
            _words(hook.get("hook")),
            _words(hook.get("plugin")),
            _for(hook.get("seconds")),
            Cell(_words(hook.get("error")), fg="red"),
        ]
        for hook in remarkable
    ]
    print_table((Column(""), Column(""), Column("", right=True), Column("")), rows, indent="  ")
    if others:
        more = f"{len(others)} others" if rows else f"{len(others)}"
        click.echo(f"  {more}, {duration(sum(others))} together")


def _verdicts(verdicts: Sequence[dict[str, Any]]) -> None:
    if not verdicts:
        return
    _section("verdicts")
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
    print_table((Column("", right=True), Column(""), Column("", rank=1), Column("")), rows, indent="  ")


def _events(events: Sequence[dict[str, Any]], taken: object, lines: int) -> None:
    if not events[-lines:] or not lines:
        return
    _section("events")
    rows: list[list[str | Cell]] = []
    for event in events[-lines:]:
        data = event.get("data")
        text = "" if not data else json.dumps(data, ensure_ascii=False)
        rows.append([_since(event, taken), _words(event.get("event")), Cell(one_line(text), dim=True)])
    print_table((Column("", right=True), Column(""), Column("")), rows, indent="  ")


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
        _section("command")
        click.echo(f"  {one_line(snapshot['shell'])}")

