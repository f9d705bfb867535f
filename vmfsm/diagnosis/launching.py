"""Launches that came to nothing."""

from vmfsm.reports import own_words
from vmfsm.timeline import Record

from . import clues
from .case import Case, Clue, Diagnosis
from .story import Wait
from .words import plain, quoted, seconds


def launch_failed(case: Case) -> Diagnosis | None:
    """It did not get as far as `running`."""
    story = case.story
    if story.has_run or story.quit is None:
        return None
    at = story.quit.at
    wait = next((wait for wait in story.failed_waits if wait.operation == "launch"), None)
    told = [clues.output(case), *clues.consoles(case, at), *clues.steps(case), *clues.missing(case)]
    reason = str(story.quit.data.get("reason"))
    if reason in {"requested", "killed"}:
        what = (
            f"the launch was cancelled by {'kill' if reason == 'killed' else 'shutdown'}(), {case.when(at)}"
        )
        return case.found("launch-cancelled", at, what, told, wait)
    if reason == "guest-panicked":
        return None  # its verdict says more
    if reason == "deadline":
        return _late(case, at, wait)
    failed = [record for record in story.failed_hooks if record.data.get("error") != "CancelledError"]
    if reason == "hook-failed" and failed:
        return _hook_failed(case, failed[0], wait)
    if story.exit is not None and story.exit.at <= at:
        return _ended(case, story.exit, wait)
    error = _said(case, wait)
    kind = "interrupted" if wait is not None and wait.outcome == "interrupted" else "launch-failed"
    what = f"the launch failed before QEMU was started: {error}"
    if story.spawn is not None:
        what = f"the launch failed {case.when(at)}: {error}"
    return case.found(kind, at, what, told, wait)


def _said(case: Case, wait: Wait | None) -> str:
    """Of the error that `launch` raised, what is not known by then."""
    said = plain(
        wait.error if wait else (case.story.failures and case.story.failures[0].data.get("error")) or ""
    )
    said = said.removeprefix("LaunchError: ").removeprefix(f"{case.name}: ").removeprefix("launch failed: ")
    return said or "why is not recorded"


def _ended(case: Case, end: Record, wait: Wait | None) -> Diagnosis:
    said = own_words(case.story.output, case.command)
    words = f": {quoted(said)}" if said else ", and said nothing"
    what = f"QEMU did not come up: it {clues.exit_words(end)}{words}, {case.when(end.at)}"
    told = [clues.output(case), *clues.consoles(case, end.at), clues.last_command(case, end.at)]
    return case.found("launch-failed", end.at, what, told, wait)


def _late(case: Case, at: float, wait: Wait | None) -> Diagnosis:
    """Not up by its deadline: who or what was waited for?"""
    story = case.story
    limit = f"within {seconds(wait.timeout)}" if wait and wait.timeout else "in time"
    told = [clues.last_command(case, at), clues.output(case), *clues.consoles(case, at), *clues.steps(case)]
    late = next((r for r in story.failed_hooks if r.data.get("error") == "CancelledError"), None)
    running = late or next(iter(story.hooks.values()), None)
    if story.companions:
        name, record = next(iter(story.companions.items()))
        what = f"not up {limit}: companion {quoted(name)} was started, but never ready"
        return case.found(
            "companion-not-ready",
            at,
            what,
            [Clue(f"companion {quoted(name)} was started", record.at), *told],
            wait,
        )
    if running is None:
        return case.found("launch-failed", at, f"not up {limit}: {_said(case, wait)}", told, wait)
    hook, plugin = plain(running.data.get("hook")), plain(running.data.get("plugin"))
    where = Clue(f"{hook} of plugin '{plugin}' did not come to its end", running.at, "hooks")
    if plugin == "qmp" and hook == "post_launch":
        what = (
            f"not up {limit}: QEMU was started, but its monitor did not get through greeting and negotiation"
        )
        return case.found("monitor-wedged", at, what, [*told, where], wait)
    what = f"not up {limit}: hook {hook} of plugin '{plugin}' did not come to its end"
    return case.found("hook-hang", at, what, [where, *told], wait)


def _hook_failed(case: Case, hook: Record, wait: Wait | None) -> Diagnosis:
    which = f"hook {plain(hook.data.get('hook'))} of plugin '{plain(hook.data.get('plugin'))}'"
    took = seconds(hook.at - (case.story.begin or hook.at))
    what = f"the launch failed after {took}: {which} raised {plain(hook.data.get('error'))}"
    told = [Clue(f"{which} failed", hook.at, "hooks"), clues.output(case), *clues.consoles(case, hook.at)]
    return case.found("hook-failed", hook.at, what, told, wait)
