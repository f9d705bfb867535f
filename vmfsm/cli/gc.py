"""`vmfsm gc`: what dead programs have left is killed and removed."""

import time

import click

from vmfsm import registry

from .command import command
from .output import age, one_line, print_json
from .table import Cell, Column, print_table

_COLUMNS = (
    Column("NAME"),
    Column("WAS"),
    Column("PID", right=True),
    Column("AGE", right=True),
    Column("HARNESS", rank=1, right=True),
    Column("DIRECTORY", rank=2),
)
_DEAD = {registry.Status.ORPHANED, registry.Status.STALE}


@command(
    json="Print one JSON document: what was removed, a list of objects.",
    examples=(
        ("vmfsm gc", "kill QEMUs whose program has died, and remove their files"),
        ("vmfsm gc --dry-run", "only say what that would be"),
    ),
)
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be killed and removed.")
def gc(dry_run: bool, as_json: bool) -> None:
    """Kill and remove what dead programs have left behind.

    That is QEMUs whose program has died and whose watchdog was killed as well (orphaned), and directories and
    sockets of which no process is left (stale). What lives is not touched, nor what another host or container
    has registered in the same place (foreign). It takes some tenths of a second, and four seconds where a
    process can't be killed.
    """
    if dry_run:
        entries = [entry for entry in registry.machines() if entry.status in _DEAD]
    else:
        entries = registry.clean_up()
    if as_json:
        print_json([entry._asdict() for entry in entries])
    elif entries:
        print_table(_COLUMNS, map(_row, entries))
    else:
        click.echo("nothing to remove", err=True)


def _row(entry: registry.Entry) -> list[str | Cell]:
    return [
        one_line(entry.name),
        Cell(entry.status.value, fg="red" if entry.status is registry.Status.ORPHANED else "yellow"),
        str(entry.pid or "-"),
        age(max(0, time.time() - entry.since)),
        str(entry.harness.pid),
        one_line(entry.directory),
    ]
