"""`vmfsm ps`: which machines there are, in all programs of this user."""

import os
from collections.abc import Sequence

import click

from vmfsm import control
from vmfsm.control import Listing

from .command import command, timeout_option
from .output import age, one_line, print_json
from .table import Cell, Column, print_table

COLORS = {
    "launching": "yellow",
    "running": "green",
    "quitting": "yellow",
    "failed": "red",
    "silent": "yellow",
    "orphaned": "red",
    "stale": "yellow",
}
"""Of states, and of what is in their place where those can't be known."""

_COLUMNS = (
    Column("NAME"),
    Column("STATE"),
    Column("REASON", rank=3),
    Column("AGE", right=True),
    Column("PID", rank=2, right=True),
    Column("HARNESS", rank=4, right=True),
    Column("HELD", rank=1),
    Column("TEST", rank=5),
    Column("PROGRAM", rank=6),
)
_IDLE = {"configured", "stopped", "failed"}


@command(
    json="Print one JSON document: a list of objects, one a machine.",
    examples=(
        ("vmfsm ps", "what lives now, and what dead programs have left"),
        ("vmfsm ps --all", "also machines that are over, as long as their programs keep them"),
        ("vmfsm ps --json | jq -r '.[] | select(.held) | .name'", "the names of those that are held"),
    ),
)
@click.option("-a", "--all", "everything", is_flag=True, help="Show also machines without a QEMU.")
@timeout_option(1.0, "For all harnesses to answer; one that does not is shown as silent.")
def ps(everything: bool, timeout: float, as_json: bool) -> None:
    """List the machines of all programs of this user, by name.

    A machine has a state while its harness (the program that launched it) lives. In place of that there is:
    silent, where the harness lives and does not answer (it is stopped, say); orphaned, where it has died and
    QEMU lives; stale, where only files are left (vmfsm gc removes both); foreign, where it is of another
    container or host. AGE is for how long it has been so.
    """
    listings = control.machines(timeout)
    shown = [one for one in listings if everything or one.state not in _IDLE]
    if as_json:
        print_json([one._asdict() for one in shown])
    elif shown:
        print_table(_COLUMNS, map(_row, shown))
    else:
        hidden = len(listings)
        more = f" ({hidden} without a QEMU: vmfsm ps --all)" if hidden else ""
        click.echo(f"no machines{more}", err=True)


def _row(one: Listing) -> list[str | Cell]:
    state = one.state or one.status
    return [
        one_line(one.name),
        Cell(one_line(state), fg=COLORS.get(state)),
        one_line(one.reason or ""),
        "" if one.seconds is None else age(one.seconds),
        "" if one.pid is None else str(one.pid),
        str(one.harness),
        Cell(one_line(one.held or ""), fg="magenta"),
        one_line((one.test or "").removesuffix(" (call)")),
        Cell(one_line(program(one.command)), dim=True),
    ]


def program(command: Sequence[str]) -> str:
    """A command line as people would say it: without the interpreter's path, and without a script's text."""
    words = list(command)
    if len(words) > 1 and os.path.basename(words[0]).startswith("python"):
        del words[0]
        while len(words) > 1 and words[0] in {"-u", "-B", "-E", "-I", "-s", "-P"}:
            del words[0]
        if words[:1] == ["-m"] and len(words) > 1:
            del words[0]
        elif words[:1] == ["-c"]:
            return "python -c ..."
    if words:
        words[0] = os.path.basename(words[0])
    return " ".join(words)
