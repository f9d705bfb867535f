"""`vmfsm graph`: the lifecycle as a diagram, with the way that a machine has gone."""

from typing import Any

import click

from vmfsm import diagram
from vmfsm.lifecycle import Event, Reason, State, Transition

from .command import command, timeout_option
from .inspect import snapshot_of
from .machines import EXITS, complete_with_files
from .status import Failure

_FORMATS = {"mermaid": diagram.mermaid, "dot": diagram.graphviz}


@command(
    exits=EXITS,
    examples=(
        ("vmfsm graph", "the states, and what leads from one to another"),
        ("vmfsm graph boot-test", "the same, with the way that a machine has gone and where it is"),
        ("vmfsm graph boot-test-0001.jsonl --format dot | dot -Tsvg > boot.svg", "of a dead one, drawn"),
    ),
)
@click.argument("name", metavar="[NAME|RECORDING]", required=False, shell_complete=complete_with_files)
@click.option(
    "--format",
    "form",
    type=click.Choice(list(_FORMATS)),
    default="mermaid",
    show_default=True,
    help="The language: of Mermaid, or of Graphviz.",
)
@timeout_option(10.0, "For its harness to answer.")
def graph(name: str | None, form: str, timeout: float) -> None:
    """Draw the lifecycle as a diagram, with the way that a machine has gone.

    The output is text, for Mermaid (which Markdown pages draw) or for dot(1). Without a NAME it is the table
    of the lifecycle alone. RECORDING is a file that the plugin recorder has written.
    """
    history = None if name is None else _history(snapshot_of(name, timeout))
    click.echo(_FORMATS[form](history))


def _history(snapshot: dict[str, Any]) -> list[Transition]:
    """:raises Failure: for one that is none of this version's."""
    try:
        return [
            Transition(
                Event(row["event"]),
                State(row["source"]),
                State(row["dest"]),
                None if row["reason"] is None else Reason(row["reason"]),
                float(row["at"]),
            )
            for row in snapshot["history"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise Failure(f"its history is of another version of vmfsm: {error}") from None
