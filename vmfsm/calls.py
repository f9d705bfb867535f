"""Waits of users for something on the I/O thread, raced with deadlines, QEMU's death and verdicts."""

import asyncio
import contextlib
import queue
import time
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from .alarm import Alarm
from .caller import GRACE, receive
from .deadline import Deadline
from .errors import GuestPanicked, MachineDied, MachineTimeout, Verdict, VMError
from .failures import Failures
from .iothread import IOThread, outcome
from .onlookers import is_onlooker
from .waits import SHORT, Recorder, Wait, Waits


class Outcome(NamedTuple):
    """What came of a call."""

    error: BaseException | None
    value: object


class Calls:
    """The waits that are in progress in one launch. On the I/O thread only, but for the two `run_…`."""

    def __init__(
        self,
        io: IOThread,
        name: str,
        gone: "asyncio.Future[None]",
        died: Callable[[str], MachineDied],
        when_ended: Callable[[Callable[[], object]], None],
        waits: Waits,
        record: Recorder,
        failures: Failures,
    ) -> None:
        self.io = io
        self.name = name
        self.gone = gone
        self.died = died
        """Makes the error for an operation that QEMU's end has ended."""
        self.when_ended = when_ended
        """Calls a function when the final state is reached."""
        self.record = record
        self.failures = failures
        self._waits = waits
        self._look: asyncio.TimerHandle | None = None
        self.in_progress: set[Call] = set()
        self.condemned: Verdict | None = None
        """What QEMU is ended for: who waits for the guest gets that in place of `MachineDied`."""
        self.was_told = False
        """Somebody got a verdict."""
        self._verdicts: list[Verdict] = []

    def tell_death(self) -> None:
        """QEMU is gone: end the waits that need it."""
        for call in tuple(self.in_progress):
            if call.needs_qemu:
                call.stop_by_end()

    def look_later(self) -> None:
        """A call began that is not on the timeline, where it belongs if it takes long.

        One timer for all of them, since each would cost what a round trip should not.
        """
        if self._look is None:
            self._look = self.io.loop.call_later(SHORT, self._tell_long)

    def _tell_long(self) -> None:
        self._look = None
        now = time.monotonic()
        for call in self.in_progress:
            if now - call.wait.began >= SHORT:
                call.tell_begin()
            elif not call.wait.is_told:
                self.look_later()

    def tell_end(self) -> None:
        """The final state is reached: the waits for that are over."""
        for call in self.in_progress:
            if not call.needs_qemu:
                call.tell_end(None)

    def report(self, verdict: Verdict) -> None:
        """The guest is lost: tell who waits for it, or who will next."""
        self._verdicts.append(verdict)
        # Behind the tasks that are about to see what made the verdict, since it may be what they wait for.
        self.io.loop.call_soon(self.tell_verdict, *self.in_progress)

    def tell_verdict(self, *calls: "Call") -> None:
        """End those of `calls` that wait for the guest, if there is a verdict that nobody was told.

        Not where QEMU is about to end for one: they are told of that then.
        """
        if self.condemned is not None:
            return
        told = [
            call.stop(self._panicked(call.operation))
            for call in calls
            if call.of_guest and call in self.in_progress and self._verdicts
        ]
        if any(told):
            self.was_told = True
            self._verdicts.clear()

    def end(self, call: "Call") -> VMError:
        """The error for a call that QEMU's end has ended."""
        if call.of_guest and self.condemned is not None:
            return self.condemnation(self.condemned, call.operation)
        return self.died(call.operation)

    def condemnation(self, verdict: Verdict, operation: str) -> GuestPanicked:
        """The error for the verdict that QEMU was ended for, with those that nobody was told of."""
        error = self._error(verdict, operation)
        error.add_errors(self.untold(operation))
        return error

    def untold(self, operation: str) -> list[GuestPanicked]:
        """Errors for the verdicts that nobody was told of, and is not by this either."""
        return [self._error(verdict, operation) for verdict in self._verdicts]

    def take_back(self, verdict: Verdict) -> bool:
        """Tell nobody of this verdict any more; whether nobody was told."""
        untold = [other for other in self._verdicts if other is not verdict]
        was_untold = len(untold) < len(self._verdicts)
        self._verdicts = untold
        return was_untold

    def take_verdict(self, operation: str) -> GuestPanicked:
        """The error for the verdicts that nobody was told, who is told now."""
        error = self._panicked(operation)
        if not is_onlooker():
            self.was_told = True
            self._verdicts.clear()
        return error

    def _panicked(self, operation: str) -> GuestPanicked:
        """The error for the first verdict, with the others in its `errors`."""
        first, *others = self.untold(operation)
        first.add_errors(others)
        return first

    def _error(self, verdict: Verdict, operation: str) -> GuestPanicked:
        message = verdict.what.get("message")
        error = GuestPanicked(
            f"{self.name}: {verdict.kind} (seen by {verdict.where}) during {operation}"
            f"{f': {message}' if message else ''}"
        )
        error.verdict = verdict
        return error

    @property
    def has_verdict(self) -> bool:
        """Whether there is a verdict that nobody was told."""
        return bool(self._verdicts)

    def run_in_thread(
        self,
        coroutine: Coroutine[Any, Any, object],
        deadline: Deadline,
        operation: str,
        *,
        of_guest: bool,
        needs_qemu: bool,
        at_once: bool,
    ) -> Outcome:
        """Have `coroutine` run on the I/O thread and wait for it, in any other thread."""
        inbox: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        wait = Wait(operation, deadline)
        call: Call | None = None
        try:
            call = Call(
                self,
                coroutine,
                deadline,
                wait,
                inbox.put,
                of_guest=of_guest,
                needs_qemu=needs_qemu,
                at_once=at_once,
            )
            self.io.post(call.start)
            self._waits.add(wait)  # now, while the I/O thread wakes up: round trips do not notice it
            wait.find_caller()
            try:
                return receive(inbox, deadline.after(GRACE))
            except queue.Empty:  # somebody's async hook holds up the I/O thread
                late = call.timeout()
                self.io.post(call.abandon, late)
                return Outcome(late, None)
        except BaseException as interrupt:
            if call is None:
                self.io.post(coroutine.close)
            else:
                self.io.post(call.abandon, interrupt)
            raise
        finally:
            self._waits.remove(wait)

    async def run_in_loop(
        self,
        coroutine: Coroutine[Any, Any, object],
        deadline: Deadline,
        operation: str,
        *,
        of_guest: bool,
        needs_qemu: bool = True,
    ) -> Outcome:
        """The same for a coroutine, on the I/O thread or in any other asyncio loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()

        def deliver(result: Outcome) -> None:
            if not future.done():
                future.set_result(result)

        def deliver_from_io_thread(result: Outcome) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                loop.call_soon_threadsafe(deliver, result)

        inside = self.io.inside()
        wait = Wait(operation, deadline)
        wait.of_task()
        call = Call(
            self,
            coroutine,
            deadline,
            wait,
            deliver if inside else deliver_from_io_thread,
            of_guest=of_guest and not is_onlooker(),
            needs_qemu=needs_qemu,
            at_once=inside,
        )
        try:
            self._waits.add(wait)
            if inside:
                call.start()
            else:
                self.io.post(call.start)
            if await deadline.after(GRACE).first({future}):
                return future.result()
            late = call.timeout()
            self.io.post(call.abandon, late)  # the coroutine is deaf to its cancellation
            return Outcome(late, None)
        except BaseException as interrupt:
            self.io.post(call.abandon, interrupt)
            raise
        finally:
            self._waits.remove(wait)


class Call:
    """One such wait. Made in any thread; everything else happens on the I/O thread."""

    __slots__ = (
        "_alarm",
        "_by_end",
        "_calls",
        "_coroutine",
        "_deadline",
        "_deliver",
        "_delivered",
        "_is_of_test",
        "_task",
        "_why",
        "at_once",
        "needs_qemu",
        "of_guest",
        "operation",
        "wait",
    )

    def __init__(
        self,
        calls: Calls,
        coroutine: Coroutine[Any, Any, object],
        deadline: Deadline,
        wait: Wait,
        deliver: Callable[[Outcome], object],
        *,
        of_guest: bool,
        needs_qemu: bool,
        at_once: bool,
    ) -> None:
        self._calls = calls
        self._coroutine = coroutine
        self._deadline = deadline
        self._deliver = deliver
        self._delivered = False
        self._task: asyncio.Task[tuple[BaseException | None, object]] | None = None
        self._alarm: Alarm | None = None
        self._why: BaseException | None = None
        self._by_end = False
        self.wait = wait
        self.operation = wait.operation
        self.of_guest = of_guest
        """What is waited for comes from the guest: a verdict ends the wait."""
        self.needs_qemu = needs_qemu
        """The end of QEMU ends the wait."""
        self.at_once = at_once
        """Tell of the end of QEMU before it is cleaned up after: the clean-up itself may be what waits."""
        self._is_of_test = (of_guest or needs_qemu) and not at_once and not is_onlooker()

    def start(self) -> None:
        calls = self._calls
        if self._delivered:  # abandoned before it began
            self._coroutine.close()
            return
        if self.of_guest or not self.needs_qemu:
            self.tell_begin()
        if self.needs_qemu and calls.gone.done():
            self._coroutine.close()
            self._why, self._by_end = calls.end(self), True
            self._tell_when_ended()
        else:
            self._task = calls.io.loop.create_task(outcome(self._coroutine))
            self._task.add_done_callback(self._done)
            calls.in_progress.add(self)
        # Both after the task's first step, in which it finds what has come already: a timeout of 0 polls.
        if not self._delivered:
            self._alarm = Alarm(self._deadline, self._late)
            if not self.wait.is_told:
                calls.look_later()
        if self.of_guest and calls.has_verdict:
            calls.io.loop.call_soon(calls.tell_verdict, self)

    def stop(self, why: BaseException) -> bool:
        """End the wait with `why`, unless it has just got what it waited for. Whether it does."""
        if self._task is None or self._task.done() or self._why is not None:
            return False
        self._why = why
        self._task.cancel()
        return True

    def stop_by_end(self) -> None:
        """QEMU has ended."""
        if self.stop(self._calls.end(self)):
            self._by_end = True
            self._judge(self._why)  # now, since the end of the machine begins

    def abandon(self, why: BaseException) -> None:
        """Nobody waits any more, for `why`."""
        self.tell_end(why)
        self._delivered = True
        task, self._task = self._task, None
        if task is None:
            self._coroutine.close()
        else:
            task.cancel()
        self._forget()

    def timeout(self) -> MachineTimeout:
        """The error for a deadline that is over."""
        seconds = self._deadline.timeout
        error = MachineTimeout(f"{self._calls.name}: {self.operation} timed out after {seconds:g} s")
        error.operation, error.timeout = self.operation, seconds
        return error

    def _late(self) -> None:
        if self._by_end:  # its clean-up takes longer than this call has
            self._finish(Outcome(self._why, None))
        else:
            self.stop(self.timeout())

    def _done(self, task: "asyncio.Task[tuple[BaseException | None, object]]") -> None:
        # The caller's thread is not to be the last that has it: Python ignores what a signal handler raises
        # while weak references to it are seen to.
        self._task = None
        error: BaseException | None
        if task.cancelled():
            self._coroutine.close()  # it may not have begun
            error, value = asyncio.CancelledError(), None
        else:
            error, value = task.result()
        if error is not None and self._why is not None:
            error = self._why
        if self._by_end and error is self._why:
            self._tell_when_ended()
        else:
            self._finish(Outcome(error, value))

    def tell_begin(self) -> None:
        """It waits, which the timeline is to have."""
        self.wait.tell_begin(self._calls.record)

    def tell_end(self, error: BaseException | None) -> None:
        """What it came to is known, for the timeline: before its caller is told, once."""
        if isinstance(error, MachineTimeout):
            self.tell_begin()  # however short it was: somebody will ask for it
        self.wait.tell_end(error)
        self._judge(error)

    def _judge(self, error: BaseException | None) -> None:
        if self._is_of_test:
            self._calls.failures.waited(error, self._deadline.timeout, of_guest=self.of_guest)

    def _tell_when_ended(self) -> None:
        self.tell_end(self._why)
        if self.at_once:
            self._finish(Outcome(self._why, None))
        else:
            self._calls.when_ended(lambda: self._finish(Outcome(self._why, None)))

    def _finish(self, result: Outcome) -> None:
        self._forget()
        if not self._delivered:
            self.tell_end(result.error)
            self._delivered = True
            self._deliver(result)

    def _forget(self) -> None:
        self._calls.in_progress.discard(self)
        if self._alarm is not None:
            self._alarm.cancel()
