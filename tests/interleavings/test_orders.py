"""Three calls at once from each state, let into each of their steps in every order."""

import contextlib
import itertools
from collections.abc import Iterator

import pytest

from tests.conftest import BUILT_IN
from tests.endings import assert_path
from tests.hooked import Blocked, Journal, Plain
from tests.interleavings.orders import STARTS, STEPS, expected, orders
from tests.interleavings.scheduler import Gate, Posts
from tests.waiting import InThread, until
from vmfsm import Event, Machine, State, VMError

TRIPLES = tuple(itertools.combinations_with_replacement(STEPS, 3))
CELLS = [
    (start, one_by_one, calls)
    for start in STARTS
    for one_by_one in (True, False)
    for calls in TRIPLES
    # Held up where nothing lives, nothing meets but launches.
    if one_by_one or start == "running" or (start != "launching" and calls[:2] == ("launch", "launch"))
    if start not in {"configured", "stopped"} or "launch" in calls  # else there is nothing to be done
]
FIRST = {
    "configured": [],
    "launching": [Event.LAUNCH],
    "running": [Event.LAUNCH, Event.LAUNCHED],
    "stopped": [Event.LAUNCH, Event.LAUNCHED, Event.QUIT, Event.EXITED],
}


class Call:
    """One of the calls, in a thread of its own, which stops before it tells the I/O thread."""

    def __init__(self, machine: Machine, name: str, posts: Posts) -> None:
        self._posts = posts
        self._gate = Gate()

        def call() -> object:
            posts.stop_me_at(self._gate)
            result = getattr(machine, name)(timeout=60)
            return None if result is machine else result

        self.thread = InThread(call)
        until(lambda: self._gate.reached.is_set() or self.thread.over)

    def tell(self) -> None:
        told = self._posts.total
        self._gate.open()
        until(lambda: self.thread.over or self._posts.total > told)

    def result(self) -> object:
        self.thread.join()
        return self.thread.value if self.thread.error is None else type(self.thread.error)


class Trio:
    """A machine in a state, and three calls."""

    def __init__(self, start: str, calls: tuple[str, ...], *, one_by_one: bool) -> None:
        self.posts = Posts()
        self.blocked = Blocked()
        self.journal = Journal()
        hooks = {"pre_launch": self.blocked} if start == "launching" else {}
        self.machine = Machine(
            "sleep",
            ["1000"],
            display=None,
            block=BUILT_IN,
            plugins=[Plain("witness", self.journal, **hooks)],
        )
        self.start = start
        self.calls = calls
        self.one_by_one = one_by_one
        self.io_gate = Gate()
        self.first: InThread | None = None

    def begin(self) -> None:
        if self.start == "launching":
            self.first = InThread(self.machine.launch, 60)
            assert self.blocked.began.wait(60)
        elif self.start != "configured":
            self.machine.launch()
            if self.start == "stopped":
                self.machine.shutdown()
        if not self.one_by_one:
            self.posts.io.post(self.io_gate)
            assert self.io_gate.reached.wait(60)

    def run(self, order: tuple[int, ...]) -> list[object]:
        """What the calls came to."""
        begun: dict[int, Call] = {}
        for number in order:
            if number not in begun:
                begun[number] = Call(self.machine, self.calls[number], self.posts)
                if STEPS[self.calls[number]] == 1:
                    begun[number].tell()
            else:
                begun[number].tell()
            if self.one_by_one:
                self.come_to_rest()
        self.io_gate.open()
        self.blocked.go.set()
        if self.first is not None:
            self.first.join()
        self.come_to_rest()
        self.ended_as = self.machine.state, self.machine.reason
        self.events = [transition.event for transition in self.machine.history]
        self.machine.kill()
        return [begun[number].result() for number in range(len(self.calls))]

    def come_to_rest(self) -> None:
        self.posts.await_round()
        launch = self.machine._launch
        if launch is None or (self.start == "launching" and not self.blocked.go.is_set()):
            return
        if launch.asked.done() or (launch.process is not None and launch.process.sent):
            until(lambda: launch.final is not None and self.machine.state is not State.QUITTING)
        else:
            until(lambda: self.machine.state is not State.LAUNCHING)
        self.posts.await_round()


@contextlib.contextmanager
def trio(start: str, calls: tuple[str, ...], *, one_by_one: bool) -> Iterator[Trio]:
    trio = Trio(start, calls, one_by_one=one_by_one)
    with trio.posts.noted():
        try:
            trio.begin()
            yield trio
        finally:
            trio.io_gate.open()
            trio.blocked.go.set()
            with contextlib.suppress(VMError):
                trio.machine.kill()


@pytest.mark.parametrize(
    ("start", "one_by_one", "calls"),
    CELLS,
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else None,
)
def test_every_order(start: str, one_by_one: bool, calls: tuple[str, ...]) -> None:
    for order in orders(calls):
        will = expected(start, calls, order, one_by_one=one_by_one)
        with trio(start, calls, one_by_one=one_by_one) as three:
            results = three.run(order)
            assert (order, three.events) == (order, FIRST[start] + will.events)
            assert (order, three.ended_as) == (order, (will.state, will.reason))
            assert (order, results) == (order, will.results)
            assert_path(three.machine) if three.machine.history else None
            launches = three.events.count(Event.LAUNCH)
            for hook in ("early_cleanup", "post_shutdown"):
                assert len(three.journal.of(hook)) == launches * len("witness")
