"""How a run ended: a word, an exit status and a sentence, from whatever happened to the machine."""

import enum
from typing import NamedTuple

from vmfsm import (
    AbnormalExit,
    ConfigError,
    GuestPanicked,
    LaunchError,
    Machine,
    MachineDied,
    MachineTimeout,
    Reason,
    State,
    Verdict,
    VMError,
)


class RunStatus(enum.IntEnum):
    """The exit statuses of `vmfsm run`."""

    OK = 0
    FAILED = 1
    USAGE = 2
    LAUNCH_FAILED = 10
    VERDICT = 11
    QEMU_EXIT = 12
    QEMU_SIGNAL = 13
    OUT_OF_MEMORY = 14
    ENDED_EARLY = 15
    STEP_FAILED = 16
    WEDGED = 17
    TIMEOUT = 124
    HANG_UP = 129
    INTERRUPTED = 130
    KILLED = 137
    BROKEN_PIPE = 141
    TERMINATED = 143

    @property
    def word(self) -> str:
        """For people and programs."""
        return self.name.lower().replace("_", "-")


MEANINGS = {
    RunStatus.OK: "all steps were met, or without any: the guest ended well",
    RunStatus.FAILED: "something else failed; stderr says what",
    RunStatus.USAGE: "wrong usage",
    RunStatus.LAUNCH_FAILED: "QEMU could not be launched",
    RunStatus.VERDICT: "the guest panicked, or something else of --fail-on",
    RunStatus.QEMU_EXIT: "QEMU ended with a status that is not expected",
    RunStatus.QEMU_SIGNAL: "QEMU died of a signal",
    RunStatus.OUT_OF_MEMORY: "QEMU was killed for want of memory",
    RunStatus.ENDED_EARLY: "the machine ended, well, before all steps were met",
    RunStatus.STEP_FAILED: "the monitor refused a command of --qmp",
    RunStatus.WEDGED: "QEMU did not go when it was asked to, and was killed",
    RunStatus.TIMEOUT: "a time limit was over",
    RunStatus.HANG_UP: "the terminal was closed (SIGHUP)",
    RunStatus.INTERRUPTED: "stopped by Ctrl-C, or Ctrl-] q",
    RunStatus.KILLED: "somebody else killed the machine",
    RunStatus.BROKEN_PIPE: "nobody reads stdout any more",
    RunStatus.TERMINATED: "stopped by SIGTERM",
}

_BY_REASON = {
    Reason.QEMU_EXIT: RunStatus.QEMU_EXIT,
    Reason.QEMU_SIGNAL: RunStatus.QEMU_SIGNAL,
    Reason.OOM_KILLED: RunStatus.OUT_OF_MEMORY,
    Reason.WEDGED: RunStatus.WEDGED,
    Reason.GUEST_PANICKED: RunStatus.VERDICT,
    Reason.KILLED: RunStatus.KILLED,
}
_INTERRUPTS = {
    "SIGINT": (RunStatus.INTERRUPTED, "interrupted by Ctrl-C (SIGINT)"),
    "SIGTERM": (RunStatus.TERMINATED, "terminated (SIGTERM)"),
    "SIGHUP": (RunStatus.HANG_UP, "the terminal hung up (SIGHUP)"),
    "quit": (RunStatus.INTERRUPTED, "ended by the user"),
    "kill": (RunStatus.INTERRUPTED, "killed by the user"),
    "stdout": (RunStatus.FAILED, "the console's output can't be written to stdout"),
    "pipe": (RunStatus.BROKEN_PIPE, "whoever read the console's output has gone"),
}


class StepError(Exception):
    """The monitor refused a command of the script."""


class Outcome(NamedTuple):
    """How it ended."""

    status: RunStatus
    message: str

    @property
    def word(self) -> str:
        return self.status.word

    @property
    def good(self) -> bool:
        return self.status is RunStatus.OK


def of_interrupt(why: str) -> Outcome:
    return Outcome(*_INTERRUPTS[why])


def of_ending(machine: Machine, *, met: bool) -> Outcome:
    """Of a machine that has ended by itself, well.

    :param met: the script is at its end.
    """
    reason = machine.reason
    how = {
        Reason.GUEST_SHUTDOWN: "the guest shut down",
        Reason.KILLED: "somebody else killed the machine",
        Reason.REQUESTED: "somebody else had QEMU quit",
    }.get(reason or Reason.QEMU_EXIT, "QEMU ended")
    if machine.state is State.FAILED or reason is Reason.KILLED:
        return Outcome(_BY_REASON.get(reason or Reason.QEMU_EXIT, RunStatus.FAILED), how)
    status = "" if machine.exit_status is None else f" (status {machine.exit_status})"
    return (
        Outcome(RunStatus.OK, f"{how}{status}") if met else Outcome(RunStatus.ENDED_EARLY, f"{how}{status}")
    )


def of_verdict(verdict: Verdict) -> Outcome:
    message = verdict.what.get("message")
    seen = f"{verdict.kind} (seen by {verdict.where})"
    return Outcome(RunStatus.VERDICT, f"{seen}: {message}" if message else seen)


def of_error(machine: Machine, error: Exception) -> Outcome:
    """Of what a call raised."""
    message = str(error).removeprefix(f"{machine.name}: ")
    match error:
        case ConfigError():
            return Outcome(RunStatus.USAGE, message)
        case LaunchError():
            return Outcome(_of_launch(error), message)
        case MachineTimeout():
            return Outcome(RunStatus.TIMEOUT, message)
        case GuestPanicked():
            return of_verdict(error.verdict) if error.verdict else Outcome(RunStatus.VERDICT, message)
        case AbnormalExit():
            return Outcome(_BY_REASON.get(error.reason or Reason.QEMU_EXIT, RunStatus.FAILED), message)
        case MachineDied():
            outcome = of_ending(machine, met=False)
            return outcome if machine.state is State.STOPPED else outcome._replace(message=message)
        case StepError():
            return Outcome(RunStatus.STEP_FAILED, message)
        case VMError():
            return Outcome(RunStatus.FAILED, message)
    return Outcome(RunStatus.FAILED, f"{type(error).__name__}: {message}")


def _of_launch(error: LaunchError) -> RunStatus:
    match error.__cause__:
        case MachineTimeout():
            return RunStatus.TIMEOUT
        case GuestPanicked():
            return RunStatus.VERDICT
    return RunStatus.LAUNCH_FAILED


_BY_ITSELF = frozenset(
    {
        RunStatus.OK,
        RunStatus.ENDED_EARLY,
        RunStatus.QEMU_EXIT,
        RunStatus.QEMU_SIGNAL,
        RunStatus.OUT_OF_MEMORY,
    }
)


def of_run(machine: Machine, outcome: Outcome, *, pass_on: bool) -> int:
    """The exit status: the outcome's, or QEMU's own, as a shell has it, where it ended by itself.

    :param pass_on: pass on the latter.
    """
    status = machine.exit_status
    asked = machine.reason in {Reason.REQUESTED, Reason.KILLED}
    if not pass_on or asked or status is None or outcome.status not in _BY_ITSELF:
        return outcome.status
    return status if status >= 0 else 128 - status
