"""The exceptions that tell users how a launch failed or a machine ended."""

import os
import signal
from collections.abc import Sequence
from typing import Any, NamedTuple

from .errors import AbnormalExit, Evidence, LaunchError, MachineDied, PluginError, VMError, printable
from .lifecycle import Reason, State


class Failure(NamedTuple):
    """Why a launch failed, and what it ends as."""

    state: State
    reason: Reason
    what: str
    cause: BaseException | None


def describe_exit(status: int | None, sent: Any = None) -> str:
    """How a process ended, in words to follow its name.

    :param sent: names of the signals that vmfsm had sent to it, where that is known: of SIGTERM and
        SIGKILL it is said whose they were.
    """
    if status is None:
        return "ended, with a status that could not be had"
    if status >= 0:
        return f"ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    is_asked = name in {"SIGTERM", "SIGKILL"} and isinstance(sent, list)
    by = f" ({'sent' if name in sent else 'not'} by vmfsm)" if is_asked else ""
    return f"died of {name}{by}"


def launch_error(
    name: str,
    failure: Failure,
    *,
    command: tuple[str, ...],
    status: int | None,
    evidence: Evidence,
    errors: Sequence[PluginError],
) -> LaunchError:
    error = LaunchError(
        f"{name}: {why_launch_failed(failure, evidence.output, command)}",
        machine=name,
        state=failure.state,
        evidence=evidence,
        errors=errors,
    )
    error.command, error.output, error.exit_status = command, evidence.output, status
    error.__cause__ = failure.cause
    return error


def why_launch_failed(failure: Failure, output: str, command: Sequence[str]) -> str:
    """With QEMU's own words, where it had any."""
    said = own_words(output, command)
    return f"launch failed: {failure.what}" + (f": {printable(said)}" if said else "")


def own_words(output: str, command: Sequence[str]) -> str:
    """The first line in which QEMU speaks of itself (`qemu-system-x86_64: …`), else its last; no warning."""
    lines = [line for line in output.rstrip().splitlines() if ": warning: " not in line]
    programs = tuple(f"{os.path.basename(word)}:" for word in command[:-1] or command)
    return next((line for line in lines if line.startswith(programs)), lines[-1] if lines else "")


def machine_died(
    name: str, operation: str, how: str, status: int | None, reason: Reason, *, was_over: bool
) -> MachineDied:
    when = f"had ended before {operation}" if was_over else f"ended during {operation}"
    error = MachineDied(f"{name}: the machine {when}: {how} ({reason.value})")
    error.exit_status, error.reason = status, reason
    return error


def abnormal_exit(
    name: str, how: str, status: int | None, reason: Reason, errors: Sequence[VMError]
) -> AbnormalExit:
    error = AbnormalExit(f"{name}: {how_it_ended(how, reason)}", errors=errors)
    error.exit_status, error.reason = status, reason
    return error


def how_it_ended(exit_words: str, reason: Reason) -> str:
    """Of an ending that is none of the good ones."""
    if reason is Reason.WEDGED:
        exit_words = f"QEMU did not go when it was asked to, and had to be forced: {exit_words}"
    return f"{exit_words} ({reason.value})"


def plugin_errors(errors: Sequence[PluginError]) -> PluginError:
    """The first of them, made anew since several threads may raise it, with the others in its `errors`."""
    first = errors[0]
    error = PluginError(str(first), machine=first.machine, errors=errors[1:])
    error.plugin, error.hook = first.plugin, first.hook
    error.__cause__ = first.__cause__
    return error
