"""`vmfsm inspect`: all that is known of a machine, or that its recording tells, laid out for people."""

import re
from typing import Any

import click

from .command import command, timeout_option
from .machines import EXITS, complete_with_files, find
from .output import print_json
from .picture import show

_OF_HARNESS = re.compile(r"\d+/[^/]+")


def is_file(name: str) -> bool:
    """Whether a NAME means a recording: machines' names have no slashes, but for `PID/NAME`."""
    return name.endswith(".jsonl") or ("/" in name and not _OF_HARNESS.fullmatch(name))


def snapshot_of(name: str, timeout: float) -> dict[str, Any]:
    """Of a machine that lives, or of a recording."""
    if is_file(name):
        from vmfsm import recording

        return recording.read(name).snapshot()
    with find(name) as machine:
        return machine.snapshot(timeout=timeout)


@command(
    json="Print one JSON document: the whole snapshot (docs/snapshot.md).",
    exits=EXITS,
    examples=(
        ("vmfsm inspect boot-test", "what it is doing, since when, who waits for what"),
        ("vmfsm inspect boot-test --lines 20", "with more of the console and of QEMU's output"),
        ("vmfsm inspect recordings/boot-test-*.jsonl", "the same of a machine whose program is dead"),
        ("vmfsm inspect boot-test --json | jq -r .shell", "QEMU's command line, to paste into a shell"),
    ),
)
@click.argument(
    "names", metavar="NAME|RECORDING...", nargs=-1, required=True, shell_complete=complete_with_files
)
@click.option(
    "-n",
    "--lines",
    metavar="N",
    type=click.IntRange(0, 20),
    default=10,
    show_default=True,
    help="Of each console, of QEMU's output, and of events: the last N.",
)
@timeout_option(10.0, "For its harness to answer.")
def inspect(names: tuple[str, ...], lines: int, timeout: float, as_json: bool) -> None:
    """Show what a machine is doing, since when and why.

    It asks the program that runs the machine, which answers also while it computes, waits or sits in a
    debugger. RECORDING is a file that the plugin recorder has written: it shows how things were at its end.
    Waits are shown with who waits for what, and how much of its time is over.
    """
    snapshots = [snapshot_of(name, timeout) for name in names]
    if as_json:
        print_json(snapshots[0] if len(snapshots) == 1 else snapshots)
        return
    for number, snapshot in enumerate(snapshots):
        click.echo("\n" if number else "", nl=False)
        show(snapshot, lines)
