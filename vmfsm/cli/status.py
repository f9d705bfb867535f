"""How a command ends: its exit status, and what it says when that is a bad one."""

import enum


class ExitStatus(enum.IntEnum):
    """What the shell is told. `vmfsm run` has further ones, by the reason for the machine's end."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NO_SUCH_MACHINE = 3
    NO_ANSWER = 4
    TIMEOUT = 124
    """As timeout(1) has it."""
    INTERRUPTED = 130
    """By Ctrl-C: what shells say of a program that died of SIGINT."""
    PIPE_CLOSED = 141
    """Nobody reads the output any more: what shells say of a program that died of SIGPIPE."""


MEANINGS = {
    ExitStatus.DONE: "done",
    ExitStatus.FAILED: "failed, as stderr says",
    ExitStatus.USAGE: "wrong usage, or the extra is not installed",
    ExitStatus.NO_SUCH_MACHINE: "no such machine, or its harness has ended",
    ExitStatus.NO_ANSWER: "the machine's harness does not answer",
    ExitStatus.TIMEOUT: "timed out",
    ExitStatus.INTERRUPTED: "interrupted by Ctrl-C",
    ExitStatus.PIPE_CLOSED: "nobody reads the output any more",
}
"""In words; a command may say it in better ones."""


class Failure(Exception):
    """A command cannot do what it was asked; `run` says so on stderr and ends with the status.

    :param hint: what could be done about it, in further lines.
    """

    def __init__(self, message: str, status: ExitStatus = ExitStatus.FAILED, *, hint: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.hint = hint
