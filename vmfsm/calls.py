"""A wait of somebody for something on the I/O thread, raced with its deadline, QEMU's death and verdicts."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple

from .deadline import Deadline
from .errors import MachineDied, MachineTimeout
from .iothread import outcome

if TYPE_CHECKING:
    from .launch import Launch


class Outcome(NamedTuple):
    """What came of a call."""

    error: BaseException | None
    value: object


class Call:
    """One such wait. Made in any thread; everything else happens on the I/O thread."""

    __slots__ = (
        "_coroutine",
        "_deadline",
        "_deliver",
        "_delivered",
        "_launch",
        "_task",
        "_timer",
        "_why",
        "at_once",
        "needs_qemu",
        "of_guest",
        "operation",
    )

    def __init__(
        self,
        launch: "Launch",
        coroutine: Coroutine[Any, Any, object],
        deadline: Deadline,
        operation: str,
        deliver: Callable[[Outcome], object],
        *,
        of_guest: bool,
        needs_qemu: bool = True,
        at_once: bool = False,
    ) -> None:
        self._launch = launch
        self._coroutine = coroutine
        self._deadline = deadline
        self._deliver = deliver
        self._delivered = False
        self._task: asyncio.Task[tuple[BaseException | None, object]] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._why: BaseException | None = None
        self.operation = operation
        self.of_guest = of_guest
        """What is waited for comes from the guest: a verdict ends the wait."""
        self.needs_qemu = needs_qemu
        """The end of QEMU ends the wait."""
        self.at_once = at_once
        """Tell of the end of QEMU before it is cleaned up after: the clean-up itself may be what waits."""

    def start(self) -> None:
        launch = self._launch
        if self._delivered:  # given up before it began
            self._coroutine.close()
            return
        if self.needs_qemu and launch.gone.done():
            self._coroutine.close()
            self._why = launch.died(self.operation)
            self._watch_deadline()
            self._died()
            return
        self._task = launch.io.loop.create_task(outcome(self._coroutine))
        self._task.add_done_callback(self._done)
        launch.calls.add(self)
        self._watch_deadline()
        if self.of_guest and launch.pending_verdicts:
            # After the task's first step, in which it finds what has come already.
            launch.io.loop.call_soon(launch.deliver_verdicts, self)

    def stop(self, why: BaseException) -> None:
        """End the wait with `why`, unless it has just got what it waited for."""
        if self._task is not None and not self._task.done() and self._why is None:
            self._why = why
            self._task.cancel()

    def abandon(self) -> None:
        """Nobody waits any more."""
        self._delivered = True
        if self._task is None:
            self._coroutine.close()
        else:
            self._task.cancel()
        self._forget()

    def _watch_deadline(self) -> None:
        remaining = self._deadline.remaining()
        if remaining == 0.0:
            self._late()
        elif remaining is not None:
            self._timer = self._launch.io.loop.call_later(remaining, self._watch_deadline)

    def _late(self) -> None:
        if self._why is not None:  # QEMU has ended, and its clean-up takes longer than this call has
            self._finish(Outcome(self._why, None))
        else:
            self.stop(self.timeout())

    def timeout(self) -> MachineTimeout:
        """The error for a deadline that is over."""
        error = MachineTimeout(
            f"{self._launch.name}: {self.operation} was not over after {self._deadline.timeout:g} s"
            if self._deadline.timeout is not None
            else f"{self._launch.name}: {self.operation} was not over"
        )
        error.operation, error.timeout = self.operation, self._deadline.timeout
        return error

    def _done(self, task: "asyncio.Task[tuple[BaseException | None, object]]") -> None:
        error, value = (asyncio.CancelledError(), None) if task.cancelled() else task.result()
        if task.cancelled():
            self._coroutine.close()  # it may not have begun
        if error is not None and self._why is not None:
            if isinstance(self._why, MachineDied):
                self._died()
                return
            error = self._why
        self._finish(Outcome(error, value))

    def _died(self) -> None:
        if self.at_once:
            self._finish(Outcome(self._why, None))
        else:
            self._launch.when_ended(lambda: self._finish(Outcome(self._why, None)))

    def _finish(self, result: Outcome) -> None:
        self._forget()
        if not self._delivered:
            self._delivered = True
            self._deliver(result)

    def _forget(self) -> None:
        self._launch.calls.discard(self)
        if self._timer is not None:
            self._timer.cancel()
