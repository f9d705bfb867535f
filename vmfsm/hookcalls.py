"""Calling the implementations of a hook: in order, each to its end, timed, blaming plugins by name."""

import asyncio
import collections
import functools
import inspect
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from typing import Any

from .caller import Runner
from .deadline import Deadline
from .errors import MachineTimeout, PluginError, describe
from .iothread import outcome
from .plugins import Implementation, PluginSet

CLEANUP_GRACE = 0.5
"""Seconds that the async implementations of a clean-up hook have together at least, however late it is."""

Recorder = Callable[[str, dict[str, object], int], object]
Call = Callable[[], Coroutine[Any, Any, BaseException | None]]


class HookCalls:
    """The hooks of one launch. On the I/O thread only.

    A plain function is run by `runner` and can't be stopped; an async one is cancelled when it is late or
    when the walk goes on without it.
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
        self.ended: list[dict[str, object]] = []
        """Those that have ended: what their records say."""

    async def set_up(
        self, hook: str, before_each: Callable[[str], None], **arguments: object
    ) -> BaseException | None:
        """Run a set-up hook, up to the first implementation that raises; cancelling this cancels that.

        Returns a `PluginError` with what it raised as its cause, or that itself where it is no `Exception`
        (which a task may not raise: it would end the loop).
        """
        for implementation in self._plugins.implementations(hook):
            before_each(implementation.plugin)
            error = await self._call(hook, implementation, arguments)
            if error is not None:
                is_interrupt = not isinstance(error, Exception)
                return error if is_interrupt else self._plugin_error(implementation.plugin, hook, error)
        return None

    def has(self, hook: str) -> bool:
        """Whether any plugin implements it."""
        return bool(self._plugins.implementations(hook))

    async def clean_up(self, hook: str, deadline: Deadline, **arguments: object) -> list[PluginError]:
        """Run all of a clean-up hook, in reverse order; what they raised."""
        implementations = self._plugins.implementations(hook)
        calls = [
            (one.plugin, functools.partial(self._call, hook, one, arguments))
            for one in reversed(implementations)
        ]
        onlookers = {one.plugin for one in implementations if one.looks_on}
        return await self._call_all(hook, calls, deadline, onlookers)

    async def cleanups(
        self, registered: Sequence[tuple[str, Callable[[], object]]], deadline: Deadline
    ) -> list[PluginError]:
        """Call the functions that plugins registered, last first; what they raised.

        Plain ones in a worker, where no signal handler's exception can keep one of them from being called.
        """
        calls = [
            (plugin, functools.partial(self._call_registered, plugin, function))
            for plugin, function in reversed(registered)
        ]
        return await self._call_all("defer", calls, deadline)

    async def settled(self) -> None:
        """Wait for a plain function that was running when its set-up was given up; it can't be stopped."""
        if self._unfinished is not None:
            await self._unfinished
            self._unfinished = self.running = None

    async def _call_all(
        self,
        hook: str,
        calls: Iterable[tuple[str, Call]],
        deadline: Deadline,
        onlookers: Collection[str] = (),
    ) -> list[PluginError]:
        """Make all the calls, whatever they raise, by turns. One that is late is cancelled.

        That is an error, but of onlookers, whose being late leaves nothing of the machine undone.
        In one task, for each costs turns of the loop; after one that was cancelled in another.
        """
        errors: list[PluginError] = []
        left = collections.deque(calls)
        deadline = deadline.leaving(CLEANUP_GRACE)

        async def call_those_left() -> None:
            while left:
                plugin, call = left[0]
                try:
                    error = await call()
                except Exception as raised:  # noqa: BLE001 - a call that could not even be made
                    error = raised
                left.popleft()
                if error is not None:
                    errors.append(self._plugin_error(plugin, hook, error))

        while left:
            task = asyncio.ensure_future(call_those_left())
            if not await self._ends_in_time(task, deadline):
                plugin, _ = left.popleft()
                if plugin not in onlookers:
                    errors.append(self._plugin_error(plugin, hook, self._late(deadline)))
                task.cancel()
                await asyncio.wait({task}, timeout=CLEANUP_GRACE)
        return errors

    async def _ends_in_time(self, task: "asyncio.Task[None]", deadline: Deadline) -> bool:
        """Wait for `task`, to the deadline, which does not count while a plain function runs."""
        await asyncio.sleep(0)  # mostly it is done by then, and `asyncio.wait` would take two turns more
        while not task.done():
            plain = self._unfinished
            if plain is None:
                await deadline.first({task})
            else:
                steps: set[asyncio.Future[Any]] = {task, plain}
                await asyncio.wait(steps, return_when=asyncio.FIRST_COMPLETED)
                deadline = deadline.leaving(CLEANUP_GRACE)  # what it took is not the others' fault
            if deadline.expired and self._unfinished is None and not task.done():
                return False
        return True

    async def _call(
        self, hook: str, implementation: Implementation, arguments: dict[str, object]
    ) -> BaseException | None:
        names = {"machine": self._machine, **arguments}
        values = [names[name] for name in implementation.arguments]
        begin = time.monotonic()
        self.running = f"{hook} of plugin {implementation.plugin!r}"
        self._record("hook-begin", {"hook": hook, "plugin": implementation.plugin}, 200)
        error: BaseException | None = None
        try:
            if implementation.is_async:
                error = await _await(implementation.function(*values))
            else:
                error = await self.run_plain(lambda: implementation.function(*values))
        except asyncio.CancelledError as cancelled:
            error = cancelled
            raise
        finally:
            if self._unfinished is None:  # else it runs still, though nobody awaits it
                self.running = None
            data = {
                "hook": hook,
                "plugin": implementation.plugin,
                "seconds": time.monotonic() - begin,
                "error": error and describe(error),
            }
            self.ended.append(data)
            self._record("hook", data, 300)
        return error

    async def _call_registered(self, plugin: str, function: Callable[[], object]) -> BaseException | None:
        self.running = f"a clean-up of plugin {plugin!r}"
        try:
            if inspect.iscoroutinefunction(function):
                return await _await(function())
            return await self.run_plain(function, in_worker=True)
        finally:
            self.running = None

    async def run_plain(
        self, function: Callable[[], object], *, in_worker: bool = False
    ) -> BaseException | None:
        """Run a plain function, which nothing can stop; what it raised."""
        self._unfinished = self._runner.start(function, in_worker=in_worker).done
        error = await asyncio.shield(self._unfinished)
        self._unfinished = None
        return error

    def _late(self, deadline: Deadline) -> MachineTimeout:
        error = MachineTimeout(
            f"{self._name}: {self.running} was not over by the deadline", machine=self._name
        )
        error.operation, error.timeout = self.running or "", deadline.timeout
        return error

    def _plugin_error(self, plugin: str, hook: str, error: BaseException) -> PluginError:
        plugin_error = PluginError(
            f"{self._name}: {hook} of plugin {plugin!r} raised {describe(error)}", machine=self._name
        )
        plugin_error.plugin, plugin_error.hook = plugin, hook
        plugin_error.__cause__ = error
        return plugin_error


async def _await(coroutine: object) -> BaseException | None:
    """What a coroutine of a plugin raised.

    :raises asyncio.CancelledError: when this task was cancelled, whatever the plugin made of that.
    """
    assert inspect.iscoroutine(coroutine)
    error, _ = await outcome(coroutine)
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
    return error
