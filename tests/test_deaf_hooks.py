"""Async hooks that do not care for being cancelled hold up nobody, and nothing comes after them."""

import asyncio
import contextlib
import time
from collections.abc import Iterator

import pytest

from tests.conftest import MakeMachine
from vmfsm import LaunchError, Machine, MachineTimeout, PluginError, Reason, State, hookimpl

TIMEOUT = 0.3
GRACE = 5.0
"""Seconds that a call may take on a busy machine; the deaf ones take for ever."""


class Deaf:
    """Is deaf in one hook, until it is let go."""

    name = "deaf"

    def __init__(self, deaf_in: str) -> None:
        self._deaf_in = deaf_in
        self.let_go = False
        self.ended = False
        self.cancellations = 0

    @hookimpl
    async def pre_launch(self) -> None:
        await self._run("pre_launch")

    @hookimpl
    async def post_launch(self) -> None:
        await self._run("post_launch")

    @hookimpl
    async def early_cleanup(self) -> None:
        await self._run("early_cleanup")

    @hookimpl
    async def post_shutdown(self) -> None:
        await self._run("post_shutdown")

    async def _run(self, hook: str) -> None:
        if hook != self._deaf_in:
            return
        while not self.let_go:
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                self.cancellations += 1
        self.ended = True


class Witness:
    """Is called after the deaf one where things are set up, and before it where they are cleaned up."""

    name = "witness"
    after: tuple[str, ...] = ("deaf",)

    def __init__(self) -> None:
        self.calls: list[str] = []

    @hookimpl
    async def pre_launch(self) -> None:
        self.calls.append("pre_launch")

    @hookimpl
    async def post_launch(self) -> None:
        self.calls.append("post_launch")

    @hookimpl
    async def post_shutdown(self) -> None:
        self.calls.append("post_shutdown")


class LateWitness(Witness):
    """Is called before the deaf one where things are set up, and after it where they are cleaned up."""

    name = "late-witness"
    after = ()
    before = ("deaf",)


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin < seconds


def let_go(deaf: Deaf) -> None:
    deaf.let_go = True
    until = time.monotonic() + 30
    while not deaf.ended:
        assert time.monotonic() < until
        time.sleep(0.01)


def hook_errors(machine: Machine, plugin: str) -> list[object]:
    records = [record.data for record in machine.timeline if record.kind == "hook"]
    return [data["error"] for data in records if data["plugin"] == plugin and data["error"]]


@pytest.mark.parametrize("hook", ["pre_launch", "post_launch"])
def test_set_up(bare: MakeMachine, hook: str) -> None:
    deaf, witness = Deaf(hook), Witness()
    machine = bare(deaf, witness)
    with at_most(TIMEOUT + GRACE), pytest.raises(LaunchError) as caught:
        machine.launch(timeout=TIMEOUT)
    assert isinstance(caught.value.__cause__, MachineTimeout)
    assert (machine.state, machine.reason, machine.pid) == (State.FAILED, Reason.DEADLINE, None)
    assert deaf.cancellations == 1
    calls = witness.calls.copy()
    assert hook not in calls
    assert calls[-1] == "post_shutdown"
    let_go(deaf)
    machine.shutdown()
    assert witness.calls == calls, "what was given up went on"
    assert machine.exit_status is None or hook == "post_launch", "it was spawned after all"


@pytest.mark.parametrize("hook", ["early_cleanup", "post_shutdown"])
def test_clean_up(bare: MakeMachine, hook: str) -> None:
    deaf, witness, late = Deaf(hook), Witness(), LateWitness()
    machine = bare(deaf, witness, late).launch()
    with at_most(TIMEOUT + GRACE), pytest.raises(PluginError) as caught:
        machine.shutdown(timeout=TIMEOUT)
    assert (caught.value.plugin, caught.value.hook) == ("deaf", hook)
    assert isinstance(caught.value.__cause__, MachineTimeout)
    assert machine.state is not State.RUNNING
    assert deaf.cancellations == 1
    for other in (witness, late):
        assert other.calls == ["pre_launch", "post_launch", "post_shutdown"]
    let_go(deaf)
    machine.shutdown()
    for other in (witness, late):
        assert other.calls == ["pre_launch", "post_launch", "post_shutdown"], "called twice"
    assert hook_errors(machine, "deaf") == ["CancelledError"]
