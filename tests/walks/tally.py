"""What walks have come to: so that one sees that they got everywhere."""

import collections
from collections.abc import Iterable

from tests.walks.operations import LIFECYCLE, MISTAKES, READS, WAITS
from tests.walks.oracle import TABLE
from tests.walks.subject import FINAL, LINES, ORDERS, SIGNALS, Call, Subject
from vmfsm import Event, State

ENDINGS = {
    *(f"stopped, {reason}" for reason in ("requested", "guest-shutdown", "qemu-exit", "killed")),
    *(f"failed, {reason}" for reason in ("qemu-exit", "qemu-signal", "wedged")),
    *(f"stopped, {reason} (launch)" for reason in ("requested", "killed")),
    *(f"failed, {reason} (launch)" for reason in ("launch-error", "hook-failed", "deadline")),
}
"""All of `docs/endings.md` but out of memory."""
CALLED = {
    *LIFECYCLE,
    *WAITS,
    *READS,
    *MISTAKES,
    *(f"order {what}" for what in (*ORDERS, *LINES)),
}
OFTEN = {
    *(state.value for state in State if state is not State.CONFIGURED),
    *("stopped, requested", "stopped, killed", "failed, wedged", "failed, launch-error (launch)"),
    *("returned", "LaunchError", "MachineDied", "AbnormalExit", "MachineTimeout", "TransitionError"),
    *("ConfigError", "QMPCommandError", "Own", "Interrupt"),
}
"""What some thousand steps come to dozens of times each, whoever is first."""
SELDOM = {
    *ENDINGS,
    *(number.name for number in SIGNALS),
    *(kind.__name__ for row in TABLE.values() for kind in row),
    "companion",
}


class Tally:
    """Over all walks of a test."""

    def __init__(self) -> None:
        self.walks = 0
        self.steps = 0
        self.rules: collections.Counter[str] = collections.Counter()
        self.outcomes: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        """By operation."""
        self.states: collections.Counter[str] = collections.Counter()
        self.endings: collections.Counter[str] = collections.Counter()
        self.trouble: collections.Counter[str] = collections.Counter()
        self.overlapping = 0
        """Calls during which another one was made on the same machine."""
        self.latest = 0.0
        """Seconds by which a call was over its timeout, at most."""

    def step(self, rule: str) -> None:
        self.steps += 1
        self.rules[rule] += 1

    def call(self, call: Call) -> None:
        came = "returned" if call.error is None else type(call.error).__name__
        self.outcomes[call.operation][came] += 1
        self.overlapping += bool(call.others)
        if call.timeout is not None:
            self.latest = max(self.latest, call.end - call.begin - call.timeout)

    def machine(self, subject: Subject) -> None:
        had_run = False
        for one in subject.vm.history:
            self.states[one.dest.value] += 1
            if one.event in {Event.LAUNCH, Event.LAUNCHED}:
                had_run = one.event is Event.LAUNCHED
            elif one.dest in FINAL:
                reason = one.reason.value if one.reason else ""
                self.endings[f"{one.dest.value}, {reason}{'' if had_run else ' (launch)'}"] += 1
        self.trouble.update(trouble.what for trouble in subject.trouble)

    def unreached(self, *, seldom: bool = False) -> list[str]:
        """What walks come to if they are not too short, and these have not.

        :param seldom: also what only long ones are sure to come to.
        """
        wanted = CALLED | OFTEN | (SELDOM if seldom else set())
        reached = {*self.states, *self.endings, *self.exceptions, *self.outcomes, *self.trouble}
        return sorted(wanted - reached)

    @property
    def launches(self) -> int:
        return self.states["launching"]

    @property
    def exceptions(self) -> collections.Counter[str]:
        return sum(self.outcomes.values(), collections.Counter())

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterable[str]:
        calls = sum(self.exceptions.values())
        yield f"{self.walks} walks, {self.steps} steps, {self.launches} launches, {calls} calls,"
        yield f"{self.overlapping} of these while another one was made on the same machine"
        yield f"the latest call ended {self.latest:.2f} s after its deadline"
        for title, counted in (
            ("steps", self.rules),
            ("states", self.states),
            ("endings", self.endings),
            ("trouble", self.trouble),
        ):
            yield f"{title}:"
            yield from (f"  {what:40} {number:7}" for what, number in sorted(counted.items()))
        yield "calls:"
        for operation, outcomes in sorted(self.outcomes.items()):
            all_of_it = ", ".join(f"{what} {number}" for what, number in outcomes.most_common())
            yield f"  {operation:20} {all_of_it}"
