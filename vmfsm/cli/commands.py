"""The commands that there are; `vmfsm --help` and completion read this, and import none of them."""

from typing import NamedTuple


class Row(NamedTuple):
    """A command."""

    name: str
    place: str
    """`module:attribute` in this package."""
    help: str
    """In a line. The docstring of the command begins with it."""


SECTIONS = {
    "What is here": (Row("gc", "gc:gc", "Kill and remove what dead programs have left behind."),),
}
"""In the order of `vmfsm --help`."""

COMMANDS = {row.name: row for rows in SECTIONS.values() for row in rows}
