"""What is not the machine's: the test, its harness, somebody who holds it; and a launch that was fine."""

from vmfsm.timeline import Record

from . import clues
from .case import Case, Clue, Diagnosis
from .story import number
from .words import plain, quoted, seconds

_FINAL = frozenset({"stopped", "failed"})
_SILENT = 0.1
"""Seconds without an answer that are worth a word."""


def test_failed(case: Case) -> Diagnosis | None:
    """The test's own error: of nothing else is known that it went wrong."""
    story = case.story
    said = next((record for record in story.failures if str(record.data.get("by")) in {"with", "note"}), None)
    if said is None:
        return None
    error = plain(said.data.get("error"))
    if error.startswith("MachineTimeout: "):
        return _timed_out(case, said, error)
    steps = [step for step in story.failed_steps if step.at <= said.at]
    in_step = f" in step {quoted(steps[-1].data.get('step'))}" if steps else ""
    what = f"the test failed{in_step}, {case.when(said.at)}: {error}; the machine was fine as far as is known"
    told = [
        *clues.steps(case),
        *_failed_waits(case),
        *clues.consoles(case, said.at),
        *clues.verdicts(case),
        clues.last_command(case, said.at),
        clues.output(case),
        clues.ending(case),
    ]
    return case.found("test-failed", said.at, what, told, case.wait_at(said.at))


def _timed_out(case: Case, said: Record, error: str) -> Diagnosis:
    """Of a wait that is not among the records: they are not whole, or it was no call of the machine."""
    words = error.removeprefix("MachineTimeout: ").removeprefix(f"{case.name}: ")
    what = f"something came to nothing, {case.when(said.at)}: {words}"
    told = [*clues.steps(case), *clues.consoles(case, said.at), clues.last_command(case, said.at)]
    return case.found("timeout", said.at, what, [*told, clues.output(case), clues.ending(case)])


def _failed_waits(case: Case) -> list[Clue]:
    return [
        Clue(f"{case.waiter(wait)}: {plain(wait.outcome)}", wait.until, "waits")
        for wait in list(case.story.failed_waits)[-3:]
    ]


def clean_up_failed(case: Case) -> Diagnosis | None:
    """A hook that raised, or what else left the machine failed."""
    story = case.story
    hooks = [hook for hook in story.failed_hooks if hook.data.get("error") != "CancelledError"]
    if hooks and story.has_run:
        hook = hooks[0]
        which = f"hook {plain(hook.data.get('hook'))} of plugin '{plain(hook.data.get('plugin'))}'"
        what = f"{which} raised {plain(hook.data.get('error'))}, {case.when(hook.at)}"
        return case.found("hook-failed", hook.at, what, [clues.ending(case), clues.output(case)])
    return None


def failed(case: Case) -> Diagnosis:
    """Why is not known better than this."""
    story = case.story
    at = story.failures[0].at if story.failures else story.transitions[-1].at
    why = plain(story.failures[0].data.get("error") if story.failures else story.reason)
    told = [clues.ending(case), clues.output(case), *clues.consoles(case, at), *clues.steps(case)]
    return case.found("failed", at, f"the machine failed, {case.when(at)}: {why}", told, case.wait_at(at))


def interrupted(case: Case) -> Diagnosis | None:
    """By Ctrl-C, or by a test runner that gave up: that says nothing of the machine."""
    story = case.story
    waits = [wait for wait in story.failed_waits if wait.is_of_machine or wait.is_of_test]
    wait = waits[-1] if waits else None
    if wait is None or wait.outcome != "interrupted" or wait.until is None or wait.until < story.made_up_for:
        return None
    what = f"it was interrupted, {case.when(wait.until)}, while {case.waiter(wait)}: {plain(wait.error)}"
    told = [*clues.consoles(case, wait.until, wait.consoles), *clues.steps(case)]
    return case.found("interrupted", wait.until, what, told, wait, "unfinished")


def harness_killed(case: Case) -> Diagnosis | None:
    """Records end in the middle, and the program that made them is gone."""
    story = case.story
    if story.state in _FINAL or not any("harness was killed" in problem for problem in case.problems):
        return None
    harness, at = case.harness, story.last
    of = f" (pid {plain(harness['pid'])})" if harness.get("pid") else ""
    maybe = " or goes on elsewhere" if any("or goes on" in problem for problem in case.problems) else ""
    waits = story.waits
    wait = waits[-1] if waits else None
    what = (
        f"the harness{of} was killed{maybe}: its last record is of {case.when(at)}{case.meanwhile(wait, at)}"
    )
    if wait is not None:
        what += f", since {case.when(wait.since)}"
    others = [Clue(f"also: {case.waiter(other)}", other.since, "waits") for other in waits[:-1][-3:]]
    told = [*others, *_holds(case), *clues.steps(case), *_running_hooks(case), *clues.consoles(case, at)]
    told += [clue for clue in (clues.last_command(case, at), clues.output(case)) if clue is not None]
    return case.found("harness-killed", at, what, [*told, *clues.missing(case)], wait, "unfinished")


def _running_hooks(case: Case) -> list[Clue]:
    return [
        Clue(f"{plain(hook)} of plugin '{plain(plugin)}' was running", record.at, "hooks")
        for (hook, plugin), record in list(case.story.hooks.items())[:3]
    ]


def _holds(case: Case) -> list[Clue]:
    return [
        Clue(f"{_held(case, hold)} since {case.when(hold.at)}", hold.at, "holds")
        for hold in list(case.story.holds.values())[:2]
    ]


def _held(case: Case, hold: Record) -> str:
    reason = f" ({plain(hold.data['reason'])})" if hold.data.get("reason") else ""
    return f"the machine was held by {plain(hold.data.get('by'))}{reason}"


def held(case: Case) -> Diagnosis | None:
    """Somebody holds it, and it has not ended."""
    story = case.story
    if story.state in _FINAL or not story.holds:
        return None
    hold = next(iter(story.holds.values()))
    what = f"{_held(case, hold)}, since {case.when(hold.at)}, and deadlines stood still"
    return case.found("held", hold.at, what, [*clues.consoles(case, story.last)], outcome="unfinished")


def goes_on(case: Case) -> Diagnosis | None:
    """It had not ended when the last record was made, and nothing went wrong until then."""
    story = case.story
    if story.state in _FINAL or story.begin is None:
        return None
    waits = story.waits
    wait = waits[-1] if waits else None
    state = plain(story.state or case.snapshot.get("state") or "configured")
    what = f"nothing went wrong as far as is known: {state}, {case.when(story.last)}"
    what += case.meanwhile(wait, story.last)
    if story.unheard is not None and story.last - story.unheard.at >= _SILENT:
        asked, since = story.unheard.data, seconds(story.last - story.unheard.at)
        command, by = plain(asked.get("command")), plain(asked.get("by"))
        what += f"; but QEMU's monitor has not answered {command} (asked by {by}) for {since}"
    told = [*_running_hooks(case), *clues.steps(case), *clues.consoles(case, story.last)]
    return case.found("unfinished", None, what, told, wait, "unfinished")


def fine(case: Case) -> Diagnosis:
    """Nothing else is known."""
    story = case.story
    if story.begin is None:
        return case.found("ok", None, "nothing has happened to it yet", outcome="unfinished")
    what = f"all went well; it took {seconds(story.last - story.begin)}"
    told = [
        Clue(f"{case.waiter(wait)} for {seconds(wait.until - wait.since)}", wait.since, "waits")
        for wait in reversed(story.slowest_waits)
        if wait.until is not None
    ][:2]
    told += [
        Clue(
            f"step {quoted(step.data.get('step'))} took {seconds(number(step.data.get('seconds')))}",
            step.at,
            "steps",
        )
        for step in story.slowest_steps[-2:][::-1]
    ]
    if told:
        what += f", longest of which: {told[0].text}"
    return case.found("ok", None, what, [*told, *clues.missing(case)], outcome="ok")
