"""What becomes of a launch and of an ending when a hook raises, or is late."""

import asyncio
import os
import signal
import threading
import time

import pytest

from tests.conftest import MakeMachine
from tests.hooked import (
    Async,
    Blocked,
    Endless,
    Journal,
    Kind,
    Plain,
    assert_cleaned_up,
    assert_works,
    raising,
    released,
    three,
)
from tests.waiting import SLACK, InThread, until
from vmfsm import (
    AbnormalExit,
    LaunchError,
    Machine,
    MachineTimeout,
    PluginError,
    Reason,
    State,
)
from vmfsm.caller import GRACE

LATE = 3.0
"""Seconds for a launch that something then holds up: it gets to its hooks by then on a busy machine, too."""
"""Seconds beside a bound that a busy machine may take."""
SET_UP = ("pre_launch", "post_launch")
CLEAN_UP = ("early_cleanup", "post_shutdown")
KINDS = pytest.mark.parametrize("kind", [Plain, Async])


class Odd(BaseException):
    """Not an `Exception`, as Ctrl-C is not."""


# -- set-up hooks that fail ---------------------------------------------------------------------------------


def assert_set_up_stopped(journal: Journal, hook: str) -> None:
    """`b` failed in `hook`: `c` was not asked any more, everything was cleaned up."""
    if hook == "pre_launch":
        assert (journal.of("pre_launch"), journal.of("post_launch")) == ("ab", "")
        assert_cleaned_up(journal, deferred="ba")
    else:
        assert (journal.of("pre_launch"), journal.of("post_launch")) == ("abc", "ab")
        assert_cleaned_up(journal)


@KINDS
@pytest.mark.parametrize("hook", SET_UP)
def test_set_up_raises(bare: MakeMachine, hook: str, kind: Kind) -> None:
    journal, wrong = Journal(), ValueError("no good")
    machine = bare(*three(journal, kind, **{hook: raising(wrong)}))
    with pytest.raises(LaunchError) as caught:
        machine.launch()
    assert (machine.state, machine.reason) == (State.FAILED, Reason.HOOK_FAILED)
    assert machine.pid is None
    error = caught.value
    assert (error.machine, error.state, error.errors) == (machine.name, State.FAILED, ())
    plugin_error = error.__cause__
    assert isinstance(plugin_error, PluginError)
    assert (plugin_error.plugin, plugin_error.hook, plugin_error.machine) == ("b", hook, machine.name)
    assert plugin_error.__cause__ is wrong
    for said in (machine.name, hook, "'b'", "ValueError: no good"):
        assert said in str(error)
    assert_set_up_stopped(journal, hook)
    assert_works(machine, journal)


@KINDS
@pytest.mark.parametrize("hook", SET_UP)
@pytest.mark.parametrize("odd", [Odd("odd"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_set_up_raises_what_is_no_exception(
    bare: MakeMachine, hook: str, kind: Kind, odd: BaseException
) -> None:
    journal = Journal()
    machine = bare(*three(journal, kind, **{hook: raising(odd)}))
    with pytest.raises(type(odd)) as caught:
        machine.launch()
    assert caught.value is odd
    assert (machine.state, machine.reason) == (State.FAILED, Reason.LAUNCH_ERROR)
    assert machine.pid is None
    assert_set_up_stopped(journal, hook)
    assert_works(machine, journal)


@pytest.mark.parametrize("hook", SET_UP)
def test_set_up_is_late(bare: MakeMachine, hook: str) -> None:
    journal, endless = Journal(), Endless()
    machine = bare(*three(journal, Async, **{hook: endless}))
    begin = time.monotonic()
    with pytest.raises(LaunchError) as caught:
        machine.launch(timeout=LATE)
    assert LATE <= time.monotonic() - begin < LATE + GRACE + SLACK
    assert (machine.state, machine.reason) == (State.FAILED, Reason.DEADLINE)
    timeout = caught.value.__cause__
    assert isinstance(timeout, MachineTimeout)
    assert (timeout.operation, timeout.timeout, timeout.state) == ("launch", LATE, State.LAUNCHING)
    assert f"{hook} of plugin 'b' is running" in str(caught.value), "it says what it was held up by"
    assert endless.cancelled.is_set()
    assert_set_up_stopped(journal, hook)
    assert_works(machine, journal)


@pytest.mark.parametrize("hook", SET_UP)
def test_a_late_plain_hook_is_waited_for_but_qemu_is_killed_on_time(bare: MakeMachine, hook: str) -> None:
    journal, blocked = Journal(), Blocked()
    machine = bare(*three(journal, Plain, **{hook: blocked}))
    with released(blocked):
        launching = InThread(machine.launch, timeout=LATE)
        assert blocked.began.wait(30)
        pid = machine.pid
        assert (pid is not None) == (hook == "post_launch")
        begin = time.monotonic()
        if pid is not None:
            until(lambda: machine.pid is None)
            assert time.monotonic() - begin < LATE + GRACE + SLACK
        time.sleep(max(0.0, begin + LATE + 0.2 - time.monotonic()))
        assert not launching.over, "its thread is in the hook"
        assert journal.of("early_cleanup") == "", "each hook has finished before the next begins"
        blocked.go.set()
        launching.join()
    assert isinstance(launching.error, LaunchError)
    assert isinstance(launching.error.__cause__, MachineTimeout)
    assert (machine.state, machine.reason) == (State.FAILED, Reason.DEADLINE)
    assert_set_up_stopped(journal, hook)
    assert_works(machine, journal)


def test_both_set_up_and_clean_up_raise(bare: MakeMachine) -> None:
    journal = Journal()
    machine = bare(
        Plain("a", journal, post_shutdown=raising(KeyError("a"))),
        Plain("b", journal, post_launch=raising(ValueError("b")), defer=raising(OSError("d"))),
        Async("c", journal, early_cleanup=raising(Odd("c"))),
    )
    with pytest.raises(LaunchError, match="ValueError: b") as caught:
        machine.launch()
    errors = caught.value.errors
    assert [(e.plugin, e.hook, type(e.__cause__)) for e in errors if isinstance(e, PluginError)] == [
        ("c", "early_cleanup", Odd),
        ("a", "post_shutdown", KeyError),
        ("b", "defer", OSError),
    ]
    notes = "\n".join(caught.value.__notes__)
    for said in ("early_cleanup of plugin 'c'", "post_shutdown of plugin 'a'", "defer of plugin 'b'"):
        assert said in notes
    assert (machine.state, machine.reason) == (State.FAILED, Reason.HOOK_FAILED)
    assert_set_up_stopped(journal, "post_launch")
    assert_works(machine, journal)


# -- clean-up hooks that fail -------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("hook", CLEAN_UP)
def test_clean_up_raises(bare: MakeMachine, hook: str, kind: Kind) -> None:
    journal, wrong = Journal(), ValueError("no good")
    machine = bare(*three(journal, kind, **{hook: raising(wrong)})).launch()
    with pytest.raises(PluginError) as caught:
        machine.shutdown()
    error = caught.value
    assert type(error) is PluginError
    assert (error.plugin, error.hook, error.machine, error.errors) == ("b", hook, machine.name, ())
    assert error.__cause__ is wrong
    assert (machine.state, machine.reason) == (State.STOPPED, Reason.REQUESTED), (
        "the ending stays what it was"
    )
    assert_cleaned_up(journal)
    machine.shutdown()  # nothing is alive, and this thread was told
    assert_works(machine, journal)


@pytest.mark.parametrize("hook", CLEAN_UP)
def test_clean_up_raises_what_is_no_exception_in_the_caller(bare: MakeMachine, hook: str) -> None:
    journal, odd = Journal(), Odd("odd")
    machine = bare(*three(journal, Plain, **{hook: raising(odd)})).launch()
    with pytest.raises(Odd) as caught:
        machine.shutdown()
    assert caught.value is odd, "it is for whoever called, as Ctrl-C is"
    assert (machine.state, machine.reason) == (State.STOPPED, Reason.REQUESTED)
    assert_cleaned_up(journal)
    assert_works(machine, journal)


@pytest.mark.parametrize("hook", CLEAN_UP)
def test_clean_up_raises_what_is_no_exception_on_the_io_thread(bare: MakeMachine, hook: str) -> None:
    journal, odd = Journal(), SystemExit(3)
    machine = bare(*three(journal, Async, **{hook: raising(odd)})).launch()
    with pytest.raises(PluginError) as caught:
        machine.shutdown()
    assert caught.value.__cause__ is odd
    assert (machine.state, machine.reason) == (State.STOPPED, Reason.REQUESTED)
    assert_cleaned_up(journal)
    assert_works(machine, journal)


@pytest.mark.parametrize("hook", CLEAN_UP)
def test_clean_up_is_late(bare: MakeMachine, hook: str) -> None:
    journal, endless = Journal(), Endless()
    machine = bare(*three(journal, Async, **{hook: endless})).launch()
    begin = time.monotonic()
    with pytest.raises(PluginError) as caught:
        machine.shutdown(timeout=2)
    assert 2 <= time.monotonic() - begin < 2 + GRACE + SLACK
    timeout = caught.value.__cause__
    assert isinstance(timeout, MachineTimeout)
    assert timeout.operation == f"{hook} of plugin 'b'"
    assert endless.cancelled.is_set()
    assert (machine.state, machine.reason) == (State.STOPPED, Reason.REQUESTED), "QEMU was healthy"
    assert_cleaned_up(journal)
    assert_works(machine, journal)


def test_all_that_clean_up_raises_is_told(bare: MakeMachine) -> None:
    journal = Journal()
    machine = bare(
        Plain("a", journal, early_cleanup=raising(KeyError("a")), defer=raising(Odd())),
        Async("b", journal, post_shutdown=raising(OSError("b"))),
        Plain("c", journal, early_cleanup=raising(ValueError("c")), defer=raising(IndexError())),
    ).launch()
    with pytest.raises(PluginError) as caught:
        machine.shutdown()
    error = caught.value
    told = [error, *error.errors]
    assert [(e.plugin, e.hook, type(e.__cause__)) for e in told if isinstance(e, PluginError)] == [
        ("c", "early_cleanup", ValueError),
        ("a", "early_cleanup", KeyError),
        ("b", "post_shutdown", OSError),
        ("c", "defer", IndexError),
        ("a", "defer", Odd),
    ]
    assert len(error.__notes__) >= 4
    assert_cleaned_up(journal)
    assert_works(machine, journal)


def test_a_bad_ending_comes_before_what_clean_up_raised(bare: MakeMachine) -> None:
    journal = Journal()
    machine = bare(*three(journal, Async, early_cleanup=raising(ValueError("no good")))).launch()
    assert machine.pid is not None
    os.kill(machine.pid, signal.SIGKILL)
    with pytest.raises(AbnormalExit) as caught:
        machine.wait(timeout=30)
    (also,) = caught.value.errors
    assert isinstance(also, PluginError)
    assert (also.plugin, also.hook) == ("b", "early_cleanup")
    assert any("no good" in note for note in caught.value.__notes__)
    assert_cleaned_up(journal)


@pytest.mark.parametrize("hook", CLEAN_UP)
def test_kill_raises_what_clean_up_raised(bare: MakeMachine, hook: str) -> None:
    journal = Journal()
    machine = bare(*three(journal, Plain, **{hook: raising(ValueError())})).launch()
    with pytest.raises(PluginError) as caught:
        machine.kill()
    assert (caught.value.plugin, caught.value.hook) == ("b", hook)
    assert (machine.state, machine.reason) == (State.STOPPED, Reason.KILLED)
    assert_cleaned_up(journal)


def test_what_is_raised_in_a_with_block_is_not_replaced(bare: MakeMachine) -> None:
    machine = bare(*three(Journal(), post_shutdown=raising(ValueError("no good"))))
    with pytest.raises(Odd) as caught, machine:
        raising(Odd())(machine.launch())
    assert any("no good" in note for note in caught.value.__notes__)
    assert machine.state is State.STOPPED


def test_a_with_block_raises_what_clean_up_raised(bare: MakeMachine) -> None:
    machine = bare(*three(Journal(), post_shutdown=raising(ValueError("no good"))))
    with pytest.raises(PluginError, match="no good"), machine:
        machine.launch()
    assert (machine.state, machine.reason) == (State.STOPPED, Reason.REQUESTED)


# -- deadlines ----------------------------------------------------------------------------------------------


def test_a_slow_plain_hook_does_not_cost_a_healthy_qemu_its_life(bare: MakeMachine) -> None:
    release = threading.Event()
    machine = bare(*three(Journal(), early_cleanup=lambda machine: release.wait(5))).launch()
    begin = time.monotonic()
    machine.shutdown(timeout=10)
    assert 5 <= time.monotonic() - begin < 10 + GRACE + SLACK
    assert (machine.state, machine.reason) == (State.STOPPED, Reason.REQUESTED)


def test_a_blocked_plain_clean_up_is_overtaken_by_the_ladder(bare: MakeMachine) -> None:
    journal, blocked = Journal(), Blocked()
    machine = bare(*three(journal, early_cleanup=blocked)).launch()
    with released(blocked):
        begin = time.monotonic()
        ending = InThread(machine.shutdown, timeout=6)
        until(lambda: machine.pid is None)
        assert time.monotonic() - begin < 6 + SLACK
        assert blocked.began.is_set()
        assert not ending.over
        assert machine.state is State.QUITTING
        blocked.go.set()
        ending.result()
    assert (machine.state, machine.reason) == (State.STOPPED, Reason.REQUESTED)
    assert_cleaned_up(journal)


def test_what_blocks_the_io_thread_keeps_nobody_else_waiting(bare: MakeMachine) -> None:
    """A deadline is watched where the caller waits, too."""
    go = threading.Event()
    blocker = bare(*three(Journal(), Async, early_cleanup=lambda machine: go.wait(60))).launch()
    other = bare().launch()

    async def nothing() -> None:
        await asyncio.Event().wait()

    try:
        blocking = InThread(blocker.shutdown)
        until(lambda: blocker.state is State.QUITTING)
        begin = time.monotonic()
        with pytest.raises(MachineTimeout) as caught:
            other.run(nothing(), timeout=0.2, operation="nothing")
        assert 0.2 <= time.monotonic() - begin < 0.2 + GRACE + SLACK
        assert (caught.value.operation, caught.value.timeout) == ("nothing", 0.2)
        assert not blocking.over
    finally:
        go.set()
    blocking.result()
    assert blocker.reason is Reason.REQUESTED
    other.shutdown()


def test_a_caller_that_gave_up_waiting_leaves_its_hooks_to_others(bare: MakeMachine) -> None:
    """The loop was blocked beyond deadline and grace: whoever called is gone, and the walk still ends."""
    go, journal = threading.Event(), Journal()
    machine = bare(*three(journal, Async, early_cleanup=lambda machine: go.wait(60))).launch()
    try:
        with pytest.raises(MachineTimeout) as caught:
            machine.shutdown(timeout=0.2)
    finally:
        go.set()
    assert caught.value.operation == "shutdown"
    assert "early_cleanup of plugin 'b' is running" in str(caught.value)
    machine.wait(timeout=30)
    assert_cleaned_up(journal)
    assert (machine.state, machine.reason) == (State.FAILED, Reason.WEDGED), "it was killed on time"
    assert_works(machine, journal)


def test_an_unlimited_shutdown_waits_for_slow_clean_up(bare: MakeMachine) -> None:
    async def slow(machine: Machine) -> None:
        await asyncio.sleep(0.5)

    journal = Journal()
    machine = bare(*three(journal, Async, early_cleanup=slow, post_shutdown=slow)).launch(timeout=None)
    machine.shutdown(timeout=None)
    assert machine.reason is Reason.REQUESTED
    assert_cleaned_up(journal)
