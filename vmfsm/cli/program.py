"""The program `vmfsm`: the group of all commands, and how it ends, whatever happens."""

import importlib
import os
import sys
from collections.abc import Callable, Sequence

import click
from click.shell_completion import CompletionItem

from .command import CONTEXT, no_color
from .commands import ALIASES, COMMANDS, SECTIONS
from .failures import NAME, failure_of, say
from .output import colors
from .status import ExitStatus

COMPLETE = "_VMFSM_COMPLETE"
"""The environment variable by which shells ask for completions, and for the script that does so."""


class Program(click.Group):
    """The commands of the table, each imported when it is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        row = COMMANDS.get(ALIASES.get(cmd_name, cmd_name))
        if row is None:
            return None
        module, attribute = row.place.split(":")
        found = getattr(importlib.import_module(f"{__package__}.{module}"), attribute)
        assert isinstance(found, click.Command)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], (*COMMANDS, *ALIASES), n=1)
            if not near:
                raise
            said = f"{error.format_message()} Did you mean {near[0]!r}?"
            raise click.UsageError(said, ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, rows in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(row.name, row.help) for row in rows])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        found = [row for row in COMMANDS.values() if row.name.startswith(incomplete)]
        items = [CompletionItem(row.name, help=row.help) for row in found]
        return items + click.Command.shell_complete(self, ctx, incomplete)


def _version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        from importlib.metadata import version

        click.echo(f"{NAME} {version(NAME)}")
        context.exit()


program = Program(
    NAME,
    help="Look at virtual machines that vmfsm runs, from any terminal, and act on them.",
    epilog=f"'{NAME} COMMAND --help' says more, with examples.",
    context_settings=CONTEXT,
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_version,
            help="Print the version.",
        ),
        no_color(),
    ],
)


def run(arguments: Sequence[str]) -> int:
    """Run a command; its exit status. What goes wrong is said on stderr, here and nowhere else."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # as it is where the descriptor was closed
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    status = _guarded(lambda: _run(arguments))
    return _guarded(_flush) or status


def _guarded(function: Callable[[], int]) -> int:
    try:
        return function()
    except BrokenPipeError:
        _give_up_stdout()
        return ExitStatus.PIPE_CLOSED
    except (KeyboardInterrupt, click.Abort):
        return ExitStatus.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - a defect is raised again
        failure = failure_of(error)
        say(failure)
        return failure.status


def _run(arguments: Sequence[str]) -> int:
    if instruction := os.environ.get(COMPLETE):
        from click.shell_completion import shell_complete

        return shell_complete(program, {}, NAME, COMPLETE, instruction)
    try:
        with program.make_context(NAME, list(arguments), color=colors()) as context:
            program.invoke(context)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return ExitStatus.USAGE
    except click.exceptions.Exit as asked:
        return asked.exit_code
    return ExitStatus.DONE


def _flush() -> int:
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError:
        _give_up_stdout()
        raise
    return ExitStatus.DONE


def _give_up_stdout() -> None:
    """Have the interpreter not try again, at its end, to write what nobody takes."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
