"""Who runs the plain functions of a walk: the thread that called, or a worker.

The walk itself is a coroutine on the I/O thread, so an exception from a signal handler can hit the caller
anywhere and the walk still goes on: what the caller does not run any more, a worker does.
"""

import contextlib
import contextvars
import inspect
import queue
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

from .deadline import Deadline
from .iothread import IOThread
from .waits import Wait
from .workers import Workers

PRESENCE = 0.25
"""Seconds after which, and again, it is checked that a caller is still there to run its job."""
GRACE = 2.0
"""Seconds that a caller waits beyond its deadline for the I/O thread to have ended what is over."""

T = TypeVar("T")
_in_hooks_of: contextvars.ContextVar[frozenset[int]] = contextvars.ContextVar(
    "_in_hooks_of", default=frozenset()
)


def in_hook_of(machine: object) -> bool:
    """Whether the calling thread is running a hook of this machine."""
    return id(machine) in _in_hooks_of.get()


class Job:
    """A plain function that some thread is to call, once. Made and awaited on the I/O thread."""

    def __init__(self, io: IOThread, machine: object, function: Callable[[], object]) -> None:
        self._io = io
        self._machine = machine
        self._function = function
        self._claimed = threading.Lock()
        self._began = False
        self.done = io.loop.create_future()
        """Its result is what the function raised, or `None`."""

    def run(self) -> BaseException | None:
        """Call the function, unless another thread has; what it raised."""
        if not self._claimed.acquire(blocking=False):
            return None
        return self._call()

    def _call(self) -> BaseException | None:
        error: BaseException | None = None
        try:
            # A context of its own, since no signal handler's exception can keep it from being left again.
            contextvars.copy_context().run(self._call_as_hook)
        except BaseException as raised:
            if not self._began:
                raise  # an interrupt: `take_from_caller` has it called elsewhere
            error = raised  # the walk gets it, and the caller what is its
        self._io.post(self._finish, error)
        return error

    def _call_as_hook(self) -> None:
        _in_hooks_of.set(_in_hooks_of.get() | {id(self._machine)})
        self._began = True
        result = self._function()
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError(
                "a plain function returned a coroutine, which nobody awaits: declare it `async def`"
            )

    def _finish(self, error: BaseException | None) -> None:
        if not self.done.done():
            self.done.set_result(error)

    def take_from_caller(self, interrupt: BaseException) -> None:
        """The caller that was to run it was interrupted: let a worker, unless it had begun."""
        if self._claimed.acquire(blocking=False) or not self._began:
            Workers.get().submit(self._call)
        else:
            self._finish(interrupt)


class Caller:
    """A thread inside `launch`, `shutdown` or `kill`: waits for the walk, and runs its jobs meanwhile.

    :param wait: what is said of it elsewhere; `None` where that is said of another already.
    """

    def __init__(self, io: IOThread, wait: Wait | None = None) -> None:
        self.wait = wait
        self._io = io
        self._inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._released = False
        self._later: Deadline | None = None
        self._error: BaseException | None = None
        self._job: Job | None = None
        self._left: BaseException | None = None
        self._thread = threading.get_ident()
        self._frame: FrameType | None = sys._getframe(1)

    # On the I/O thread.

    def submit(self, job: Job) -> None:
        if self._left is not None:
            Workers.get().submit(job.run)
        else:
            self._job = job
            self._inbox.put(job)
            self._io.loop.call_later(PRESENCE, self._check_presence, job)

    def _check_presence(self, job: Job) -> None:
        """A caller that is interrupted again and again may leave without a word: its stack tells."""
        if job.done.done() or self._left is not None:
            return
        frame = sys._current_frames().get(self._thread)
        while frame is not None and frame is not self._frame:
            frame = frame.f_back
        if frame is None:
            self.has_left(KeyboardInterrupt("left without a word"))
        else:
            self._io.loop.call_later(PRESENCE, self._check_presence, job)

    def wait_longer(self, deadline: Deadline) -> None:
        """What is over late is worth it: the caller waits by this deadline."""
        self._later = deadline
        self._inbox.put(None)

    def release(self, error: BaseException | None) -> None:
        """Let the caller go, with an error to raise."""
        # Beside the queue: who is interrupted between taking from that and looking at it still sees it.
        self._error, self._released = error, True
        self._frame = None
        self._inbox.put(None)

    def has_left(self, interrupt: BaseException) -> None:
        """Its thread runs no more jobs; the walk goes on with workers. Whoever insists may say so twice."""
        if self._left is not None:
            return
        self._left = interrupt
        if self.wait is not None:
            self.wait.tell_end(interrupt)
        if self._job is not None and not self._job.done.done():
            self._job.take_from_caller(interrupt)

    # In the calling thread.

    def serve(self, deadline: Deadline) -> None:
        """Run jobs until released.

        :raises queue.Empty: when the deadline and the grace are over.
        """
        __tracebackhide__ = True
        while not self._released:
            job = receive(self._inbox, (self._later or deadline).after(GRACE))
            error = None if job is None else job.run()
            if error is not None and not isinstance(error, Exception):
                raise error  # Ctrl-C, say: it is for the caller, not for the walk
        if self._error is not None:
            raise self._error

    def await_release(self, deadline: Deadline) -> None:
        """Having left, wait until released, or until the deadline and the grace are over."""
        with contextlib.suppress(queue.Empty):
            while not self._released:
                receive(self._inbox, deadline.after(GRACE))  # a job that was there already is a worker's now


def receive(inbox: "queue.SimpleQueue[T]", deadline: Deadline) -> T:
    """What comes next.

    :raises queue.Empty: when the deadline is over.
    """
    while True:
        try:
            return inbox.get(timeout=deadline.nap())
        except queue.Empty:
            if deadline.expired:
                raise


def insist(function: Callable[[], object]) -> None:
    """Call `function` until it came to its end, however often a signal handler's exception hits."""
    while True:
        try:
            function()
        except BaseException:  # noqa: BLE001 - the first interrupt is the one that is raised
            continue
        return


class Runner:
    """Runs the jobs of one launch: in the caller at hand, else in a worker. On the I/O thread only."""

    def __init__(self, io: IOThread, machine: object) -> None:
        self._io = io
        self._machine = machine
        self.caller: Caller | None = None

    def start(self, function: Callable[[], object], *, in_worker: bool = False) -> Job:
        job = Job(self._io, self._machine, function)
        if self.caller is not None and not in_worker:
            self.caller.submit(job)
        else:
            Workers.get().submit(job.run)
        return job
