"""The walk: machines, threads that call them, and what is done to both, in any order."""

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.walks.hands import MAIN, Hand, Interrupter
from tests.walks.invariants import check_end, check_now
from tests.walks.meddling import HOOKS
from tests.walks.operations import LIFECYCLE, MISTAKES, READS, WAITS, Operation, line, order
from tests.walks.oracle import SLACK, judge
from tests.walks.subject import FINAL, KINDS, LINES, ORDERS, PROGRAMS, Call, Kind, Subject, program
from tests.walks.tally import Tally
from vmfsm import State
from vmfsm.testing import FakeQEMU, leakcheck

MOST = 3
"""Machines of one walk."""
HANDS = ("first", "second", "third")
SIGNALS = (signal.SIGSTOP, signal.SIGCONT, signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM)

# Seconds. Patience is for where nothing is in the way: then the call must succeed.
PATIENCE = 60.0
SHORT = (0.0, 0.01, 0.1)
TO_END = (0.0, 0.2, 1.0)
TO_LAUNCH = (0.0, 0.05, 0.3, PATIENCE)


class Grounds:
    """What all walks of a test share: programs that pose as QEMU, threads, counters."""

    def __init__(self, qemu: str) -> None:
        self.qemu = qemu
        self.tally = Tally()
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


wheres = st.sampled_from((MAIN, *HANDS))


class Walk(RuleBasedStateMachine):
    """One walk. What is drawn decides what is done; what comes of it is only judged."""

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

    @initialize(target=subjects, kind=st.sampled_from(KINDS))
    def begin(self, kind: Kind) -> Subject:
        return self._make(kind)

    @precondition(lambda self: len(self.all) < MOST)
    @rule(target=subjects, kind=st.sampled_from(KINDS))
    def make(self, kind: Kind) -> Subject:
        self._step("make")
        return self._make(kind)

    @rule(subject=subjects, where=wheres, timeout=st.sampled_from(TO_LAUNCH))
    def launch(self, subject: Subject, where: str, timeout: float) -> None:
        self._step("launch")
        self._launch(subject, where, timeout)

    @rule(
        subject=subjects,
        where=wheres,
        name=st.sampled_from([name for name in LIFECYCLE if name != "launch"]),
        timeout=st.sampled_from(TO_END),
        up=st.booleans(),
    )
    def end(self, subject: Subject, where: str, name: str, timeout: float, up: bool) -> None:
        self._step("end", subject if up else None)
        in_peace = subject.kind.goes and subject.is_quiet
        if name.startswith("with") and not in_peace:
            name = "shutdown"  # it has no timeout of its own
        if in_peace and timeout == TO_END[-1]:
            timeout = PATIENCE
        self._call(name, LIFECYCLE[name], subject, 30.0 if name.startswith("with") else timeout, where)

    @rule(
        subject=subjects,
        where=wheres,
        name=st.sampled_from(list(WAITS)),
        timeout=st.sampled_from(SHORT),
        patient=st.booleans(),
        up=st.booleans(),
    )
    def wait(self, subject: Subject, where: str, name: str, timeout: float, patient: bool, up: bool) -> None:
        self._step("wait", subject if up else None)
        operation = WAITS[name]
        if patient and where != MAIN and operation.kind in {"command", "reconnect"} and subject.is_quiet:
            timeout = PATIENCE
        self._call(name, operation, subject, timeout, where)

    @rule(
        subject=subjects,
        where=wheres,
        what=st.sampled_from([*ORDERS, *LINES]),
        timeout=st.sampled_from(SHORT),
        up=st.booleans(),
    )
    def order(self, subject: Subject, where: str, what: str, timeout: float, up: bool) -> None:
        """Have a program that poses as QEMU, or the guest, do something."""
        self._step("order", subject if up else None)
        operation = order(what) if what in ORDERS else line(what)
        trouble = None if what == "ping" else what
        self._call(f"order {what}", operation, subject, timeout, where, trouble=trouble)

    @rule(subject=subjects, number=st.sampled_from(SIGNALS), up=st.booleans())
    def signal(self, subject: Subject, number: signal.Signals, up: bool) -> None:
        self._step("signal", subject if up else None)
        self.story.append(f"{number.name} to {subject}")
        with _process(lambda: subject.vm.pid) as pidfd:
            if pidfd is not None:
                noted = subject.note(number.name)
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, number)
                if number is signal.SIGCONT:
                    noted.end = noted.begin

    @precondition(lambda self: any(subject.companions for subject in self.all))
    @rule()
    def end_companions(self) -> None:
        self._step("end_companions")
        for subject in self.all:
            if subject.companions is not None:
                self.story.append(f"the companion of {subject} ends")
                noted = subject.note("companion")
                subject.companions.end()
                noted.end = time.monotonic()

    @rule(
        subject=subjects,
        asynchronous=st.booleans(),
        hook=st.sampled_from(HOOKS),
        how=st.sampled_from(["raise", "linger"]),
    )
    def meddle(self, subject: Subject, asynchronous: bool, hook: str, how: str) -> None:
        self._step("meddle")
        self.story.append(f"the next {hook} of {subject} will {how}{' (async)' * asynchronous}")
        (subject.lingerer if asynchronous else subject.meddler).next[hook] = how

    @rule(
        subject=subjects,
        name=st.sampled_from([*LIFECYCLE, "wait", "query-status", "expect", "reconnect"]),
        seconds=st.sampled_from([0.0, 0.001, 0.01, 0.05]),
        up=st.booleans(),
    )
    def interrupt(self, subject: Subject, name: str, seconds: float, up: bool) -> None:
        self._step("interrupt", subject if up and name != "launch" else None)
        operation = {**LIFECYCLE, **WAITS}[name]
        timeout = 30.0 if name.startswith("with") else 1.0
        call = self._made(name, operation, subject, timeout, MAIN)
        self.grounds.interrupter.make(call, seconds)

    @rule(subject=subjects, where=wheres, name=st.sampled_from(list(MISTAKES)))
    def look(self, subject: Subject, where: str, name: str) -> None:
        """At everything that never waits, and do something wrong."""
        self._step("look")
        for read, (kind, function) in READS.items():
            self._call(read, Operation(kind, _reading(function)), subject, 0.0, where)
        self._call(name, Operation("mistake", _reading(MISTAKES[name])), subject, 0.0, where)

    @rule(where=st.sampled_from(HANDS))
    def collect(self, where: str) -> None:
        """Let a thread come to the end of its calls, if they have one soon."""
        self._step("collect")
        for _, call in self.open:
            if call.hand == where:
                call.done.wait(0.5)

    # -- what is checked ------------------------------------------------------------------------------------

    @invariant()
    def consistent(self) -> None:
        with self._telling():
            for subject in self.all:
                check_now(subject)
            self._collect()

    def teardown(self) -> None:
        with self._telling():
            for subject in self.all:
                subject.meddler.next.clear()
                subject.lingerer.next.clear()
            self._finish()
            for subject in self.all:
                check_end(subject)
                self.tally.machine(subject)
            self.leaks.__exit__(None, None, None)

    # -- how ------------------------------------------------------------------------------------------------

    def _step(self, name: str, to_be_up: Subject | None = None) -> None:
        """:param to_be_up: launched first, if it can be: most of what may happen happens to running machines."""
        self.tally.step(name)
        if to_be_up is not None and to_be_up.vm.state in {State.CONFIGURED, *FINAL}:
            self._launch(to_be_up, MAIN, PATIENCE)

    def _launch(self, subject: Subject, where: str, timeout: float) -> None:
        timeout = timeout if subject.kind.comes_up else min(timeout, TO_LAUNCH[-2])
        self._call("launch", LIFECYCLE["launch"], subject, timeout, where)

    def _make(self, kind: Kind) -> Subject:
        self.all.append(self.grounds.subject(kind))
        self.story.append(f"{self.all[-1]} is made")
        return self.all[-1]

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
        call = Call(name, subject, timeout, function, where, trouble=trouble)
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
            error.add_note("The walk:\n" + "\n".join(self.story[-200:]))
            for subject in self.all:
                history = [(*one[:3], one.reason, one.at) for one in subject.vm.history]
                error.add_note(f"{subject}: {history}; trouble: {subject.trouble}")
            raise


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
