"""`vmfsm watch`: a machine as it goes on, on a screen; or its timeline, line by line."""

import json
import os
import shutil
import time
from collections.abc import Sequence
from typing import Any

import click

from vmfsm.control import Client, Disconnected
from vmfsm.jsonable import jsonable
from vmfsm.timeline import Record, format_timeline

from .command import command, timeout_option
from .machines import EXITS, complete, find
from .output import age, colors, duration, one_line
from .ps import COLORS
from .terminal.departure import broken_pipe

_OVER = frozenset({"configured", "stopped", "failed"})
_SHARE = 3
"""A console gets at most one in so many rows of the screen."""


@command(
    json="Print JSON lines: each record of the timeline, those so far and those to come.",
    exits=EXITS,
    examples=(
        ("vmfsm watch boot-test", "its state, who waits for what, what happens; Ctrl-C leaves"),
        ("vmfsm watch boot-test | grep verdict", "the timeline, line by line"),
        ("vmfsm watch boot-test --json | jq 'select(.kind == \"qmp-event\")'", "the same for programs"),
    ),
)
@click.argument("name", shell_complete=complete)
@click.option(
    "--every",
    type=click.FloatRange(0.1, 3600),
    default=0.5,
    show_default=True,
    metavar="SECONDS",
    help="Look at it so often, on a terminal.",
)
@timeout_option(10.0, "For its harness to answer.")
def watch(name: str, every: float, timeout: float, as_json: bool) -> None:
    """Watch what a machine does.

    On a terminal: state, waits, timeline and consoles, anew twice a second. Elsewhere, and with --json, the
    records of its timeline. It ends when the machine does, and asks nothing of QEMU.
    """
    with find(name) as machine, broken_pipe(1):
        if as_json or not os.isatty(1):
            _follow(machine, timeout, as_json=as_json)
        else:
            _look(machine, every, timeout)


def _follow(machine: Client, timeout: float, *, as_json: bool) -> None:
    first: Record | None = None
    try:
        with machine.records(timeout=timeout) as records:
            for record in records:
                first = first or record
                if as_json:
                    click.echo(json.dumps(jsonable(record._asdict())))
                elif record.kind != "hook-begin":
                    click.echo("\n".join(_rows([record], first.at, None)))
                if record.kind == "transition" and record.data.get("dest") in _OVER and _is_over(machine):
                    return
    except Disconnected as error:
        _say_ended(machine, error)


def _is_over(machine: Client) -> bool:
    """What is in the history may be followed by another launch."""
    return machine.snapshot()["state"] in _OVER


def _look(machine: Client, every: float, timeout: float) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    wanted = colors() is not False and click.get_current_context().color is not False
    console = Console(no_color=not wanted, highlight=False)
    last = ""
    try:
        with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                snapshot = machine.snapshot(timeout=timeout)
                size = shutil.get_terminal_size()
                rows = screen(snapshot, size.columns, size.lines)
                live.update(Text.from_ansi("\n".join(rows), no_wrap=True, overflow="ellipsis"), refresh=True)
                last = rows[0]
                if snapshot["state"] in _OVER:
                    break
                time.sleep(every)
    except Disconnected as error:
        _say_ended(machine, error)
        return
    click.echo(last)


def _say_ended(machine: Client, error: Disconnected) -> None:
    """:raises Disconnected: where it has not."""
    if not error.has_ended:
        raise error
    click.echo(f"{machine.name}: its program has ended", err=True)


def screen(snapshot: dict[str, Any], columns: int, rows: int) -> list[str]:
    """A picture of a machine, of as many rows as there are."""
    head = [_head(snapshot), ""]
    waits = [_wait(wait) for wait in snapshot.get("waits", ())][: rows // _SHARE]
    if waits:
        head += [_title("waits", columns), *waits, ""]
    consoles = _consoles(snapshot, columns, rows // _SHARE)
    room = rows - len(head) - len(consoles) - 1  # its title
    timeline = _timeline(snapshot, columns)[-room:] if room > 0 else []
    return [*head, _title("timeline", columns), *timeline, *[""] * (room - len(timeline)), *consoles][:rows]


def _title(text: str, columns: int) -> str:
    return click.style(f"{text} {'─' * max(0, columns - len(text) - 2)}", dim=True)


def _head(snapshot: dict[str, Any]) -> str:
    state = one_line(snapshot["state"])
    parts = [click.style(one_line(snapshot["name"]), bold=True), click.style(state, fg=COLORS.get(state))]
    if snapshot.get("reason"):
        parts.append(f"({one_line(snapshot['reason'])})")
    parts.append(f"for {age(snapshot['since'])}")
    run_state = snapshot.get("details", {}).get("qmp", {}).get("run_state")
    facts = {"pid": snapshot.get("pid"), "run state": run_state, "hook": snapshot.get("running_hook")}
    parts += [f"{name} {one_line(value)}" for name, value in facts.items() if value is not None]
    if snapshot.get("held"):
        parts.append(click.style(f"held: {one_line(snapshot['held'])}", fg="magenta"))
    return "  ".join(parts)


def _wait(wait: dict[str, Any]) -> str:
    limit = wait.get("timeout")
    of = "" if limit is None else f" of {duration(limit)}"
    what = click.style(one_line(wait.get("operation")), fg="yellow")
    return f"  {what}  {duration(wait.get('seconds', 0.0))}{of}  {one_line(wait.get('caller'))}"


def _timeline(snapshot: dict[str, Any], columns: int) -> list[str]:
    records = [Record(one["kind"], -one["at"], one["data"]) for one in snapshot.get("timeline", ())]
    launches = [-one["at"] for one in snapshot.get("history", ()) if one.get("event") == "launch"]
    begin = launches[-1] if launches else records[0].at if records else 0.0
    return _rows(records, begin, columns)


def _rows(records: Sequence[Record], begin: float, columns: int | None) -> list[str]:
    """The records as `format_timeline` has them, with times since `begin`."""
    anchor = Record("", begin, {})
    return format_timeline([anchor, *records], width=columns or 10_000).split("\n")[1:]


def _consoles(snapshot: dict[str, Any], columns: int, rows: int) -> list[str]:
    shown: list[str] = []
    for name, console in snapshot.get("details", {}).get("console", {}).items():
        lines = [one_line(line) for line in console.get("lines", ())]
        shown += [_title(name if name.startswith("console") else f"console {name}", columns), *lines[-rows:]]
    return shown[: 2 * rows]
