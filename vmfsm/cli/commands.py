"""The commands that there are; `vmfsm --help` and completion read this, and import none of them."""

from typing import NamedTuple


class Row(NamedTuple):
    """A command."""

    name: str
    place: str
    """`module:attribute` in this package."""
    help: str
    """In a line. The docstring of the command begins with it."""


SECTIONS: dict[str, tuple[Row, ...]] = {
    "Look at machines": (
        Row("ps", "ps:ps", "List the machines of all programs of this user, by name."),
        Row("inspect", "inspect:inspect", "Show what a machine is doing, since when and why."),
        Row("watch", "watch:watch", "Watch what a machine does."),
        Row("console", "console:console", "Follow a machine's console, or type at it."),
        Row("report", "report:report", "Make a page that shows what happened to machines."),
        Row("screendump", "screendump:screendump", "Write a picture of a machine's screen to a file."),
        Row("bundle", "bundle:bundle", "Put all that can be had of machines into directories."),
    ),
    "Act on them": (
        Row("qmp", "qmp:qmp", "Execute commands of a machine's monitor (QMP)."),
        Row("gdb", "gdb:gdb", "Have QEMU take gdb in, and print the command that attaches it."),
        Row("hold", "hold:hold", "Hold machines: their deadlines stand still until they are released."),
        Row("release", "hold:release", "Release held machines, whoever holds them."),
        Row("shutdown", "ending:shutdown", "End machines, gently first."),
        Row("kill", "ending:kill", "Kill machines now."),
    ),
    "Run": (Row("run", "run:run", "Run a virtual machine: console, script, exit status by reason."),),
    "What is here": (
        Row("doctor", "doctor:doctor", "Say what runs here, what is missing, and what to do about it."),
        Row("plugins", "plugins:plugins", "Show what plugins are loaded, and from where."),
        Row("graph", "graph:graph", "Draw the lifecycle as a diagram, with the way that a machine has gone."),
        Row("gc", "gc:gc", "Kill and remove what dead programs have left behind."),
    ),
}
"""In the order of `vmfsm --help`."""

COMMANDS = {row.name: row for rows in SECTIONS.values() for row in rows}
ALIASES = {"stop": "shutdown"}
"""Other names, which are not listed."""
