"""What a plugin puts on the plan may be wrong in any way: no walk breaks, nothing is left, and it is said."""

import functools
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeMachine
from tests.waiting import LIMIT
from vmfsm import LaunchError, LaunchPlan, PluginError, Reason, State, hookimpl


class Planner:
    """Does with the plan what it is told."""

    name = "planner"

    def __init__(self, do: Callable[[Any], object]) -> None:
        self._do = do

    @hookimpl
    def pre_launch(self, plan: LaunchPlan) -> None:
        self._do(plan)


class Unspeakable(Exception):
    """Cannot even be described."""

    def __str__(self) -> str:
        raise ValueError


def fail(*_: object) -> Any:
    raise ZeroDivisionError


async def takes_an_argument(_: object) -> None:
    raise AssertionError("never called")


async def close() -> None:
    raise AssertionError("never awaited")


def hidden(function: Callable[[], object]) -> object:
    return function()


@pytest.mark.parametrize(
    "do",
    [
        lambda plan: plan.on_exit(fail),
        lambda plan: plan.on_quit(fail),
        lambda plan: plan.on_evidence(fail),
        lambda plan: plan.on_evidence(lambda: {"events": 5}),
    ],
    ids=["on_exit", "on_quit", "on_evidence", "events"],
)
def test_the_ending_is_as_good(bare: MakeMachine, do: Callable[[Any], object]) -> None:
    vm = bare(Planner(do)).launch()
    vm.shutdown(timeout=LIMIT)
    assert (vm.state, vm.reason) == (State.STOPPED, Reason.REQUESTED)


@pytest.mark.parametrize(
    "do",
    [lambda plan: plan.defer(takes_an_argument), lambda plan: plan.defer(functools.partial(hidden, close))],
    ids=["arguments", "coroutine"],
)
def test_a_clean_up_that_cannot_be_called_is_collected_once(
    bare: MakeMachine, do: Callable[[Any], object]
) -> None:
    vm = bare(Planner(do)).launch()
    with pytest.raises(PluginError, match="planner") as caught:
        vm.shutdown(timeout=LIMIT)
    assert isinstance(caught.value.__cause__, TypeError)
    assert caught.value.errors == ()
    assert vm.state is State.STOPPED


@pytest.mark.parametrize(
    "broken", [{"output": "a name"}, {"env": None}, {"args": [7]}], ids=["output", "env", "args"]
)
def test_a_plan_that_cannot_be_carried_out(bare: MakeMachine, broken: Mapping[str, object]) -> None:
    def do(plan: LaunchPlan) -> None:
        for name, value in broken.items():
            setattr(plan, name, value)

    vm = bare(Planner(do))
    with pytest.raises(LaunchError):
        vm.launch(timeout=LIMIT)
    assert (vm.state, vm.reason) == (State.FAILED, Reason.LAUNCH_ERROR)


def test_an_error_that_cannot_be_described(bare: MakeMachine) -> None:
    def do(_: LaunchPlan) -> None:
        raise Unspeakable

    vm = bare(Planner(do))
    with pytest.raises(LaunchError, match="Unspeakable"):
        vm.launch(timeout=LIMIT)
    assert vm.reason is Reason.HOOK_FAILED


def test_sys_exit_in_a_task_ends_no_other_machine(tmp_path: Path, qemu: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"""
import asyncio, sys
from vmfsm import Machine, hookimpl

class Quitter:
    name = "quitter"
    @hookimpl
    async def post_launch(self):
        async def quit(): sys.exit("in a task")
        self.task = asyncio.create_task(quit())
        await asyncio.sleep(0.05)

ARGS = ["-M", "none", "-nodefaults"]
with Machine({qemu!r}, ARGS, plugins=[Quitter()]) as vm, Machine({qemu!r}, ARGS) as other:
    vm.launch(timeout=20)
    other.launch(timeout=20)
    print(other.qmp.execute("query-status", timeout=20)["running"])
print(vm.state.value, other.state.value)
"""
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.splitlines() == ["True", "stopped stopped"], done.stderr


@pytest.mark.parametrize("timeout", [1e10, sys.maxsize, 10**400, float("inf")])
def test_a_timeout_of_centuries_is_no_limit(bare: MakeMachine, timeout: float) -> None:
    begin = time.monotonic()
    vm = bare().launch(timeout=timeout)
    vm.shutdown(timeout=timeout)
    assert vm.reason is Reason.REQUESTED
    assert time.monotonic() - begin < LIMIT
