"""Every way in which a launch comes to nothing: what the machine ends as, and who is told how."""

import signal
import time
from collections.abc import Iterator

import pytest

from tests.endings import (
    LAUNCH_FAILURES,
    MakeGuest,
    NoGood,
    assert_ended,
    assert_no_note_of,
    be_silent,
    guests,
    spoiler,
)
from tests.waiting import SLACK, InThread, until
from vmfsm import LaunchError, Machine, MachineTimeout, PluginError, State


@pytest.fixture
def guest(qemu: str) -> Iterator[MakeGuest]:
    """Makes machines with the tiny guest."""
    with guests(qemu) as make:
        yield make


def fail(vm: Machine, name: str) -> BaseException:
    failure = LAUNCH_FAILURES[name]
    error = failure.come(vm)
    assert_ended(vm, failure.state, failure.reason, failure.status)
    assert [t.dest for t in vm.history] == [State.LAUNCHING, State.QUITTING, failure.state]
    if isinstance(error, LaunchError):
        assert (error.machine, error.state, error.errors) == (vm.name, failure.state, ())
        assert error.command == vm.command
        assert error.exit_status == failure.status
    vm.shutdown()  # neither is there anything left, nor is it told twice
    vm.kill()
    with vm:
        pass
    assert_ended(vm, failure.state, failure.reason, failure.status)
    return error


def test_qemu_ended(guest: MakeGuest) -> None:
    error = fail(guest(), "bad-option")
    assert isinstance(error, LaunchError)
    said = "-no-such-option: invalid option"
    assert said in str(error)
    assert said in error.output
    assert said in error.evidence.output
    assert "-no-such-option" in error.command


def test_silent(guest: MakeGuest) -> None:
    began = time.monotonic()
    error = fail(guest(), "silent")
    assert 1 <= time.monotonic() - began < 1 + SLACK
    assert isinstance(error, LaunchError)
    timeout = error.__cause__
    assert isinstance(timeout, MachineTimeout)
    assert (timeout.operation, timeout.timeout) == ("launch", 1)


def test_hook_raised(guest: MakeGuest) -> None:
    error = fail(guest(), "hook")
    assert isinstance(error, LaunchError)
    plugin_error = error.__cause__
    assert isinstance(plugin_error, PluginError)
    assert (plugin_error.plugin, plugin_error.hook) == ("spoiler", "post_launch")
    assert type(plugin_error.__cause__) is NoGood


def test_ctrl_c(guest: MakeGuest) -> None:
    assert type(fail(guest(), "ctrl-c")) is KeyboardInterrupt


def test_a_warning_is_not_what_it_failed_for(qemu: str) -> None:
    vm = Machine(qemu, ["-cpu", "qemu64,+vmx", "-accel", "tcg", "-device", "no-such-device"])
    with pytest.raises(LaunchError, match=r"QEMU ended with status 1: .*no-such-device") as caught:
        vm.launch()
    assert caught.value.output.index(": warning: ") < caught.value.output.index("no-such-device")


@pytest.mark.parametrize("call", ["shutdown", "kill"])
def test_cancelled(guest: MakeGuest, call: str) -> None:
    error = fail(guest(), f"cancelled-by-{call}")
    assert isinstance(error, LaunchError)
    assert f"cancelled by {call}()" in str(error)


def test_wait_tells_a_watcher(guest: MakeGuest) -> None:
    vm = guest()
    spoiler(vm).planning = be_silent
    launching = InThread(vm.launch)
    until(lambda: vm.pid)
    watcher = InThread(vm.wait)
    vm.shutdown()
    launching.join()
    assert watcher.result() == -signal.SIGTERM


def test_in_a_block(guest: MakeGuest) -> None:
    with pytest.raises(LaunchError) as caught, guest(more=["-no-such-option"]) as vm:
        vm.launch()
    assert_no_note_of(vm, caught.value)
