"""The machines that a command is about: names on its command line, completed, found, and acted upon."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from vmfsm import control
from vmfsm.control import Client

from .command import F
from .failures import failure_of, say
from .output import one_line, print_json
from .status import ExitStatus, Failure

_COMPLETION = 0.3
"""Seconds that harnesses have to answer whoever presses TAB."""
LOOKING = 1.0
"""Seconds that all harnesses have to say what machines they have."""


def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of machines, with what state each is in; where it has a slash, those with their harnesses."""
    try:
        listings = control.machines(_COMPLETION)
    except OSError:
        return []
    named = [(f"{one.harness}/{one.name}" if "/" in incomplete else one.name, one) for one in listings]
    return [
        CompletionItem(name, help=one_line(one.state or one.status))
        for name, one in named
        if name.startswith(incomplete)
    ]


def complete_with_files(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The same; where it is the beginning of no machine's name, files, as the shell has them."""
    return complete(context, parameter, incomplete) or [CompletionItem(incomplete, type="file")]


def name_argument(function: F) -> F:
    """NAME: one machine."""
    return click.argument("name", shell_complete=complete)(function)


def names_argument(function: F) -> F:
    """NAME...: at least one."""
    return click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete)(
        function
    )


EXITS = (ExitStatus.NO_SUCH_MACHINE, ExitStatus.NO_ANSWER, ExitStatus.TIMEOUT)
"""What commands about machines may end with besides."""


def find(name: str) -> Client:
    """The machine of this name, or of `PID/NAME`."""
    return control.find(name, timeout=LOOKING)


class _Acting(threading.Thread):
    """Doing the same to several, at the same time."""

    def __init__(self, name: str, act: Callable[[Client], dict[str, Any]]) -> None:
        super().__init__(daemon=True)  # so that Ctrl-C does not wait for it
        self.of = name
        self.result: dict[str, Any] = {}
        self.failure: Failure | None = None
        self._act = act
        self._error: Exception | None = None

    def run(self) -> None:
        try:
            with find(self.of) as machine:
                self.result = self._act(machine)
        except Exception as error:  # noqa: BLE001 - the main thread raises what is a defect
            self._error = error

    def wait(self) -> None:
        self.join()
        if self._error is not None:
            self.failure = failure_of(self._error)


def act_on(
    names: Sequence[str],
    act: Callable[[Client], dict[str, Any]],
    told: Callable[[dict[str, Any]], str],
    *,
    as_json: bool,
    named: bool = True,
    instead: str = "",
) -> None:
    """Do something to each of the machines, all at the same time, and report each in its turn.

    :param told: the words for what came of it.
    :param named: each behind the machine's name.
    :param instead: what can be done where a harness does not answer.

    The exit status is that of the first one that failed.
    """
    all_acting = [_Acting(name, act) for name in dict.fromkeys(names)]
    for acting in all_acting:
        acting.start()
    document = []
    for acting in all_acting:
        acting.wait()
        name = one_line(acting.of)
        if acting.failure is not None:
            if acting.failure.status is ExitStatus.NO_ANSWER:
                acting.failure.hint += instead
            say(acting.failure, f"{name}: " if len(all_acting) > 1 else "")
            document.append({"name": acting.of, "error": str(acting.failure)})
        elif as_json:
            document.append({"name": acting.of, **acting.result})
        else:
            click.echo(f"{name}: {told(acting.result)}" if named else told(acting.result))
    if as_json:
        print_json(document)
    failures = [acting.failure.status for acting in all_acting if acting.failure is not None]
    if failures:
        raise click.exceptions.Exit(failures[0])
