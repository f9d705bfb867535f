"""Telling observers what happened, in order, off the I/O thread."""

import asyncio
import collections
import functools
import logging
import os
import threading
import time
from collections.abc import Callable

from .caller import Job
from .iothread import IOThread
from .lifecycle import Transition
from .perprocess import existing
from .plugins import Implementation, PluginSet
from .timeline import Record
from .workers import Workers

PATIENCE = 0.5
"""Seconds that a slow observer can hold up the return of `launch`, `shutdown`, `kill` and `wait`."""
AT_EXIT = 2.0
"""Seconds that one can hold up the exit of the interpreter, which is the end of all that is not told."""
PACE = 0.02
"""Seconds for which records are collected, so that a busy machine tells of many at once."""
_ENOUGH_BYTES = 256 * 1024
"""So many are not kept back."""
_MOST_PENDING_BYTES = 16 * 1024 * 1024
_LOGGER = logging.getLogger("vmfsm.observers")
_untold: "set[Observers]" = set()
os.register_at_fork(after_in_child=_untold.clear)


def tell_all() -> None:
    """Have observers told what they were not yet, at most `AT_EXIT` seconds: the interpreter exits.

    Not on the I/O thread.
    """
    io = existing(IOThread)
    if io is None:
        return
    told = threading.Event()

    async def tell() -> None:
        await asyncio.gather(*(observers.told(AT_EXIT) for observers in _untold))
        told.set()

    io.post(lambda: io.start(tell()))
    told.wait(AT_EXIT)


class Observers:
    """The observer hooks of one machine: batches of records, and changes of state. On the I/O thread only.

    What comes is collected for a moment. One batch is on its way at a time, in a worker; what comes meanwhile
    waits, bounded.
    """

    def __init__(self, machine: object, name: str, plugins: PluginSet) -> None:
        self._machine = machine
        self._name = name
        self._implementations: list[tuple[str, Implementation]] = [
            (hook, implementation)
            for hook in ("state_changed", "records")
            for implementation in plugins.implementations(hook)
        ]
        self._pending: collections.deque[tuple[Record, int]] = collections.deque()
        self._transitions: list[Transition] = []
        self._bytes = 0
        self._dropped = 0
        self._soon: asyncio.TimerHandle | None = None
        self._telling = False
        self._waiting: list[asyncio.Future[None]] = []

    def add(self, record: Record, size: int, transition: Transition | None = None) -> None:
        if not self._implementations:
            return
        _untold.add(self)
        self._pending.append((record, size))
        self._bytes += size
        if transition is not None:
            self._transitions.append(transition)
        while self._bytes > _MOST_PENDING_BYTES:
            self._bytes -= self._pending.popleft()[1]
            self._dropped += 1
        if self._telling:
            return
        if self._bytes >= _ENOUGH_BYTES:
            self._begin()
        elif self._soon is None:
            self._soon = IOThread.get().loop.call_later(PACE, self._begin)

    async def told(self, patience: float = PATIENCE) -> None:
        """Wait until all that was added so far has been told, at most `patience` seconds."""
        if self._telling or self._pending:
            told = asyncio.get_running_loop().create_future()
            self._waiting.append(told)
            self._begin()
            await asyncio.wait({told}, timeout=patience)

    def _begin(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        if not self._telling:
            self._telling = True
            io = IOThread.get()
            io.start(self._tell(io))

    async def _tell(self, io: IOThread) -> None:
        while True:
            batch = [record for record, _ in self._pending]
            transitions, self._transitions = self._transitions, []
            waiting, self._waiting = self._waiting, []
            self._pending.clear()
            self._bytes = 0
            if self._dropped:
                at = batch[0].at if batch else time.monotonic()
                batch.insert(0, Record("dropped", at, {"records": self._dropped}))
                self._dropped = 0
            job = Job(io, self._machine, functools.partial(self._call_all, transitions, tuple(batch)))
            Workers.get().submit_observer(job.run)
            await job.done
            for told in waiting:
                told.set_result(None)
            if not self._waiting and self._bytes < _ENOUGH_BYTES:
                break
        self._telling = False
        if self._pending:
            self._soon = io.loop.call_later(PACE, self._begin)
        else:
            _untold.discard(self)

    def _call_all(self, transitions: list[Transition], batch: tuple[Record, ...]) -> None:
        """In a worker."""
        for hook, implementation in tuple(self._implementations):
            if hook == "records" and batch:
                self._call(implementation, {"machine": self._machine, "batch": batch})
            elif hook == "state_changed":
                for transition in transitions:
                    if not self._call(implementation, {"machine": self._machine, "transition": transition}):
                        break

    def _call(self, implementation: Implementation, arguments: dict[str, object]) -> bool:
        function: Callable[..., object] = implementation.function
        try:
            function(*(arguments[name] for name in implementation.arguments))
        except BaseException:
            _LOGGER.exception(
                "%s: observer %r raised and is not called again for this machine",
                self._name,
                implementation.plugin,
            )
            self._implementations = [
                (hook, other) for hook, other in self._implementations if other is not implementation
            ]
            return False
        return True
