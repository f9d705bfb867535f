"""What all commands have in common: options, examples, exit statuses, and how their help looks."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from .status import MEANINGS, ExitStatus

F = TypeVar("F", bound=Callable[..., Any])

CONTEXT = {"help_option_names": ["-h", "--help"]}


def no_color() -> click.Option:
    """The option that every command has."""

    def forbid(context: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            context.color = False

    return click.Option(
        ["--no-color"], is_flag=True, expose_value=False, callback=forbid, help="Print without colours."
    )


class _Seconds(click.ParamType["float"]):
    """A timeout."""

    name = "seconds"

    def __init__(self, least: float) -> None:
        self._least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not 0 <= seconds < math.inf:
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        if seconds < self._least:
            self.fail(f"it must be at least {self._least:g}, not {value!r}", param, ctx)
        return seconds


def timeout_option(default: float, purpose: str, *, least: float = 0) -> Callable[[F], F]:
    """`--timeout SECONDS`: of everything that waits for somebody else."""
    return click.option(
        "--timeout",
        metavar="SECONDS",
        type=_Seconds(least),
        default=default,
        show_default=True,
        help=purpose,
    )


class Command(click.Command):
    """A command with examples and exit statuses in its help.

    :param examples: command lines, and what each is for.
    :param exits: the statuses it may end with, and what they mean of it.
    """

    def __init__(
        self,
        name: str | None,
        *,
        examples: Sequence[tuple[str, str]],
        exits: Mapping[int, str],
        **parameters: Any,
    ) -> None:
        super().__init__(name, context_settings=CONTEXT, **parameters)
        self.examples = examples
        self.exits = exits

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Examples"):
            for line, purpose in self.examples:
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")
                formatter.write(f"{'':{formatter.current_indent + 4}}{click.style(purpose, dim=True)}\n")
        with formatter.section("Exit status"):
            formatter.write_dl([(f"{status:d}", meaning) for status, meaning in self.exits.items()])


def command(
    *,
    examples: Sequence[tuple[str, str]],
    json: str | None = None,
    exits: Mapping[ExitStatus, str] | Sequence[ExitStatus] = (),
) -> Callable[[Callable[..., None]], Command]:
    """Make a command of a function, below the `click.option`s and `click.argument`s of its own.

    :param json: help for `--json`, which is passed on as `as_json`; `None`: there is no such option.
    :param exits: statuses besides those that every command has; a mapping says what they mean of this one.
    """
    own = exits if isinstance(exits, Mapping) else {status: MEANINGS[status] for status in exits}
    common = (ExitStatus.DONE, ExitStatus.FAILED, ExitStatus.USAGE, ExitStatus.INTERRUPTED)
    all_exits = {status: MEANINGS[status] for status in common} | dict(own)

    def decorate(function: Callable[..., None]) -> Command:
        made = click.command(
            cls=Command,
            examples=examples,
            exits={status: all_exits[status] for status in sorted(all_exits)},
        )(function)
        if json is not None:
            made.params.append(click.Option(["--json", "as_json"], is_flag=True, help=json))
        made.params.append(no_color())
        return made

    return decorate
