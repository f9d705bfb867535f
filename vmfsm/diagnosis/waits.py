"""Waits for the guest or for QEMU that came to nothing while QEMU lived."""

import re

from vmfsm.errors import cut
from vmfsm.reports import own_words

from . import clues, ends
from .case import Case, Clue, Diagnosis
from .story import Wait
from .words import plain, quoted, seconds, times

_MANY_RESETS = 3
_SILENT = 0.5
"""Of a wait: a guest that has said nothing for longer seems to hang."""
_MOMENT = 0.1
"""Seconds in which one error is made of another."""
_COMMAND = re.compile(r"execute(?:_raw|_oob|_with_fd)?\(")


def came_to_nothing(case: Case) -> Diagnosis | None:
    """The last wait of the test did, and the test did nothing more that went well."""
    story = case.story
    wait = next((wait for wait in reversed(story.failed_waits) if _counts(case, wait)), None)
    if wait is None or wait.until is None:
        return None
    if wait.outcome == "interrupted":
        what = f"the test was interrupted, {case.when(wait.until)}, while {case.waiter(wait)}"
        return _found(case, "interrupted", f"{what}: {_error(case, wait)}", wait)
    if wait.outcome == "timeout":
        return _timed_out(case, wait)
    if wait.error.startswith("ConsoleClosed"):
        what = f"a console was closed while QEMU lived, and {case.waiter(wait)}, {case.when(wait.until)}"
        return _found(case, "console-lost", what, wait)
    if wait.outcome == "failed":
        kind = "migration-failed" if wait.operation.startswith("migrat") else "call-failed"
        what = f"{line_of(wait)} failed, {case.when(wait.until)}, called by {_caller(case, wait)}"
        return _found(case, kind, f"{what}: {_error(case, wait)}", wait)
    if wait.outcome == "died":
        by = _ended_by(case, wait.until)
        what = f"the machine was ended by {by}, {case.when(wait.until)}, while {case.waiter(wait)}"
        return _found(case, "ended-meanwhile", what, wait)
    return None


def _ended_by(case: Case, at: float) -> str:
    """A call that is over at once is not recorded: then it is the reason that tells."""
    operation = "kill" if case.story.reason == "killed" else "shutdown"
    asked = (ask for ask in case.story.asked if ask.operation == operation and ask.since <= at)
    ask = next(asked, None)
    if ask is not None:
        return f"{operation}() in {_caller(case, ask)}"
    return "kill()" if operation == "kill" else "somebody else, who had QEMU quit"


def _counts(case: Case, wait: Wait) -> bool:
    """Whether it may be what the test failed for."""
    story = case.story
    if wait.until is None or wait.outcome == "panicked":
        return False
    is_of_test = wait.is_of_test or (wait.operation, wait.outcome) == ("wait", "timeout")
    if wait.is_of_machine and not is_of_test:
        return False
    own = [record for record in story.failures if str(record.data.get("by")) in {"with", "note", "wait"}]
    if any(wait.error and plain(wait.error) == plain(record.data.get("error")) for record in own):
        return True
    if not is_of_test or (own and wait.until < own[0].at - _MOMENT):
        return False  # the test went on, and failed for something else
    return wait.until > story.made_up_for


def _timed_out(case: Case, wait: Wait) -> Diagnosis:
    assert wait.until is not None
    limit = seconds(wait.timeout if wait.timeout is not None else wait.until - wait.since)
    if _COMMAND.match(wait.operation):
        return _unanswered(case, wait, limit)
    what = f"{line_of(wait)} came to nothing within {limit}"
    by = f" ({_caller(case, wait)}, {case.when(wait.until)})"
    if wait.resets >= _MANY_RESETS:
        resets = f"the guest seems to be in a boot loop: {times(wait.resets, 'reset')} meanwhile"
        after = clues.after_what(case)
        return _found(case, "boot-loop", f"{resets}{after}: {what}{by}", wait, clues.resets(case))
    by += _had_reset(case)
    if not wait.operation.startswith(("expect(", "follow", "wait")) or wait.operation.startswith("wait_"):
        return _found(case, "timeout", f"{what}{by}", wait)
    heard = max((tail.at for tail in wait.consoles.values()), default=None)
    if heard is None:
        return _found(case, "guest-hang", f"the guest never said anything: {what}{by}", wait)
    tail = max(wait.consoles.values(), key=lambda tail: tail.at)
    silence = wait.until - heard
    if silence < _SILENT * (wait.until - wait.since):
        talking = f"the guest went on talking, last {quoted(tail.line)}"
        return _found(case, "timeout", f"{what}{by}; {talking}", wait)
    seems = "seems to wait for input" if tail.is_prompt else "seems to hang"
    told = f"it had been silent for {seconds(silence)}, after {quoted(tail.line)}"
    return _found(case, "guest-hang", f"the guest {seems}: {what}{by}; {told}", wait)


def _had_reset(case: Case) -> str:
    """It came to where it is by many of them: was it in a boot loop before?"""
    resets = case.story.resets
    return f", after {times(resets, 'reset')} by the guest" if resets >= _MANY_RESETS else ""


def _unanswered(case: Case, wait: Wait, limit: str) -> Diagnosis:
    assert wait.until is not None
    answer = case.story.last_answer
    what = f"QEMU's monitor did not answer {line_of(wait)} within {limit}"
    what += f" ({_caller(case, wait)}, {case.when(wait.until)}), though QEMU's process lived"
    later = None
    if answer is not None and answer.at > wait.until:
        later = Clue(
            f"the monitor was heard again {seconds(answer.at - wait.until)} later", answer.at, "qmp", "qmp"
        )
        return _found(case, "timeout", what, wait, later)
    if ends.standstill(case) is not None:
        what += "; it seems to have stood still as a whole (SIGSTOP, or stuck)"
    return _found(case, "monitor-wedged", what, wait)


def _found(case: Case, kind: str, what: str, wait: Wait, first: Clue | None = None) -> Diagnosis:
    assert wait.until is not None
    told = [
        first,
        ends.standstill(case),
        clues.unanswered(case, wait),
        *clues.consoles(case, wait.until, wait.consoles),
        clues.resets(case) if kind != "boot-loop" else None,
        _own_words(case),
        *clues.verdicts(case),
        *clues.steps(case),
        clues.forced(case),
        *clues.missing(case),
    ]
    return case.found(kind, wait.until, what, told, wait)


def _own_words(case: Case) -> Clue | None:
    return clues.output(case) if own_words(case.story.output, case.command) else None


def line_of(wait: Wait) -> str:
    """What was waited for."""
    return cut(plain(wait.operation), 160)


def _caller(case: Case, wait: Wait) -> str:
    return case.waiter(wait).partition(" waited for ")[0]


def _error(case: Case, wait: Wait) -> str:
    return cut(plain(wait.error), 300)
