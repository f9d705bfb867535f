"""A scheduler for tests: threads stop where a test says, and go on in the order that it says.

Nothing in the product knows of it. It stands between the threads and what they meet in: the changes of
state (on the I/O thread), what is posted to that thread, and the clock of deadlines.
"""

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any
from unittest import mock

from tests.waiting import LIMIT, InThread, until
from vmfsm import Event, Machine
from vmfsm import clock as clocks
from vmfsm import deadline as deadlines
from vmfsm.iothread import IOThread


class Gate:
    """Who comes to it first waits there until it is opened; who comes later passes."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()
        self._first = threading.Lock()
        self._wake: list[Callable[[], object]] = []

    def __call__(self) -> None:
        if self._first.acquire(blocking=False):
            self.reached.set()
            assert self.opened.wait(LIMIT)

    async def as_coroutine(self) -> None:
        if self._first.acquire(blocking=False):
            loop, opened = asyncio.get_running_loop(), asyncio.Event()
            self._wake.append(lambda: loop.call_soon_threadsafe(opened.set))
            self.reached.set()
            if not self.opened.is_set():
                await opened.wait()

    def open(self) -> None:
        self.opened.set()
        for wake in self._wake:
            wake()


@contextlib.contextmanager
def gate_at(machine: Machine, event: Event, when: str, gate: Gate) -> Iterator[None]:
    """The I/O thread comes to `gate` just `"before"` or `"after"` the machine's next `event`."""
    lifecycle = machine._lifecycle
    fire = lifecycle.fire

    def fire_with_gate(fired: Event, *reason: Any) -> Any:
        if fired is event and when == "before":
            gate()
        transition = fire(fired, *reason)
        if fired is event and when == "after":
            gate()
        return transition

    with mock.patch.object(lifecycle, "fire", fire_with_gate):
        yield


class Posts:
    """Knows who has posted how often to the I/O thread; can have a thread wait before it does."""

    def __init__(self) -> None:
        self.io = IOThread.get()
        self.count: dict[int, int] = {}
        self._gates: dict[int, Gate] = {}
        self._post = self.io.post

    def _note(self, function: Callable[..., object], *args: object) -> None:
        thread = threading.get_ident()
        if thread in self._gates:
            self._gates[thread]()
        self._post(function, *args)
        self.count[thread] = self.count.get(thread, 0) + 1

    @property
    def total(self) -> int:
        return sum(self.count.values())

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        with mock.patch.object(self.io, "post", self._note):
            yield

    def stop_me_at(self, gate: Gate) -> None:
        """The calling thread comes to `gate` when it is about to post."""
        self._gates[threading.get_ident()] = gate

    def await_round(self) -> None:
        """Wait until the I/O thread has done all that it was told so far, and what that woke at once."""
        for _ in range(5):
            done = threading.Event()
            self._post(done.set)
            assert done.wait(LIMIT)

    def begin(self, call: Callable[[], object]) -> InThread:
        """Make a call in a thread of its own; returns when it has posted, or is over."""
        started: list[int] = []

        def begin() -> object:
            started.append(threading.get_ident())
            return call()

        thread = InThread(begin)
        until(lambda: thread.over or (started and self.count.get(started[0])))
        return thread


class Clock:
    """The clock of all deadlines and timers of vmfsm, which can be put forward."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self._io = IOThread.get()

    def monotonic(self) -> float:
        return time.monotonic() + self._ahead

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        with (
            mock.patch.object(deadlines, "time", self),
            mock.patch.object(clocks, "time", self),
            mock.patch.object(self._io.loop, "time", self.monotonic),
        ):
            yield

    def leap(self, seconds: float) -> None:
        self._ahead += seconds
        self._io.post(lambda: None)  # it may be asleep for as long as it had to before


class Interrupt:
    """Ctrl-C, once, in the main thread."""

    def __init__(self) -> None:
        self.exception = KeyboardInterrupt("by the test")
        self._come = threading.Event()
        self._wanted = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._wanted and not self._come.is_set():
            self._come.set()
            raise self.exception

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        before = signal.signal(signal.SIGINT, self._handle)
        try:
            yield
        finally:
            self._wanted = False
            signal.signal(signal.SIGINT, before)

    def send(self) -> None:
        """From another thread; again and again, since Python overlooks one just before it falls asleep."""
        main = threading.main_thread().ident
        assert main is not None
        self._wanted = True
        while not self._come.is_set():
            signal.pthread_kill(main, signal.SIGINT)
            self._come.wait(0.01)
