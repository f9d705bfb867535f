"""Calls at once, in each order of their steps, and a machine of paper that says what must come of it.

`launch` and `wait` meet the others in one step. `shutdown` and `kill` do in two: they begin, by a look at
which launch there is (and `kill` sends its signal); then they tell the I/O thread what they want.
"""

import itertools
import signal
from collections.abc import Iterator
from typing import NamedTuple

from vmfsm import Event, Reason, State, TransitionError

STEPS = {"launch": 1, "shutdown": 2, "kill": 2, "wait": 1}
STARTS = ("configured", "launching", "running", "stopped")

TERM, KILL = -signal.SIGTERM, -signal.SIGKILL
KILLED = State.STOPPED, Reason.KILLED
REQUESTED = State.STOPPED, Reason.REQUESTED


def orders(calls: tuple[str, ...]) -> Iterator[tuple[int, ...]]:
    """The orders of the calls' steps, as numbers of calls. Equal calls begin in turn."""
    steps = [number for number, call in enumerate(calls) for _ in range(STEPS[call])]
    for order in sorted(set(itertools.permutations(steps))):
        begun = list(dict.fromkeys(order))
        pairs = itertools.combinations(range(len(calls)), 2)
        if all(begun.index(a) < begun.index(b) for a, b in pairs if calls[a] == calls[b]):
            yield order


class Life:
    """One launch on paper."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.had_run = state is State.RUNNING
        self.asked = False
        self.killed = False

    @property
    def end(self) -> tuple[State, Reason] | None:
        return KILLED if self.killed else REQUESTED if self.asked else None

    @property
    def status(self) -> int | None:
        return None if not self.had_run else KILL if self.killed else TERM


class Outcome(NamedTuple):
    """What comes of an order."""

    events: list[Event]
    """Behind those of the start."""
    results: list[object]
    """Of each call: what it returns, or the type of what it raises; of `launch`, `None`."""
    state: State
    reason: Reason | None


def expected(start: str, calls: tuple[str, ...], order: tuple[int, ...], *, one_by_one: bool) -> Outcome:
    """What must come of it when all that was begun is over, and what still waits was ended by `kill()`.

    :param one_by_one: after each step all comes to rest; else the I/O thread serves all of them in the end.
    """
    life = None if start == "configured" else Life(State(start))
    if life is not None and start == "stopped":
        life.asked = life.had_run = True
    first = life
    events: list[Event] = []
    seen: dict[int, Life | None] = {}
    results: list[object] = [None] * len(calls)
    waiting: dict[int, Life] = {}

    def rest() -> None:
        if life is not None and life.state is State.RUNNING and life.end is not None:
            life.state = State.STOPPED
            events.extend([Event.QUIT, Event.EXITED])

    for number in order:
        call = calls[number]
        if call == "launch":
            if life is None or life.state is State.STOPPED:
                life = Life(State.RUNNING)
                events += [Event.LAUNCH, Event.LAUNCHED]
            else:
                results[number] = TransitionError
        elif call == "wait":
            aim = life if one_by_one else first
            if aim is None:
                results[number] = TransitionError
            else:
                waiting[number] = aim
        elif number not in seen:
            # Where the I/O thread is held up, no other launch than the first one is there to be seen.
            aim = seen[number] = life if one_by_one else first
            if call == "kill" and aim is not None and aim.state is not State.STOPPED:
                aim.killed = True
        else:
            aim = seen[number]
            if aim is not None and aim.state is not State.STOPPED:
                aim.asked = True
        if one_by_one:
            rest()
    if life is not None and life.state is State.LAUNCHING:  # its hook is over now
        if life.end is None:
            life.state, life.had_run = State.RUNNING, True
            events.append(Event.LAUNCHED)
        else:
            life.state = State.STOPPED
            events += [Event.QUIT, Event.EXITED]
    rest()
    state = State.CONFIGURED if life is None else life.state
    reason = None if life is None else life.end
    for number, waited in waiting.items():
        waited.killed = waited.killed or waited.end is None
        results[number] = waited.status
    return Outcome(events, results, state, reason and reason[1])
