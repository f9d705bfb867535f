"""The walk: machines, threads that call them, and what is done to both, in any order."""

import contextlib
import itertools
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from tests.walks.hands import MAIN, Hand, Interrupter
from tests.walks.invariants import check_end, check_now
from tests.walks.meddling import HOOKS
from tests.walks.operations import LIFECYCLE, MISTAKES, READS, WAITS, Operation, line, order
from tests.walks.oracle import SLACK, judge
from tests.walks.subject import FINAL, KINDS, LINES, ORDERS, PROGRAMS, SIGNALS, Call, Kind, Subject, program
from tests.walks.tally import Tally
from vmfsm import Deadline, State, VMError
from vmfsm.caller import GRACE
from vmfsm.testing import FakeQEMU, leakcheck

T = TypeVar("T")

MOST = 3
"""Machines of one walk."""
STORY = 300
"""The last lines of it are told."""
HANDS = ("first", "second", "third")

ENDINGS = tuple(name for name in LIFECYCLE if name != "launch")
INTERRUPTED = {**LIFECYCLE, **{name: WAITS[name] for name in ("wait", "query-status", "expect", "reconnect")}}
NOTICING = ("expect", "wait_event", "query-status", "send", "wait")
UNTIL_THE_END = ("run(never)", "wait_any")
"""What mostly ends by the end of QEMU: one thread waits for that."""
MEDDLING = tuple(itertools.product(("meddler", "lingerer"), HOOKS, ("raise", "linger")))

# Seconds. Patience is for where nothing is in the way: then the call must succeed.
PATIENCE = 60.0
SHORT = (0.0, 0.01, 0.1)
TO_OBEY = (0.0, 0.01, 0.3)
TO_END = (0.0, 0.2, 1.0)
TO_LAUNCH = (0.0, 0.05, 0.3, PATIENCE)
LEAVING = 30.0
INTERRUPTS = (0.0, 0.001, 0.01, 0.05)


class Cards:
    """Choices of which each comes up as often as any other, in an order that a number makes."""

    def __init__(self, number: int) -> None:
        self._random = random.Random(number)
        self._decks: dict[tuple[object, ...], list[Any]] = {}

    def one_of(self, options: tuple[T, ...]) -> T:
        deck = self._decks.setdefault(options, [])
        if not deck:
            deck += self._random.sample(options, len(options))
        card: T = deck.pop()
        return card

    def chance(self, of_ten: int) -> bool:
        return self.one_of(tuple(range(10))) < of_ten


class Grounds:
    """What all walks of a test share: programs that pose as QEMU, threads, counters."""

    def __init__(self, qemu: str) -> None:
        self.qemu = qemu
        self.tally = Tally()
        self.cards = Cards(0)
        self.fakes: dict[str, FakeQEMU] = {}
        self.hands: dict[str, Hand] = {}
        self._numbers = 0

    @contextlib.contextmanager
    def ready(self) -> Iterator["Grounds"]:
        with contextlib.ExitStack() as stack:
            for name in PROGRAMS:
                self.fakes[name] = stack.enter_context(program(name))
            for name in HANDS:
                self.hands[name] = Hand(name)
                stack.callback(self.hands[name].stop)
            self.interrupter = Interrupter()
            stack.callback(self.interrupter.close)
            self.directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="walks-"))
            yield self

    def subject(self, kind: Kind) -> Subject:
        self._numbers += 1
        return Subject(f"vm{self._numbers}", kind, self.qemu, self.fakes, self.directory)


def walk(grounds: Grounds, number: int, *, walks: int, steps: int = 50) -> None:
    """Go so many walks of so many steps at most; `number` makes them what they are."""
    grounds.cards = Cards(number)
    walking = type("Walking", (Walk,), {"grounds": grounds})
    seed(number)(walking)
    run_state_machine_as_test(
        walking,
        settings=settings(
            max_examples=walks,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=[Phase.generate],  # what depends on who is first cannot be made shorter by trying again
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )


class Walk(RuleBasedStateMachine):
    """One walk. Hypothesis says what is done to whom, the cards how; what comes of it is only judged."""

    grounds: Grounds
    """Of the test: set in a subclass."""

    subjects = Bundle("machines")

    def __init__(self) -> None:
        super().__init__()
        self.tally = self.grounds.tally
        self.tally.walks += 1
        self.all: list[Subject] = []
        self.open: list[tuple[str, Call]] = []
        self.story: list[str] = []
        self.leaks = leakcheck(patience=SLACK, directories=[tempfile.gettempdir()])
        self.leaks.__enter__()

    # -- what is done ---------------------------------------------------------------------------------------

    @initialize(target=subjects, number=st.integers(1, MOST))
    def begin(self, number: int) -> Any:
        self._step("begin")
        for _ in range(number):
            self.all.append(self.grounds.subject(self._one_of(KINDS)))
        self.story.append(f"{self.all} are made")
        return multiple(*self.all)

    @rule(subject=subjects)
    def launch(self, subject: Subject) -> None:
        self._step("launch")
        self._launch(subject, self._where(), self._one_of(TO_LAUNCH))

    @rule(subject=subjects)
    def end(self, subject: Subject) -> None:
        self._step("end")
        self._often_up(subject)
        name, timeout = self._one_of(ENDINGS), self._one_of(TO_END)
        in_peace = subject.kind.goes and subject.is_quiet
        if name.startswith("with"):  # it has no timeout of its own
            name, timeout = (name, LEAVING) if in_peace else ("shutdown", timeout)
        elif in_peace and name != "shutdown(guest)" and timeout == TO_END[-1]:  # few guests would hear it
            timeout = PATIENCE
        self._call(name, LIFECYCLE[name], subject, timeout, self._where())

    @rule(subject=subjects)
    def wait(self, subject: Subject) -> None:
        self._step("wait")
        self._often_up(subject)
        name, timeout, where = self._one_of(tuple(WAITS)), self._one_of(SHORT), self._where()
        self._wait(subject, name, timeout, where)

    @rule(subject=subjects)
    def order(self, subject: Subject) -> None:
        """Have a program that poses as QEMU, or the guest, do something; often somebody notices."""
        self._step("order")
        self._often_up(subject)
        what, timeout, where = self._one_of((*ORDERS, *LINES)), self._one_of(TO_OBEY), self._where()
        operation = order(what) if what in ORDERS else line(what)
        trouble = None if what == "ping" else what
        next_one = self._one_of((None, *NOTICING))
        self._call(f"order {what}", operation, subject, timeout, where, trouble=trouble)
        if next_one is not None:
            self._wait(subject, next_one, SHORT[-1], where)

    @rule(subject=subjects)
    def harm(self, subject: Subject) -> None:
        """Send one to QEMU, or end a companion."""
        self._step("harm")
        self._often_up(subject)
        if subject.companions is not None and self.grounds.cards.chance(5):
            self.story.append(f"the companion of {subject} ends")
            noted = subject.note("companion")
            subject.companions.end()
            noted.end = time.monotonic()
        else:
            self._signal(subject, self._one_of(SIGNALS))

    @rule(subject=subjects)
    def meddle(self, subject: Subject) -> None:
        """Have a hook go wrong, mostly in the next launch."""
        self._step("meddle")
        plugin, hook, how = self._one_of(MEDDLING)
        self.story.append(f"the next {hook} of {plugin} of {subject} will {how}")
        subject.vm.plugin(plugin).next[hook] = how
        self._often_up(subject)

    @rule(subject=subjects)
    def interrupt(self, subject: Subject) -> None:
        self._step("interrupt")
        name = self._one_of(tuple(INTERRUPTED))
        if name != "launch":
            self._often_up(subject)
        timeout = LEAVING if name.startswith("with") else TO_END[-1]
        call = self._made(name, INTERRUPTED[name], subject, timeout, MAIN, trouble=_trouble(name))
        self.grounds.interrupter.make(call, self._one_of(INTERRUPTS))

    @rule(subject=subjects)
    def look(self, subject: Subject) -> None:
        """At everything that never waits, and do something wrong."""
        self._step("look")
        where, mistake = self._where(), self._one_of(tuple(MISTAKES))
        for name, (kind, function) in READS.items():
            self._call(name, Operation(kind, _reading(function)), subject, 0.0, where)
        self._call(mistake, Operation("mistake", _reading(MISTAKES[mistake])), subject, 0.0, where)

    # -- what is checked ------------------------------------------------------------------------------------

    @invariant()
    def consistent(self) -> None:
        with self._telling():
            if self.grounds.cards.chance(3):
                self._give_time_to(self._where())
            for subject in self.all:
                check_now(subject)
            self._collect()

    def teardown(self) -> None:
        with self._telling():
            try:
                self._finish()
                for subject in self.all:
                    check_end(subject)
                    self.tally.machine(subject)
            finally:
                for subject in self.all:
                    with contextlib.suppress(VMError):
                        subject.vm.kill(PATIENCE)
            self.leaks.__exit__(None, None, None)

    # -- how ------------------------------------------------------------------------------------------------

    def _step(self, name: str) -> None:
        self.tally.step(name)

    def _one_of(self, options: tuple[T, ...]) -> T:
        return self.grounds.cards.one_of(options)

    def _where(self) -> str:
        return self._one_of((MAIN, *HANDS))

    def _often_up(self, subject: Subject) -> None:
        """Launch it, if it can be: most of what may happen happens to running machines."""
        often = self.grounds.cards.chance(7)
        if often and subject.kind.comes_up and subject.vm.state in {State.CONFIGURED, *FINAL}:
            self._launch(subject, MAIN, PATIENCE)

    def _give_time_to(self, hand: str) -> None:
        """To come to the end of its calls, if they have one soon."""
        for _, call in self.open:
            if call.hand == hand:
                call.done.wait(0.3)

    def _launch(self, subject: Subject, where: str, timeout: float) -> None:
        timeout = min(timeout, SHORT[-1]) if subject.kind.is_silent else timeout
        self._call("launch", LIFECYCLE["launch"], subject, timeout, where)

    def _wait(self, subject: Subject, name: str, timeout: float, where: str) -> None:
        if where == HANDS[-1] and name in UNTIL_THE_END:
            timeout = PATIENCE
        elif where != MAIN and timeout == SHORT[-1]:
            if WAITS[name].kind == "command" and subject.is_quiet:
                timeout = PATIENCE
            elif WAITS[name].kind == "console":
                timeout = 2 * GRACE  # after one second of QEMU's life it is closed
        self._call(name, WAITS[name], subject, timeout, where, trouble=_trouble(name))

    def _signal(self, subject: Subject, number: signal.Signals) -> None:
        self.story.append(f"{number.name} to {subject}")
        with _process(lambda: subject.vm.pid) as pidfd:
            if pidfd is not None:
                noted = subject.note(number.name)
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, number)
                if number is signal.SIGCONT:
                    noted.end = noted.begin

    def _made(
        self,
        name: str,
        operation: Operation,
        subject: Subject,
        timeout: float,
        where: str,
        trouble: str | None = None,
    ) -> Call:
        function = lambda: operation.call(subject, timeout)  # noqa: E731
        call = Call(name, subject, Deadline(timeout).timeout, function, where, trouble=trouble)
        self.open.append((operation.kind, call))
        return call

    def _call(
        self,
        name: str,
        operation: Operation,
        subject: Subject,
        timeout: float,
        where: str,
        trouble: str | None = None,
    ) -> None:
        call = self._made(name, operation, subject, timeout, where, trouble)
        if where == MAIN:
            call.make()
        else:
            if operation.kind != "never":
                self.story.append(f"{where} is to call {subject}.{name}(timeout={timeout})")
            self.grounds.hands[where].start(call)

    def _collect(self) -> None:
        """Judge the calls that are over."""
        over = [(kind, call) for kind, call in self.open if call.done.is_set()]
        self.open = [(kind, call) for kind, call in self.open if not call.done.is_set()]
        for kind, call in over:
            if kind != "never" or call.error is not None:
                self.story.append(str(call))
            self.tally.call(call)
            judge(kind, call)

    def _finish(self) -> None:
        """The machines are killed again and again, as what is still to be called may launch them."""
        begun = [call for _, call in self.open]
        self._kill_all()
        for call in begun:
            while not call.done.wait(0.1):
                self._kill_all()
        self._kill_all()

    def _kill_all(self) -> None:
        for subject in self.all:
            self._call("kill", LIFECYCLE["kill"], subject, PATIENCE, MAIN)
        self._collect()

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """What goes wrong is told with all that was done, and with what came of it."""
        try:
            yield
        except BaseException as error:
            print(f"\n{type(error).__name__}: {error}\nThe walk:")
            print("\n".join(self.story[-STORY:]))
            for subject in self.all:
                print(f"{subject}: {subject.trouble}")
                for one in subject.vm.history:
                    print(f"    {one.at:.6f} {one.event.value}: {one.dest.value}, {one.reason}")
            raise


def _trouble(name: str) -> str | None:
    """An operation after which, if it comes to nothing, others may not be possible."""
    return name if name == "reconnect" else None


def _reading(function: Callable[[Any], Any]) -> Callable[[Subject, float], Any]:
    return lambda subject, timeout: function(subject.vm)


@contextlib.contextmanager
def _process(read_pid: Callable[[], int | None]) -> Iterator[int | None]:
    """A descriptor of it, if it is there and is the one that is meant."""
    pid = read_pid()
    pidfd = None
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid) if pid is not None else None
    try:
        yield pidfd if pidfd is not None and read_pid() == pid else None
    finally:
        if pidfd is not None:
            os.close(pidfd)
