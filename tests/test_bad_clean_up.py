"""A clean-up hook that raises changes no ending, and somebody is told."""

import signal
from collections.abc import Iterator

import pytest

from tests.endings import (
    ENDINGS,
    LAUNCH_FAILURES,
    TIMEOUT,
    Ending,
    MakeGuest,
    NoGood,
    assert_ended,
    be_no_good,
    be_silent,
    guests,
    spoiler,
    stop_process,
    up,
)
from tests.waiting import InThread, until
from vmfsm import AbnormalExit, LaunchError, Machine, PluginError, Reason, State, VMError


@pytest.fixture
def guest(qemu: str) -> Iterator[MakeGuest]:
    """Makes machines with the tiny guest."""
    with guests(qemu) as make:
        yield make


def assert_blames_spoiler(error: BaseException) -> None:
    assert isinstance(error, PluginError)
    assert (error.plugin, error.hook) == ("spoiler", "early_cleanup")
    assert type(error.__cause__) is NoGood


def spoil_clean_up(vm: Machine) -> None:
    spoiler(vm).quitting = be_no_good


def end(vm: Machine, ending: Ending) -> None:
    ending.come(vm)
    vm.wait(TIMEOUT)


def test_clean_up_that_raises_after_a_wedged_qemu(guest: MakeGuest) -> None:
    vm = up(guest)
    spoil_clean_up(vm)
    stop_process(vm.pid)
    with pytest.raises(AbnormalExit) as caught:
        vm.shutdown(timeout=1)
    (also,) = caught.value.errors
    assert_blames_spoiler(also)
    assert_ended(vm, State.FAILED, Reason.WEDGED, -signal.SIGKILL)


@pytest.mark.parametrize("name", [name for name, end in ENDINGS.items() if end.reason is not Reason.WEDGED])
def test_clean_up_that_raises_changes_no_ending(guest: MakeGuest, name: str) -> None:
    ending = ENDINGS[name]
    vm = up(guest, ending)
    spoil_clean_up(vm)
    with pytest.raises(VMError) as caught:
        end(vm, ending)
    assert_ended(vm, ending.state, ending.reason, ending.status)
    if ending.raised:
        assert type(caught.value) is AbnormalExit
        (also,) = caught.value.errors
        assert_blames_spoiler(also)
        assert any("no good" in note for note in caught.value.__notes__)
    else:
        assert_blames_spoiler(caught.value)
    vm.shutdown()


@pytest.mark.parametrize("name", [name for name in LAUNCH_FAILURES if name != "cancelled-by-kill"])
def test_clean_up_that_raises_changes_no_failed_launch(guest: MakeGuest, name: str) -> None:
    vm, failure = guest(), LAUNCH_FAILURES[name]
    spoil_clean_up(vm)
    error = failure.come(vm)
    assert_ended(vm, failure.state, failure.reason, failure.status)
    if name != "ctrl-c":
        assert type(error) is LaunchError
        (also,) = error.errors
        assert_blames_spoiler(also)


def test_clean_up_that_raises_after_a_launch_was_killed(guest: MakeGuest) -> None:
    vm = guest()
    spoil_clean_up(vm)
    spoiler(vm).planning = be_silent
    launching = InThread(vm.launch)
    until(lambda: vm.pid)
    with pytest.raises(PluginError) as caught:
        vm.kill()
    assert_blames_spoiler(caught.value)
    launching.join()
    assert isinstance(launching.error, LaunchError)
    (also,) = launching.error.errors
    assert_blames_spoiler(also)
    assert_ended(vm, State.STOPPED, Reason.KILLED, -signal.SIGKILL)
