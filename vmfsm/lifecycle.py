"""The lifecycle of a machine: its states, the reasons for them, and the table of what may follow what.

Everything that decides which state may follow which is in this file, and nothing else is: no I/O, no
threads, no hooks. The table is data; the machine that fires it, the diagrams in the documentation and
the tests all read the same rows.
"""

import enum
import logging
import time
from typing import Any, NamedTuple

import transitions

from .errors import TransitionError


class State(enum.Enum):
    """Where a machine is in its life."""

    CONFIGURED = "configured"
    """Described, never launched."""
    LAUNCHING = "launching"
    """`launch()` is at work; QEMU may not exist yet."""
    RUNNING = "running"
    """QEMU is up and every plugin is ready."""
    QUITTING = "quitting"
    """QEMU is being ended, or has ended, and is being cleaned up after."""
    STOPPED = "stopped"
    """Ended well; nothing of it is left."""
    FAILED = "failed"
    """Ended badly; nothing of it is left."""


class Reason(enum.Enum):
    """Why a machine is in its state; `docs/endings.md` says which ending gives which."""

    REQUESTED = "requested"
    GUEST_SHUTDOWN = "guest-shutdown"
    KILLED = "killed"
    QEMU_EXIT = "qemu-exit"
    QEMU_SIGNAL = "qemu-signal"
    OOM_KILLED = "oom-killed"
    WEDGED = "wedged"
    GUEST_PANICKED = "guest-panicked"
    LAUNCH_ERROR = "launch-error"
    HOOK_FAILED = "hook-failed"
    DEADLINE = "deadline"


class Event(enum.Enum):
    """What can happen to a machine."""

    LAUNCH = "launch"
    LAUNCHED = "launched"
    QUIT = "quit"
    EXITED = "exited"
    FAIL = "fail"


class Row(NamedTuple):
    """One row of the table: `event` leads from any of `sources` to `dest`, and `hook` runs beside it."""

    event: Event
    sources: tuple[State, ...]
    dest: State
    hook: str
    hook_runs: str
    """`"before"` or `"after"` the change of state."""


TABLE = (
    Row(
        Event.LAUNCH, (State.CONFIGURED, State.STOPPED, State.FAILED), State.LAUNCHING, "pre_launch", "after"
    ),
    Row(Event.LAUNCHED, (State.LAUNCHING,), State.RUNNING, "post_launch", "before"),
    Row(Event.QUIT, (State.LAUNCHING, State.RUNNING), State.QUITTING, "early_cleanup", "after"),
    Row(Event.EXITED, (State.QUITTING,), State.STOPPED, "post_shutdown", "before"),
    Row(Event.FAIL, (State.QUITTING,), State.FAILED, "post_shutdown", "before"),
)

INITIAL = State.CONFIGURED
ALIVE = frozenset({State.LAUNCHING, State.RUNNING, State.QUITTING})
"""The states in which a QEMU of the machine may exist."""


class Transition(NamedTuple):
    """One change of state that happened. `at` is in seconds on the monotonic clock."""

    event: Event
    source: State
    dest: State
    reason: Reason | None
    at: float


class _Token:
    """What the shared `transitions.Machine` moves: it is never registered there, so nothing accumulates."""

    def __init__(self, state: State) -> None:
        self.state = state


def _build() -> transitions.Machine:
    rows: list[dict[str, Any]] = [
        {"trigger": row.event.value, "source": list(row.sources), "dest": row.dest} for row in TABLE
    ]
    return transitions.Machine(
        model=None, states=State, transitions=rows, initial=INITIAL, auto_transitions=False, name="vmfsm"
    )


# One for all machines of the process: a table and a guard. A trigger is instantaneous and has no callbacks.
_MACHINE = _build()

# `transitions` logs every trigger at INFO with its machine's name in front; the timeline has them already.
logging.getLogger("transitions.core").addFilter(
    lambda record: not (isinstance(record.args, tuple) and record.args[:1] == (_MACHINE.name,))
)


class Lifecycle:
    """The state of one machine and how it got there.

    Fired on the I/O thread only; reading is safe from any thread and takes no lock, because each change
    is published as one tuple.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.created = time.monotonic()
        self._history: list[Transition] = []

    @property
    def now(self) -> tuple[State, Reason | None, float]:
        """State, reason and since when: of one moment."""
        if not self._history:
            return INITIAL, None, self.created
        last = self._history[-1]
        return last.dest, last.reason, last.at

    @property
    def state(self) -> State:
        return self.now[0]

    @property
    def reason(self) -> Reason | None:
        return self.now[1]

    @property
    def since(self) -> float:
        return self.now[2]

    @property
    def history(self) -> tuple[Transition, ...]:
        return tuple(self._history)

    def allowed(self) -> tuple[str, ...]:
        """The events that the present state allows, by name."""
        return tuple(row.event.value for row in TABLE if self.state in row.sources)

    def fire(self, event: Event, reason: Reason | None = None) -> Transition:
        """Change state.

        :raises TransitionError: where the table has no such row; nothing has changed then.
        """
        source = self.state
        token = _Token(source)
        try:
            _MACHINE.events[event.value].trigger(token)
        except transitions.MachineError:
            raise TransitionError(
                f"{self._name}: cannot {event.value} in state {source.value}",
                event=event.value,
                allowed=self.allowed(),
                machine=self._name,
                state=source,
            ) from None
        transition = Transition(event, source, token.state, reason, time.monotonic())
        self._history.append(transition)
        return transition
