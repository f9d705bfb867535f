"""Hooks: when, where, in which order and with what they are called."""

import functools
import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from tests.conftest import MakeMachine
from tests.hooked import Async, Does, Journal, Kind, Plain, assert_cleaned_up, assert_works, three
from tests.waiting import InThread
from vmfsm import (
    AbnormalExit,
    LaunchError,
    LaunchPlan,
    Machine,
    PluginError,
    Reason,
    State,
    TransitionError,
    hookimpl,
)
from vmfsm.hooks import LIFECYCLE_HOOKS

SET_UP = ("pre_launch", "post_launch")
CLEAN_UP = ("early_cleanup", "post_shutdown")
KINDS = pytest.mark.parametrize("kind", [Plain, Async])


def test_order_and_what_is_alive(bare: MakeMachine) -> None:
    journal = Journal()
    machine = bare(*reversed(three(journal)))
    assert_works(machine, journal)
    alive = {ran.hook: ran.alive for ran in journal}
    assert alive == {
        "pre_launch": False,
        "post_launch": True,
        "early_cleanup": True,
        "post_shutdown": False,
        "defer": False,
    }
    assert_works(machine, journal)


def test_which_threads(bare: MakeMachine) -> None:
    journal = Journal()
    machine = bare(Plain("p", journal), Async("q", journal))
    launcher = InThread(lambda: machine.launch() and threading.current_thread()).result()
    machine.shutdown()
    threads = {(ran.plugin, ran.hook): ran.thread for ran in journal}
    here = threading.current_thread()
    assert [threads["p", hook] for hook in LIFECYCLE_HOOKS] == [launcher, launcher, here, here]
    assert {threads["q", hook].name for hook in LIFECYCLE_HOOKS} == {"vmfsm-io"}


def test_unasked_endings_are_cleaned_up_by_workers(bare: MakeMachine) -> None:
    journal = Journal()
    machine = bare(*three(journal)).launch()
    assert machine.pid is not None
    os.kill(machine.pid, signal.SIGKILL)
    with pytest.raises(AbnormalExit):
        machine.wait(timeout=30)
    assert (machine.state, machine.reason) == (State.FAILED, Reason.QEMU_SIGNAL)
    assert_cleaned_up(journal)
    names = {ran.thread.name for ran in journal if ran.hook in CLEAN_UP and ran.plugin == "a"}
    assert all(name.startswith("vmfsm-worker-") for name in names)
    assert [ran.alive for ran in journal if ran.hook == "early_cleanup"] == [False] * 3


# -- deferred clean-ups -------------------------------------------------------------------------------------


class Deferring:
    name = "deferring"

    def __init__(self) -> None:
        self.called: list[int] = []

    @hookimpl
    async def pre_launch(self, machine: Machine, plan: LaunchPlan) -> None:
        def cleanup(number: int) -> None:
            self.called.append(number)
            assert machine.pid is None
            if number % 2:
                raise ValueError(number)

        for number in range(5):
            plan.defer(functools.partial(cleanup, number))


def test_deferred_clean_ups_run_last_first_whatever_they_raise(bare: MakeMachine) -> None:
    plugin = Deferring()
    machine = bare(plugin).launch()
    with pytest.raises(PluginError) as caught:
        machine.shutdown()
    assert plugin.called == [4, 3, 2, 1, 0]
    causes = [error.__cause__ for error in (caught.value, *caught.value.errors)]
    assert [cause.args for cause in causes if cause is not None] == [(3,), (1,)]
    assert {caught.value.plugin, caught.value.hook} == {"deferring", "defer"}
    with pytest.raises(PluginError):
        machine.launch().shutdown()
    assert plugin.called == [4, 3, 2, 1, 0] * 2, "those of one launch are not those of the next"


def test_deferred_clean_ups_run_where_there_was_no_process(bare: MakeMachine) -> None:
    plugin = Deferring()
    machine = bare(plugin, Spoiling())
    with pytest.raises(LaunchError) as caught:
        machine.launch()
    assert plugin.called == [4, 3, 2, 1, 0]
    assert machine.pid is None
    assert machine.exit_status is None
    assert len(caught.value.errors) == 2


class Spoiling:
    """Plans what can't be started."""

    name = "spoiling"

    @hookimpl
    def pre_launch(self, plan: LaunchPlan) -> None:
        plan.wrapper.insert(0, "/nonexistent/wrapper")


# -- re-entry -----------------------------------------------------------------------------------------------

CALLS: dict[str, Callable[[Machine], object]] = {
    "launch": lambda machine: machine.launch(),
    "shutdown": lambda machine: machine.shutdown(),
    "kill": lambda machine: machine.kill(),
    "wait": lambda machine: machine.wait(),
}


@KINDS
@pytest.mark.parametrize("hook", LIFECYCLE_HOOKS)
def test_a_hook_may_not_wait_for_itself(bare: MakeMachine, hook: str, kind: Kind) -> None:
    refused = {}

    def try_all(machine: Machine) -> None:
        before = machine.state, machine.history
        for name, call in CALLS.items():
            try:
                call(machine)
            except TransitionError as error:
                refused[name] = error
        assert (machine.state, machine.history) == before

    journal = Journal()
    machine = bare(*three(journal, kind, **{hook: try_all}))
    machine.launch()
    machine.shutdown()
    assert list(refused) == list(CALLS)
    for name, error in refused.items():
        assert (error.event, error.machine) == (name, machine.name)
        assert name in str(error)
    assert_cleaned_up(journal)


def test_a_hook_may_use_another_machine(bare: MakeMachine) -> None:
    other = bare()
    does: dict[str, Does] = {
        "post_launch": lambda machine: other.launch(),
        "early_cleanup": lambda machine: other.kill(),
    }
    machine = bare(*three(Journal(), Plain, **does))
    machine.launch()
    assert other.pid is not None
    machine.shutdown()
    assert (other.state, other.reason) == (State.STOPPED, Reason.KILLED)


# -- arguments, and what else a hook can be -----------------------------------------------------------------


class Sparing:
    """Hooks take those arguments that they name; static and class methods are methods, too."""

    name = "sparing"

    def __init__(self) -> None:
        self.seen: list[object] = []

    @hookimpl
    def pre_launch(self, plan: LaunchPlan) -> None:
        self.seen.append(plan)

    @hookimpl
    async def post_launch(self) -> None:
        self.seen.append("nothing")

    @hookimpl
    def early_cleanup(self, machine: Machine) -> None:
        self.seen.append(machine)


def test_hooks_take_the_arguments_that_they_name(bare: MakeMachine) -> None:
    plugin = Sparing()
    machine = bare(plugin).launch()
    machine.shutdown()
    plan, nothing, given = plugin.seen
    assert isinstance(plan, LaunchPlan)
    assert (nothing, given) == ("nothing", machine)


def test_every_hook_call_is_recorded_with_its_duration(bare: MakeMachine) -> None:
    machine = bare(*three(Journal(), post_launch=lambda machine: time.sleep(0.02))).launch()
    machine.shutdown()
    begun = [r.data for r in machine.timeline if r.kind == "hook-begin"]
    ended = [r.data for r in machine.timeline if r.kind == "hook"]
    assert [(d["hook"], d["plugin"]) for d in begun] == [(d["hook"], d["plugin"]) for d in ended]
    assert len(ended) == 12
    slow = next(d["seconds"] for d in ended if (d["hook"], d["plugin"]) == ("post_launch", "b"))
    assert isinstance(slow, float)
    assert 0.02 <= slow < 10
