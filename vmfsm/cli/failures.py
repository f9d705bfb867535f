"""What goes wrong, as what is said of it and the exit status that it makes."""

import sys

import click

from vmfsm.errors import VMError, printable

from .status import ExitStatus, Failure

NAME = "vmfsm"


def failure_of(error: Exception) -> Failure:
    """What an exception comes to. One that nobody has foreseen is raised again: it is a defect."""
    match error:
        case Failure():
            return error
        case click.UsageError():
            where = NAME if error.ctx is None else error.ctx.command_path
            return Failure(error.format_message(), ExitStatus.USAGE, hint=f"see: {where} --help")
        case click.ClickException():
            return Failure(error.format_message())
        case VMError() | OSError():
            return Failure(str(error), _status(error), hint=_hint(error))
    raise error


def say(failure: Failure, about: str = "") -> None:
    """On stderr."""
    click.echo(f"{NAME}: {about}{printable(str(failure)).strip()}", err=True)
    if failure.hint:
        click.echo(printable(failure.hint), err=True)


def _status(error: VMError | OSError) -> ExitStatus:
    if "vmfsm.control" in sys.modules:
        from vmfsm.control import ControlError, Disconnected, NoAnswer, NoSuchMachine

        match error:
            case NoSuchMachine() | Disconnected(has_ended=True):
                return ExitStatus.NO_SUCH_MACHINE
            case NoAnswer() | Disconnected():
                return ExitStatus.NO_ANSWER
            case ControlError(type="MachineTimeout"):
                return ExitStatus.TIMEOUT
    return ExitStatus.TIMEOUT if isinstance(error, TimeoutError) else ExitStatus.FAILED


def _hint(error: VMError | OSError) -> str:
    """What was noted of it in the harness, where it comes from there."""
    if _status(error) is ExitStatus.NO_ANSWER:
        return "is it stopped (SIGSTOP)? has it VMFSM_CONTROL=0? does a plugin hold up its I/O thread?"
    return "\n".join(getattr(error, "__notes__", ()))
