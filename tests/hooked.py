"""Plugins whose hooks note that they ran, and do what a test says."""

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from vmfsm import LaunchPlan, Machine, Reason, State, hookimpl
from vmfsm.hooks import LIFECYCLE_HOOKS

Does = Callable[[Machine], Any]


class Ran(NamedTuple):
    """A hook that ran."""

    plugin: str
    hook: str
    thread: threading.Thread
    alive: bool
    """QEMU was."""


class Journal(list[Ran]):
    """What ran, in order, over all plugins of a test."""

    def of(self, hook: str) -> str:
        """The plugins whose implementations of `hook` ran, as one word."""
        return "".join(ran.plugin for ran in self if ran.hook == hook)

    def hooks(self) -> list[str]:
        """The hooks that ran, each once for a row of calls."""
        hooks = [ran.hook for ran in self]
        return [hook for number, hook in enumerate(hooks) if hooks[number - 1 : number] != [hook]]


class _Noting:
    def __init__(self, name: str, journal: Journal, **does: Does) -> None:
        self.name = name
        self.journal = journal
        self.does = does

    def note(self, hook: str, machine: Machine) -> Any:
        self.journal.append(
            Ran(self.name, hook, threading.current_thread(), machine.pid is not None),
        )
        return self.does[hook](machine) if hook in self.does else None

    def defer(self, machine: Machine, plan: LaunchPlan) -> None:
        plan.defer(lambda: self.note("defer", machine))


class Plain(_Noting):
    """All hooks as plain functions."""

    @hookimpl
    def pre_launch(self, machine: Machine, plan: LaunchPlan) -> None:
        self.defer(machine, plan)
        self.note("pre_launch", machine)

    @hookimpl
    def post_launch(self, machine: Machine) -> None:
        self.note("post_launch", machine)

    @hookimpl
    def early_cleanup(self, machine: Machine) -> None:
        self.note("early_cleanup", machine)

    @hookimpl
    def post_shutdown(self, machine: Machine) -> None:
        self.note("post_shutdown", machine)


class Async(_Noting):
    """All hooks as coroutine functions; what a test says may be one, too."""

    @hookimpl
    async def pre_launch(self, machine: Machine, plan: LaunchPlan) -> None:
        self.defer(machine, plan)
        await self.perform("pre_launch", machine)

    @hookimpl
    async def post_launch(self, machine: Machine) -> None:
        await self.perform("post_launch", machine)

    @hookimpl
    async def early_cleanup(self, machine: Machine) -> None:
        await self.perform("early_cleanup", machine)

    @hookimpl
    async def post_shutdown(self, machine: Machine) -> None:
        await self.perform("post_shutdown", machine)

    async def perform(self, hook: str, machine: Machine) -> None:
        result = self.note(hook, machine)
        if inspect.iscoroutine(result):
            await result


def raising(error: BaseException) -> Does:
    def raise_it(machine: Machine) -> None:
        raise error

    return raise_it


class Blocked:
    """A plain hook that does not return before it is let go."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.go = threading.Event()

    def __call__(self, machine: Machine) -> None:
        self.began.set()
        assert self.go.wait(60)


class Endless:
    """An async hook that only a cancellation ends."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.cancelled = threading.Event()

    async def __call__(self, machine: Machine) -> None:
        self.begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


@contextlib.contextmanager
def released(blocked: Blocked) -> Iterator[None]:
    """Let it go, whatever becomes of the test."""
    try:
        yield
    finally:
        blocked.go.set()


Kind = type[Plain] | type[Async]


def three(journal: Journal, kind: Kind = Plain, **does: Does) -> tuple[Plain | Async, ...]:
    """Plugins a, b and c, in this order; b does what is said."""
    return Plain("a", journal), kind("b", journal, **does), Async("c", journal)


def assert_cleaned_up(journal: Journal, deferred: str = "cba") -> None:
    """Everything for cleaning up ran once, in reverse order, after everything else."""
    assert journal.of("early_cleanup") == "cba"
    assert journal.of("post_shutdown") == "cba"
    assert journal.of("defer") == deferred
    assert journal.hooks()[-3:] == ["early_cleanup", "post_shutdown", "defer"]
    assert [ran.alive for ran in journal if ran.hook in {"post_shutdown", "defer"}].count(True) == 0


def assert_works(machine: Machine, journal: Journal) -> None:
    """A launch and a shutdown with nothing special about them."""
    for name in "abc":
        machine.plugin(name).does = {}
    journal.clear()
    machine.launch()
    machine.shutdown()
    assert (machine.state, machine.reason) == (State.STOPPED, Reason.REQUESTED)
    assert journal.hooks() == [*LIFECYCLE_HOOKS, "defer"]
    assert "".join(ran.plugin for ran in journal) == "abcabccbacbacba"
