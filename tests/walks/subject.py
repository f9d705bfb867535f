"""A machine that is walked, what may be done to it, and all that was."""

import functools
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.walks.meddling import Companions, Lingerer, Meddler
from vmfsm import Event, Machine, State, Transition
from vmfsm.lifecycle import ALIVE
from vmfsm.testing import GUEST_ARGS, FakeQEMU
from vmfsm.testing import actions as do

FINAL = frozenset(State) - ALIVE - {State.CONFIGURED}

# What a FakeQEMU is told to do by a command, or by a line on its console, while it runs.
ORDERS = {
    "x-die": [do.die_of(signal.SIGSEGV)],
    "x-exit": [do.exit_with(3)],
    "x-exit-well": [do.exit_with(0)],
    "x-poweroff": [do.reply(), do.shut_down()],
    "x-panic": [do.emit("GUEST_PANICKED", {"action": "pause"}), do.reply()],
    "x-hang-up": [do.hang_up()],
    "x-garbage": [do.send("garbage\r\n")],
    "x-never": [],
    "x-slow": [do.wait(0.1), do.reply()],
    "x-wedge": [do.reply(), do.wedge()],
    "x-tick": [do.emit("X_TICK", {"n": "$number"}, times=100), do.reply()],
    "x-say": [do.say("tick $number\n", times=100), do.reply()],
    "x-close-console": [do.close_console(), do.reply()],
    "x-fork": [do.fork(), do.reply()],
}
HARMLESS = frozenset({"x-never", "x-slow", "x-tick", "x-say"})
"""Orders after which the machine is as before."""
SIGNALS = (signal.SIGSTOP, signal.SIGCONT, signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM)
LINES = {
    "ping": [do.say("pong\n")],
    "poweroff": [do.shut_down()],
    "exit 3": [do.exit_with(7)],
    "panic": [do.emit("GUEST_PANICKED", {"action": "pause"})],
}

# The ways in which a program that poses as QEMU differs from it otherwise.
PROGRAMS: dict[str, dict[str, Any]] = {
    "obedient": {},
    "slow": {"greeting": [do.wait(0.05), do.as_qemu()]},
    "silent": {"greeting": []},
    "stillborn": {"start": [do.output("it is no good\n"), do.exit_with(1)]},
    "deaf": {"on": {"quit": []}},
    "deafer": {"on": {"quit": []}, "sigterm": []},
}


def program(name: str) -> FakeQEMU:
    return FakeQEMU(lines=LINES, **{**PROGRAMS[name], "on": {**ORDERS, **PROGRAMS[name].get("on", {})}})


class Kind(NamedTuple):
    """A sort of machine."""

    program: str
    """`guest` and `none` are QEMU with the tiny guest and with nothing, the others `PROGRAMS`."""
    monitor: str = "pair"
    """`path` has an address of the user's, and `none` is none."""
    companion: bool = False

    @property
    def comes_up(self) -> bool:
        return self.program not in {"silent", "stillborn"}

    @property
    def is_silent(self) -> bool:
        """It would be waited for to the deadline."""
        return self.program == "silent"

    @property
    def goes(self) -> bool:
        """It ends when it is asked to."""
        return self.program not in {"deaf", "deafer"}


KINDS = (
    Kind("obedient"),
    Kind("obedient", "path"),
    Kind("obedient", companion=True),
    Kind("guest", companion=True),
    Kind("obedient", "none"),
    Kind("slow"),
    Kind("guest"),
    Kind("guest", "path"),
    Kind("none"),
    Kind("deaf"),
    Kind("deafer"),
    Kind("silent"),
    Kind("stillborn"),
)


@dataclass
class Trouble:
    """Something that was done to a machine, between two moments."""

    what: str
    begin: float = field(default_factory=time.monotonic)
    end: float = float("inf")


class Subject:
    """A machine of the walk."""

    def __init__(self, name: str, kind: Kind, qemu: str, fakes: dict[str, FakeQEMU], directory: str) -> None:
        self.kind = kind
        self.trouble: list[Trouble] = []
        self.calls: list[Call] = []
        self.meddler = Meddler(self.note)
        self.lingerer = Lingerer(self.note)
        self.companions = Companions() if kind.companion else None
        args = {"guest": GUEST_ARGS, "none": ("-M", "none", "-nodefaults")}.get(kind.program)
        monitor: dict[str, dict[str, object]] = {
            "pair": {},
            "path": {"address": f"{directory}/{name}.qmp"},
            "none": {"enabled": False},
        }
        self.vm = Machine(
            qemu if args else fakes[kind.program].binary,
            args or (),
            name=name,
            plugins=[one for one in (self.meddler, self.lingerer, self.companions) if one],
            options={"qmp": monitor[kind.monitor]},
        )

    def __repr__(self) -> str:
        return f"{self.vm.name}({'-'.join(map(str, self.kind[:2]))}{'-companion' * self.kind.companion})"

    def note(self, what: str) -> Trouble:
        """Trouble that begins now; whoever makes it says when it is over."""
        self.trouble.append(Trouble(what))
        return self.trouble[-1]

    def troubles(self, since: float) -> set[str]:
        return {trouble.what for trouble in tuple(self.trouble) if trouble.end >= since}

    @property
    def is_quiet(self) -> bool:
        """Nothing was done to this launch, or to a next one, that calls would notice."""
        launches = [one.at for one in self.vm.history if one.event is Event.LAUNCH]
        return not (self.troubles(launches[-1] if launches else time.monotonic()) or self.armed)

    @property
    def armed(self) -> bool:
        return bool(self.meddler.next or self.lingerer.next)


@dataclass
class Call:
    """A call of one operation, and what came of it."""

    operation: str
    subject: Subject
    timeout: float | None
    function: Callable[[], Any]
    hand: str
    begin: float = float("inf")
    end: float = float("inf")
    before: Sequence[Transition] = ()
    after: Sequence[Transition] = ()
    value: object = None
    error: BaseException | None = None
    done: threading.Event = field(default_factory=threading.Event)
    trouble: str | None = None
    """What it does to the machine, if that."""
    may_be_hit: bool = False
    """An exception that a signal handler raises now is one of the call's."""

    def make(self) -> None:
        """In any thread."""
        noted = self.subject.note(self.trouble) if self.trouble else None
        self.before = self.subject.vm.history
        self.begin = time.monotonic()
        self.subject.calls.append(self)
        try:
            self.may_be_hit = True
            self.value = self.function()
            self.may_be_hit = False
        except BaseException as error:  # noqa: BLE001 - for the oracle
            self.may_be_hit = False
            self.error = error
        self.end = time.monotonic()
        self.after = self.subject.vm.history
        if noted is not None:
            noted.end = self.end
        self.done.set()

    def __str__(self) -> str:
        if not self.done.is_set():
            came = "…"
        elif self.error is not None:
            came = f"{type(self.error).__name__}: {self.error}"
        else:
            came = repr(self.value)
        seconds = self.end - self.begin
        what = f"{self.hand}: {self.subject}.{self.operation}(timeout={self.timeout})"
        return f"{what} -> {came} ({seconds:.3f} s)"

    # -- the part of the history that it saw ----------------------------------------------------------------

    @property
    def new(self) -> Sequence[Transition]:
        return self.after[len(self.before) :]

    @functools.cached_property
    def states(self) -> set[State]:
        """All that the machine was in meanwhile."""
        first = self.before[-1].dest if self.before else State.CONFIGURED
        return {first, *(one.dest for one in self.new)}

    @functools.cached_property
    def launches(self) -> "list[LaunchSeen]":
        """Those that were there meanwhile, the last of before first."""
        seen: list[LaunchSeen] = []
        for number, one in enumerate(self.after):
            if one.event is Event.LAUNCH:
                seen.append(LaunchSeen(one.at, is_new=number >= len(self.before)))
            elif one.event is Event.LAUNCHED:
                seen[-1].had_run = True
                seen[-1].was_up = number < len(self.before)
            elif one.dest in FINAL:
                seen[-1].final = one
                seen[-1].was_over = number < len(self.before)
        old = [one for one in seen if not one.is_new]
        return [*old[-1:], *(one for one in seen if one.is_new)]

    @property
    def troubles(self) -> set[str]:
        """What was done to the launches that it saw; by itself, too."""
        since = self.launches[0].at if self.launches else self.begin
        return {
            trouble.what
            for trouble in tuple(self.subject.trouble)
            if since <= trouble.end and trouble.begin <= self.end
        }

    @property
    def others(self) -> "list[Call]":
        """Calls that were in progress meanwhile."""
        return [
            other
            for other in tuple(self.subject.calls)
            if other is not self and other.begin <= self.end and other.end >= self.begin
        ]

    def beside(self, *operations: str) -> bool:
        return any(other.operation in operations for other in self.others)


@dataclass
class LaunchSeen:
    """A launch in the history."""

    at: float
    is_new: bool
    had_run: bool = False
    was_up: bool = False
    """It was when the call began."""
    final: Transition | None = None
    was_over: bool = False
