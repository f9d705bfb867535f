"""A story with what else is known of its machine, and the ways to speak of it."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from vmfsm.jsonable import JSON

from .story import Story, Wait
from .words import line, plain, seconds, where

_MOST_CLUES = 12
_MAIN = "MainThread"
_TOLD = frozenset({"died", "panicked"})


class Clue(NamedTuple):
    """A thing that tells more, and where to look at it."""

    text: str
    """One line, printable."""
    at: float | None = None
    """On the clock of records."""
    lane: str | None = None
    """What of the machine it is about: a lane of [reports](../../docs/report.md): `state`, `steps`, `hooks`,
    `companions`, `waits`, `holds`, `process`, `verdicts`, `qmp`, `events`, `console:NAME`, `output`."""
    log: str | None = None
    """Which log has more of it: `console:NAME`, `qmp` or `output`."""


class Diagnosis(NamedTuple):
    """What became of a launch, and why."""

    outcome: str
    """`ok`, `failed` or `unfinished`."""
    kind: str
    """What it was: see `docs/diagnosis.md`."""
    cause: str
    """It in one line, for who knows nothing of the test. Printable."""
    at: float | None
    """When, on the clock of records."""
    clues: tuple[Clue, ...]
    """What more there is to know, the most telling first."""
    wait: Mapping[str, JSON] | None
    """Who waited for what then: `operation`, `since`, `until`, `timeout`, `thread`, `caller`, `outcome`."""


class Case:
    """One machine's."""

    def __init__(self, story: Story, snapshot: Mapping[str, object]) -> None:
        self.story = story
        self.snapshot = snapshot
        self.name = plain(snapshot.get("name") or "the machine")
        harness = snapshot.get("harness")
        self.harness: Mapping[str, object] = harness if isinstance(harness, dict) else {}
        recording = snapshot.get("recording")
        problems = recording.get("problems") if isinstance(recording, dict) else None
        self.problems = [plain(problem) for problem in problems] if isinstance(problems, list) else []
        self.is_recording = isinstance(recording, dict)

    @property
    def command(self) -> list[str]:
        """QEMU's command line, as far as it is known."""
        of_spawn = self.story.spawn.data.get("command") if self.story.spawn else None
        command = of_spawn or self.snapshot.get("command")
        return [str(word) for word in command] if isinstance(command, list | tuple) else []

    def when(self, at: float) -> str:
        """`2.1 s after launch`."""
        return f"{seconds(at - (self.story.begin or at))} after launch"

    def waiter(self, wait: Wait) -> str:
        """`test_boot.py:13 waited for expect('login:')`."""
        who = where(wait.caller, self.harness.get("cwd")) if wait.caller else ""
        thread = plain(wait.thread)
        if not who:
            who = f"thread {thread}"
        elif thread != _MAIN:
            who = f"{who} (thread {thread})"
        return f"{who} waited for {line(wait.operation)}"

    def wait_at(self, at: float) -> Wait | None:
        """The wait in progress then, of the test rather than for the machine's end; or that was told next."""
        story = self.story
        waits = [wait for wait in story.failed_waits if wait.since <= at <= (wait.until or at)]
        waits += [wait for wait in story.waits if wait.since <= at]
        waits.sort(key=lambda wait: (not wait.is_of_test, -wait.since))
        later = [wait for wait in story.failed_waits if wait.since > at and wait.outcome in _TOLD]
        return next(iter([*waits, *later]), None)

    def meanwhile(self, wait: Wait | None, at: float) -> str:
        """What is said of who waited when it happened, or was told when they waited next."""
        if wait is None:
            return ""
        if wait.since > at:
            return f"; {self.waiter(wait)} {seconds(wait.since - at)} later, and was told"
        return f", while {self.waiter(wait)}"

    def found(
        self,
        kind: str,
        at: float | None,
        what: str,
        clues: Iterable[Clue | None] = (),
        wait: Wait | None = None,
        outcome: str = "failed",
    ) -> Diagnosis:
        """The diagnosis that says `what` of the machine."""
        told = [clue._replace(text=line(clue.text)) for clue in clues if clue is not None]
        cause = line(f"{self.name}: {what}")
        return Diagnosis(outcome, kind, cause, at, tuple(told[:_MOST_CLUES]), self._told(wait))

    def _told(self, wait: Wait | None) -> Mapping[str, JSON] | None:
        if wait is None:
            return None
        return {
            "operation": line(wait.operation),
            "since": wait.since,
            "until": wait.until,
            "timeout": wait.timeout,
            "thread": line(wait.thread),
            "caller": line(wait.caller) if wait.caller else None,
            "outcome": line(wait.outcome),
        }
