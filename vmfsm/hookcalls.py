"""Calling the implementations of a hook: in order, each to its end, timed, blaming plugins by name."""

import asyncio
import functools
import inspect
import itertools
import time
from collections.abc import Callable, Iterable
from typing import Any

from .caller import Runner
from .deadline import Deadline
from .errors import MachineTimeout, PluginError, describe
from .iothread import outcome
from .plugins import Implementation, PluginSet

CLEANUP_GRACE = 0.5
"""Seconds that the async implementations of a clean-up hook have together at least, however late it is."""

Recorder = Callable[[str, dict[str, object], int], object]


class HookCalls:
    """The hooks of one launch. On the I/O thread only.

    A plain function is run by `runner` and can't be stopped; an async one is a task that is cancelled when
    it is late or when the walk goes on without it.
    """

    def __init__(
        self, machine: object, name: str, plugins: PluginSet, runner: Runner, record: Recorder
    ) -> None:
        self._machine = machine
        self._name = name
        self._plugins = plugins
        self._runner = runner
        self._record = record
        self._unfinished: asyncio.Future[BaseException | None] | None = None
        self.running: str | None = None
        """The implementation that runs now, for messages."""

    async def set_up(
        self, hook: str, before_each: Callable[[str], None], **arguments: object
    ) -> BaseException | None:
        """Run a set-up hook, up to the first implementation that raises.

        Returns a `PluginError` with what it raised as its cause, or that itself where it is no `Exception`
        (which a task may not raise: it would end the loop).
        """
        for implementation in self._plugins.implementations(hook):
            before_each(implementation.plugin)
            error = await self._call(hook, implementation, arguments, None)
            if error is not None:
                is_interrupt = not isinstance(error, Exception)
                return error if is_interrupt else self._plugin_error(implementation.plugin, hook, error)
        return None

    async def clean_up(self, hook: str, deadline: Deadline, **arguments: object) -> list[PluginError]:
        """Run all of a clean-up hook, in reverse order; what they raised."""
        errors = []
        deadline = deadline.leaving(CLEANUP_GRACE)
        for implementation in reversed(self._plugins.implementations(hook)):
            error = await self._call(hook, implementation, arguments, deadline)
            if error is not None:
                errors.append(self._plugin_error(implementation.plugin, hook, error))
        return errors

    async def cleanups(
        self, registered: Iterable[tuple[str, Callable[[], object]]], deadline: Deadline
    ) -> list[PluginError]:
        """Call the functions that plugins registered, last first; what they raised.

        Plain ones in a worker, where no signal handler's exception can keep one of them from being called.
        """
        errors: list[PluginError] = []

        def failed(plugin: str, error: BaseException) -> None:
            errors.append(self._plugin_error(plugin, "defer", error))

        def call_all(functions: Iterable[tuple[str, Callable[[], object]]]) -> None:
            for plugin, function in functions:
                try:
                    function()
                except BaseException as error:  # noqa: BLE001 - the others still have to run
                    failed(plugin, error)

        deadline = deadline.leaving(CLEANUP_GRACE)
        latest_first = list(registered)[::-1]
        for is_async, group in itertools.groupby(
            latest_first, key=lambda item: inspect.iscoroutinefunction(item[1])
        ):
            if not is_async:
                await self._runner.start(functools.partial(call_all, tuple(group)), in_worker=True).done
                continue
            for plugin, function in group:
                error = await self._await(function(), deadline, f"a clean-up of plugin {plugin!r}")
                if error is not None:
                    failed(plugin, error)
        return errors

    async def settled(self) -> None:
        """Wait for a plain function that was running when its set-up was given up; it can't be stopped."""
        if self._unfinished is not None:
            await self._unfinished
            self._unfinished = None

    async def _call(
        self,
        hook: str,
        implementation: Implementation,
        arguments: dict[str, object],
        deadline: Deadline | None,
    ) -> BaseException | None:
        names = {"machine": self._machine, **arguments}
        values = [names[name] for name in implementation.arguments]
        begin = time.monotonic()
        self.running = f"{hook} of plugin {implementation.plugin!r}"
        self._record("hook-begin", {"hook": hook, "plugin": implementation.plugin}, 200)
        error: BaseException | None = None
        try:
            if implementation.is_async:
                error = await self._await(implementation.function(*values), deadline, self.running)
            else:
                job = self._runner.start(lambda: implementation.function(*values))
                self._unfinished = job.done
                error = await asyncio.shield(job.done)
                self._unfinished = None
        finally:
            self.running = None
            data = {
                "hook": hook,
                "plugin": implementation.plugin,
                "seconds": time.monotonic() - begin,
                "error": error and describe(error),
            }
            self._record("hook", data, 300)
        return error

    async def _await(self, coroutine: object, deadline: Deadline | None, what: str) -> BaseException | None:
        """What a coroutine of a plugin raised. It is cancelled when it is late, or when the walk is."""
        assert inspect.iscoroutine(coroutine)
        task = asyncio.ensure_future(outcome(coroutine))
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=None if deadline is None else deadline.remaining())
                if deadline is not None and deadline.expired and not task.done():
                    await self._cancel(task)
                    error = MachineTimeout(
                        f"{self._name}: {what} was not over by the deadline", machine=self._name
                    )
                    error.operation, error.timeout = what, deadline.timeout
                    return error
        except asyncio.CancelledError:
            await self._cancel(task)
            raise
        return task.result()[0]

    async def _cancel(self, task: "asyncio.Task[Any]") -> None:
        task.cancel()
        await asyncio.wait({task}, timeout=CLEANUP_GRACE)

    def _plugin_error(self, plugin: str, hook: str, error: BaseException) -> PluginError:
        plugin_error = PluginError(
            f"{self._name}: {hook} of plugin {plugin!r} raised {describe(error)}", machine=self._name
        )
        plugin_error.plugin, plugin_error.hook = plugin, hook
        plugin_error.__cause__ = error
        return plugin_error
