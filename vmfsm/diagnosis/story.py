"""What of a machine's records a diagnosis is made of, in bounded memory however many there are."""

import collections
import math
from collections.abc import Mapping
from typing import NamedTuple

from vmfsm.jsonable import jsonable
from vmfsm.timeline import Record

from .last_words import LastWords

_MOST = 50
"""Of anything that is kept."""
_SLOWEST = 5
_TAIL = 4_096
"""Characters of a stream's end."""
_OF_THE_MACHINE = frozenset({"launch", "shutdown", "kill", "wait"})
"""Waits for it to begin or end."""
_OF_ONLOOKERS = frozenset({"wait-begin", "wait", "qmp-command", "qmp-reply"})
"""What these do says so, by `by`."""
_OUR_THREADS = ("vmfsm-io", "vmfsm-worker")
"""Those that run hooks, and what plugins do by themselves."""
_BURST = 0.5
"""Seconds between resets that are of one reboot, perhaps."""


class Tail(NamedTuple):
    """The end of a stream: when it last said something, and what."""

    text: str
    at: float

    @property
    def line(self) -> str:
        """The last that is not empty."""
        return next((line for line in reversed(self.text.splitlines()) if line.strip()), "")

    @property
    def is_prompt(self) -> bool:
        """The last line has no end: whoever wrote it may be waiting for an answer."""
        return bool(self.line) and not self.text.endswith(("\n", "\r"))


class Wait(NamedTuple):
    """A call that waited, or does, and how things were when it was over."""

    operation: str
    thread: str
    caller: str | None
    timeout: float | None
    since: float
    until: float | None
    """`None`: it goes on."""
    outcome: str
    """As of records; `waiting` for one that goes on."""
    error: str
    consoles: Mapping[str, Tail]
    unanswered: tuple[Record, ...]
    """QMP commands, the oldest first."""
    resets: int
    """By the guest, while it waited."""

    @property
    def is_of_machine(self) -> bool:
        """For it to begin or end."""
        return self.operation in _OF_THE_MACHINE

    @property
    def is_of_test(self) -> bool:
        """The test has something to do with the machine: neither is it that, nor does a plugin do it."""
        return not self.is_of_machine and not self.thread.startswith(_OUR_THREADS)


class Story:
    """What has happened in one launch."""

    def __init__(self) -> None:
        self.begin: float | None = None
        """When the launch began, or when the first record was made."""
        self.last = 0.0
        self.has_run = False
        self.transitions: collections.deque[Record] = collections.deque(maxlen=_MOST)
        self.exit: Record | None = None
        self.spawn: Record | None = None
        self.failures: list[Record] = []
        """Who said that this launch counts as failed, the first ones."""
        self.quit: Record | None = None
        """The transition to `quitting`."""
        self.asked: list[Wait] = []
        """Who called `shutdown` or `kill`, the first ones."""
        self.stops: collections.deque[Record] = collections.deque(maxlen=_MOST)
        self.failed_waits: collections.deque[Wait] = collections.deque(maxlen=_MOST)
        """Those that were not `done`, without what ended the machine."""
        self.made_up_for: float = -math.inf
        """The test did not mind what went wrong before: its last good wait began, or a step ended, then."""
        self.slowest_waits: list[Wait] = []
        self.steps: dict[str, list[Record]] = {}
        """Those that go on, by thread, the outermost first."""
        self.failed_steps: collections.deque[Record] = collections.deque(maxlen=_MOST)
        self.slowest_steps: list[Record] = []
        self.hooks: dict[tuple[str, str], Record] = {}
        """Those that run."""
        self.failed_hooks: collections.deque[Record] = collections.deque(maxlen=_MOST)
        self.slowest_hooks: list[Record] = []
        self.consoles: dict[str, Tail] = {}
        self.output = ""
        self.output_at: float | None = None
        self.unanswered: dict[str, Record] = {}
        self.unheard: Record | None = None
        """The first command of an onlooker, a bundle say, since which the monitor was not heard."""
        self.last_command: Record | None = None
        self.last_answer: Record | None = None
        """A reply or an event."""
        self.refused: Record | None = None
        """The last reply that was an error."""
        self.events: collections.deque[Record] = collections.deque(maxlen=_MOST)
        self.shutdown_event: Record | None = None
        self.greeting: Record | None = None
        self.resets = 0
        """By the guest."""
        self.reset_bursts = 0
        """QEMU may tell of one reboot several times, at once."""
        self.first_reset: Record | None = None
        self.last_reset: Record | None = None
        self.last_words = LastWords()
        self.verdicts: collections.deque[Record] = collections.deque(maxlen=_MOST)
        """Those that wake or fail, the first ones."""
        self.companions: dict[str, Record] = {}
        """Those that are started and not ready."""
        self.companion_exits: collections.deque[Record] = collections.deque(maxlen=_MOST)
        self.holds: dict[str, Record] = {}
        self.migration: Record | None = None
        self.failed_snapshot: Record | None = None
        self.console_lost: Record | None = None
        self.trouble: dict[str, Record] = {}
        """Records that say that something of the recording or the logs is missing, the last of a kind."""
        self._waits: dict[tuple[str, ...], tuple[Record, int]] = {}

    @property
    def state(self) -> str:
        """The last one that records tell."""
        return str(self.transitions[-1].data.get("dest")) if self.transitions else ""

    @property
    def has_failed(self) -> bool:
        """It counts as failed."""
        return bool(self.failures) or self.state == "failed"

    @property
    def reason(self) -> str:
        return str(self.transitions[-1].data.get("reason")) if self.transitions else ""

    def after_launch(self, at: float) -> float:
        """How many seconds."""
        return at - (self.begin or 0.0)

    @property
    def waits(self) -> tuple[Wait, ...]:
        """Those that go on when the last record was made: those of the test last, the newest at the end."""
        waits = (self._wait(begin, resets, None, {}) for begin, resets in self._waits.values())
        return tuple(sorted(waits, key=lambda wait: (wait.is_of_test, wait.since)))

    def add(self, record: Record) -> None:
        """The next record, whatever is in it."""
        kind, at, data = record
        if self.begin is None:
            self.begin = at
        self.last = at
        if kind in {"qmp-reply", "qmp-event"}:
            self.unheard = None
        if kind in _OF_ONLOOKERS and data.get("by"):  # not the test's: neither its fault nor its answer
            if kind == "qmp-command" and self.unheard is None:
                self.unheard = record
            return
        match kind:
            case "transition":
                self._transition(record)
            case "wait-begin":
                key = _key(data, "operation", "thread", "caller")
                if key in self._waits or len(self._waits) < _MOST:
                    self._waits[key] = record, self.resets
                if str(data.get("operation")) in {"shutdown", "kill"} and len(self.asked) < _MOST:
                    self.asked.append(self._wait(record, self.resets, None, {}))
            case "wait":
                self._wait_is_over(record)
            case "step-begin":
                steps = self.steps.get(str(data.get("thread")), [])
                if len(steps) < _MOST and (steps or len(self.steps) < _MOST):
                    self.steps[str(data.get("thread"))] = [*steps, record]
            case "step":
                self._step_is_over(record)
            case "hook-begin":
                if len(self.hooks) < _MOST:
                    self.hooks[str(data.get("hook")), str(data.get("plugin"))] = record
            case "hook":
                self.hooks.pop((str(data.get("hook")), str(data.get("plugin"))), None)
                if data.get("error"):
                    self.failed_hooks.append(record)
                _keep_slowest(self.slowest_hooks, record)
            case "spawn" | "adopt":
                self.spawn = record
            case "exit":
                self.exit = record
            case "stop":
                self.stops.append(record)
            case "failure":
                if len(self.failures) < _MOST:
                    self.failures.append(record)
            case "console":
                self._hear(str(data.get("console")), str(data.get("text", "")), at)
            case "output":
                self.output = (self.output + str(data.get("text", ""))[-_TAIL:])[-_TAIL:]
                self.output_at = at
            case "qmp-greeting":
                self.greeting = record
            case "qmp-command":
                self.last_command = record
                if len(self.unanswered) < _MOST:
                    self.unanswered[str(data.get("id"))] = record
            case "qmp-reply":
                self._answer(record)
            case "qmp-event":
                self._event(record)
            case "verdict":
                if str(data.get("action")) in {"wake", "fail"} and len(self.verdicts) < _MOST:
                    self.verdicts.append(record)
            case "companion":
                if len(self.companions) < _MOST:
                    self.companions[str(data.get("companion"))] = record
            case "companion-ready":
                self.companions.pop(str(data.get("companion")), None)
            case "companion-exit":
                self.companion_exits.append(record)
            case "hold":
                if len(self.holds) < _MOST:
                    self.holds[str(data.get("by"))] = record
            case "release":
                self.holds.pop(str(data.get("by")), None)
            case "migration":
                self.migration = record
            case "snapshot":
                self.failed_snapshot = record if data.get("error") else None
            case "console-lost":
                self.console_lost = record
            case "dropped" | "console-file" | "log-file":
                self.trouble[kind] = record

    def of_next_launch(self) -> "Story":
        """A new one, with what goes on: steps and holds."""
        story = Story()
        story.steps, story.holds = self.steps, self.holds
        return story

    def _transition(self, record: Record) -> None:
        dest = record.data.get("dest")
        self.transitions.append(record)
        if dest == "running":
            self.has_run = True
        elif dest == "quitting":
            self.quit = record

    def _wait(self, begin: Record, resets: int, end: Record | None, consoles: Mapping[str, Tail]) -> Wait:
        data = begin.data
        timeout = data.get("timeout")
        return Wait(
            operation=str(data.get("operation")),
            thread=str(data.get("thread")),
            caller=str(data["caller"]) if data.get("caller") else None,
            timeout=float(timeout) if isinstance(timeout, int | float) else None,
            since=begin.at,
            until=end.at if end else None,
            outcome=str(end.data.get("outcome")) if end else "waiting",
            error=str(end.data.get("error") or "")[:_TAIL] if end else "",
            consoles=consoles,
            unanswered=tuple(self.unanswered.values()),
            resets=self.resets - resets,
        )

    def _wait_is_over(self, record: Record) -> None:
        data = record.data
        begin, resets = self._waits.pop(_key(data, "operation", "thread", "caller"), (record, self.resets))
        seconds = number(data.get("seconds"))  # the beginning may be lost, and of a short one it is told late
        begin = begin._replace(at=record.at - seconds)
        is_done = data.get("outcome") == "done"
        wait = self._wait(begin, resets, record, {} if is_done else dict(self.consoles))
        if is_done and wait.is_of_test:
            self.made_up_for = max(self.made_up_for, begin.at)
        is_slow = len(self.slowest_waits) < _SLOWEST or seconds > _took(self.slowest_waits[0])
        if not is_done:
            self.failed_waits.append(wait)
        if is_slow:
            self.slowest_waits = sorted([*self.slowest_waits, wait], key=_took)[-_SLOWEST:]

    def _step_is_over(self, record: Record) -> None:
        steps = self.steps.get(str(record.data.get("thread")), [])
        for step in reversed(steps):
            if step.data.get("step") == record.data.get("step"):
                del steps[steps.index(step) :]
                break
        if not steps:
            self.steps.pop(str(record.data.get("thread")), None)
        if record.data.get("error"):
            self.failed_steps.append(record)
        else:
            self.made_up_for = record.at
        _keep_slowest(self.slowest_steps, record)

    def _hear(self, console: str, text: str, at: float) -> None:
        if not text or (console not in self.consoles and len(self.consoles) >= _MOST):
            return
        self.last_words.hear(console, text, at)
        before = self.consoles[console].text if console in self.consoles else ""
        self.consoles[console] = Tail((before + text[-_TAIL:])[-_TAIL:], at)

    def _answer(self, record: Record) -> None:
        self.unanswered.pop(str(record.data.get("id")), None)
        self.last_answer = record
        if record.data.get("error"):
            self.refused = record

    def _event(self, record: Record) -> None:
        self.last_answer = record
        self.events.append(record)
        data = jsonable(record.data.get("data"))
        if record.data.get("event") == "SHUTDOWN":
            self.shutdown_event = record
        elif record.data.get("event") == "RESET" and isinstance(data, dict) and data.get("guest") is True:
            self.resets += 1
            self.first_reset = self.first_reset or record
            if self.last_reset is None or record.at - self.last_reset.at > _BURST:
                self.reset_bursts += 1
            self.last_reset = record
            self.last_words.reset(record.at)


def number(value: object) -> float:
    """Of somebody's field: zero for what is none."""
    if isinstance(value, int | float) and not isinstance(value, bool) and -1e12 < value < 1e12:
        return float(value)
    return 0.0


def _key(data: Mapping[str, object], *names: str) -> tuple[str, ...]:
    return tuple(str(data.get(name)) for name in names)


def _took(wait: Wait) -> float:
    return (wait.until or wait.since) - wait.since


def _keep_slowest(records: list[Record], record: Record) -> None:
    if len(records) == _SLOWEST and _seconds(record) <= _seconds(records[0]):
        return
    records.append(record)
    records.sort(key=_seconds)
    del records[:-_SLOWEST]


def _seconds(record: Record) -> float:
    return number(record.data.get("seconds"))
