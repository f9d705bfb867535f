"""`vmfsm qmp`: one command of a machine's monitor, many of them, or a shell for them."""

import json
import os
import sys
from typing import Any

import click

from vmfsm.control import Client

from .command import command, timeout_option
from .machines import EXITS, complete, find
from .qmpshell.arguments import parse_arguments, parse_command
from .status import ExitStatus, Failure
from .terminal.interrupts import unwinding


@command(
    exits=EXITS,
    examples=(
        ("vmfsm qmp boot-test query-status", "what it returns, as JSON"),
        ("vmfsm qmp boot-test device_del id=disk0", "with an argument"),
        ("vmfsm qmp boot-test blockdev-add driver=null-co node-name=n0", "values are JSON, or text"),
        ("""vmfsm qmp boot-test qom-get '{"path": "/machine", "property": "type"}'""", "the same as JSON"),
        ("vmfsm qmp boot-test", "a shell: completion, help, events as they come"),
        ("vmfsm qmp boot-test <commands", "one command a line; one value a line"),
    ),
)
@click.argument("name", shell_complete=complete)
@click.argument("words", metavar="[COMMAND [ARG=VALUE...|JSON]]", nargs=-1, type=click.UNPROCESSED)
@timeout_option(30.0, "For QEMU to answer, each time.")
def qmp(name: str, words: tuple[str, ...], timeout: float) -> None:
    """Execute commands of a machine's monitor (QMP).

    Value of an argument: JSON, or else text; id="7" is text, too. Dots lead into objects. The harness, and
    any number of people, use the monitor at the same time, and each gets the replies to its own commands.
    Without COMMAND, lines are read: by a shell with completion on a terminal (TAB), else one after the other,
    empty lines and those that begin with # left out.
    """
    with find(name) as machine:
        if words:
            _execute(machine, words[0], _arguments(words[1:]), timeout, indent=_indent())
        elif sys.stdin is not None and sys.stdin.isatty() and os.isatty(1):
            from .qmpshell.shell import Shell

            with unwinding():
                Shell(machine, timeout=timeout).run()
        else:
            _execute_lines(machine, timeout)


def _arguments(words: tuple[str, ...]) -> dict[str, Any]:
    try:
        return parse_arguments(words)
    except ValueError as error:
        raise click.UsageError(str(error), click.get_current_context()) from None


def _indent() -> int | None:
    return 2 if sys.stdout is not None and sys.stdout.isatty() else None


def _execute(
    machine: Client, name: str, arguments: dict[str, Any], timeout: float, *, indent: int | None
) -> None:
    reply = machine.qmp(name, arguments, timeout=timeout)
    if "error" in reply:
        error = reply["error"]
        raise Failure(f"{name}: {error.get('class')}: {error.get('desc')}")
    click.echo(json.dumps(reply.get("return"), indent=indent))


def _execute_lines(machine: Client, timeout: float) -> None:
    """All of them, whatever one comes to."""
    failed = False
    for number, line in enumerate(sys.stdin or (), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            name, arguments = parse_command(line)
            _execute(machine, name, arguments, timeout, indent=None)
        except (ValueError, Failure) as error:
            failed = True
            click.echo(f"vmfsm: line {number}: {error}", err=True)
    if failed:
        raise click.exceptions.Exit(ExitStatus.FAILED)
