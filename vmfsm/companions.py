"""The companions of one launch: started one after the other before QEMU, ended in reverse after it."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from .companion import Companion
from .deadline import Deadline
from .errors import PluginError, describe, printable
from .hookcalls import CLEANUP_GRACE
from .ownership import Owned
from .plan import LaunchPlan
from .reports import describe_exit

_LOGGER = logging.getLogger("vmfsm.companions")

PATIENCE = 2.0
"""Seconds that all companions together have between SIGTERM and SIGKILL."""

RunPlain = Callable[[Callable[[], object]], Coroutine[Any, Any, BaseException | None]]


class Companions:
    """On the I/O thread only.

    :param run_plain: runs a plain function where plain hooks run, and returns what it raised.
    :param record: adds to the timeline.
    :param lost: called when one that was ready has ended, for whatever reason.
    """

    def __init__(
        self,
        machine: str,
        run_plain: RunPlain,
        record: Callable[[str, dict[str, object], int], object],
        lost: Callable[[Companion], object],
    ) -> None:
        self._machine = machine
        self._run_plain = run_plain
        self._record = record
        self._lost = lost
        self._started: list[Companion] = []
        self._ready: set[Companion] = set()
        self.starting: str | None = None
        """What is waited for now, for messages."""

    async def start(self, plan: LaunchPlan, owned: Owned) -> BaseException | None:
        """Start those of the plan, each when the one before it is ready; why that failed, if it did.

        :param owned: whose they are.
        :returns: a `PluginError`, or what a function raised where that is no `Exception` (Ctrl-C, say).
        """
        if plan.companions:
            plan.on_evidence(self._evidence)
        for companion in plan.companions:
            self.starting = f"{companion.title} is not ready ({companion.awaited})"
            try:
                await self._start(companion, plan, owned)
            except BaseException as error:  # the system's, or whatever a plugin's function raised
                task = asyncio.current_task()
                if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                    raise  # it is this task that is cancelled, and no function has raised it
                if not isinstance(error, Exception | asyncio.CancelledError):
                    return error
                was_started = companion in self._started
                failed = "cannot say whether it is ready" if was_started else "could not be started"
                return companion_error(self._machine, companion, f"{failed}: {describe(error)}", error)
            if companion not in self._ready:
                return ended_error(self._machine, companion, "before it was ready")
        self.starting = None
        return None

    async def _start(self, companion: Companion, plan: LaunchPlan, owned: Owned) -> None:
        began = time.monotonic()
        companion.spawn(
            plan.log_path(f"{self._machine}-{companion.name}.log"), owned.environment, self._ended
        )
        self._started.append(companion)
        if companion.pid is not None:
            owned.has_companion(companion.pid)
        self._record(
            "companion",
            {"companion": companion.name, "pid": companion.pid, "command": companion.command},
            1_000,
        )
        if await companion.until_ready(self._call):
            self._ready.add(companion)
            seconds = time.monotonic() - began
            self._record("companion-ready", {"companion": companion.name, "seconds": seconds}, 200)

    async def _call(self, function: Callable[[], object]) -> object:
        returned: list[object] = []

        def call() -> object:
            returned.append(function())
            return returned[0]  # a coroutine, say, which is refused

        error = await self._run_plain(call)
        if error is not None:
            raise error
        return returned[0]

    def _ended(self, companion: Companion) -> None:
        self._record("companion-exit", {"companion": companion.name, "status": companion.exit_status}, 200)
        if companion in self._ready:
            self._lost(companion)

    def _evidence(self) -> dict[str, object]:
        outputs = {companion.name: companion.output for companion in self._started}
        return {"companions": {name: output for name, output in outputs.items() if output}}

    async def stop(self, deadline: Deadline, *, at_once: bool) -> None:
        """End them all, the last one first, and return when they are reaped."""
        if not self._started:
            return
        self.starting = None
        limit = Deadline(0 if at_once else PATIENCE, deadline.clock)
        for left in range(len(self._started), 0, -1):
            companion = self._started[left - 1]
            # A share for each, so that one that is deaf does not cost the others their SIGTERM.
            patience = limit.remaining() or 0.0
            share = min(patience / left, deadline.leaving(CLEANUP_GRACE).remaining() or PATIENCE)
            if not await companion.end(limit, patience - share) and not at_once:
                _LOGGER.warning("%s: companion %r ignored SIGTERM", self._machine, companion.name)
            if not companion.has_ended:
                _LOGGER.error(
                    "%s: companion %r (pid %s) has not ended after SIGKILL: stuck in the kernel",
                    self._machine,
                    companion.name,
                    companion.pid,
                )


def companion_error(
    machine: str, companion: Companion, what: str, cause: BaseException | None = None
) -> PluginError:
    """What is wrong with a companion, for who uses the plugin that asked for it."""
    error = PluginError(f"{machine}: {companion.title} {what}", machine=machine)
    error.plugin, error.hook = companion.plugin, "companion"
    error.__cause__ = cause
    return error


def ended_error(machine: str, companion: Companion, when: str) -> PluginError:
    """How a companion ended, and its last words."""
    said = printable(companion.output.rstrip().rpartition("\n")[2])
    what = f"{describe_exit(companion.exit_status)} {when}{said and f': {said}'}"
    return companion_error(machine, companion, what)
