"""What an ending means: from what was asked, what QEMU said and how it went, to a state and a reason.

Nobody's luck in a race decides here: only facts do. `docs/endings.md` has the table for people.
"""

import signal
from collections.abc import Collection
from typing import NamedTuple

from .lifecycle import Reason, State

# ShutdownCause, QMP reference manual.
_BY_GUEST = frozenset({"guest-shutdown", "guest-reset"})
_BY_QUIT = "host-qmp-quit"
_BY_SIGNAL = "host-signal"
PANIC = "guest-panic"


class Facts(NamedTuple):
    """What is known about an ending so far."""

    ended: bool
    """QEMU has ended."""
    exit_status: int | None
    """As of `Machine.exit_status`; `None` also where it could not be had."""
    cause: str | None
    """Why QEMU ended, in its own words: a ShutdownCause."""
    expected_exits: Collection[int]
    asked: bool
    """`shutdown` was called while QEMU lived."""
    asked_guest: bool
    """… with `guest=True`."""
    killed: bool
    """`kill` was called while QEMU lived."""
    forced: bool
    """Asked politely, in vain, it was sent a signal."""
    signals: Collection[signal.Signals]
    """All that were sent to it."""
    condemned: bool
    """There was a verdict on the guest for which QEMU is to be ended."""
    oom: bool
    """The control group counted an out-of-memory kill meanwhile."""


def final_state(facts: Facts) -> tuple[State, Reason]:
    """The final state and the reason for it of a machine that had been running.

    Before QEMU has ended: what it will be if all goes well.
    """
    if facts.condemned:
        return State.FAILED, Reason.GUEST_PANICKED
    by_us = Reason.KILLED if facts.killed else Reason.WEDGED if facts.forced else Reason.REQUESTED
    outcome = State.FAILED if by_us is Reason.WEDGED else State.STOPPED, by_us
    status = facts.exit_status
    if not facts.ended:
        return outcome
    if status is None:
        return _judge_without_status(facts, outcome)
    if _died_of_ours(status, facts.signals):
        return outcome
    if status < 0:
        oom = facts.oom and status == -signal.SIGKILL
        return State.FAILED, Reason.OOM_KILLED if oom else Reason.QEMU_SIGNAL
    if facts.forced and not facts.killed and facts.cause in {None, _BY_SIGNAL}:
        return State.FAILED, Reason.WEDGED
    by_request = facts.asked or facts.cause == _BY_QUIT
    if status not in facts.expected_exits and not (by_request and status == 0):
        return State.FAILED, Reason.QEMU_EXIT
    return State.STOPPED, _reason_for_good_exit(facts)


def _died_of_ours(status: int, signals: Collection[signal.Signals]) -> bool:
    """Whether it was one of our signals: as a signal, or as a shell that wraps QEMU reports it."""
    return any(status in (-number, 128 + number) for number in signals)


def _reason_for_good_exit(facts: Facts) -> Reason:
    if facts.cause in _BY_GUEST:
        return Reason.REQUESTED if facts.asked_guest else Reason.GUEST_SHUTDOWN
    if facts.cause == _BY_QUIT:
        return Reason.REQUESTED
    if facts.cause == _BY_SIGNAL:
        return Reason.REQUESTED if signal.SIGTERM in facts.signals else Reason.QEMU_EXIT
    if facts.cause is None and facts.asked:
        return Reason.REQUESTED
    return Reason.QEMU_EXIT


def _judge_without_status(facts: Facts, outcome: tuple[State, Reason]) -> tuple[State, Reason]:
    """Where the host program throws exit statuses away, only what QEMU said can vouch for a good ending."""
    if facts.asked or facts.killed:
        return outcome
    if facts.cause in {*_BY_GUEST, _BY_QUIT}:
        return State.STOPPED, _reason_for_good_exit(facts)
    return State.FAILED, Reason.QEMU_EXIT
