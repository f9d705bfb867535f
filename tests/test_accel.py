"""`accel`: what is put on the command line, and how the choice of the best one ends."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.posing import DIE, HANG, Pose, wait_for
from tests.waiting import InThread, until
from vmfsm import ConfigError, LaunchError, Machine, Reason, State, capabilities
from vmfsm.testing import GUEST_ARGS

pytestmark = pytest.mark.usefixtures("qemu")


@pytest.mark.parametrize("value", ["", 5, b"tcg", True, "a\0b", ["tcg"]])
def test_what_is_no_accelerator(qemu: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        Machine(qemu, accel=value)  # type: ignore[arg-type]
    assert caught.value.field == "accel"


def test_the_best_one(qemu: str) -> None:
    best = capabilities(qemu).best
    assert best is not None
    with Machine(qemu, GUEST_ARGS, accel="best") as vm:
        assert "-accel" not in vm.command
        vm.launch()
        assert vm.command[:5] == (qemu, "-display", "none", "-accel", best)
        vm.console.expect("ready")
        vm.console.sendline("ping")
        vm.console.expect("pong")
        vm.shutdown()
        vm.launch()
        assert vm.command.count("-accel") == 1


def test_as_it_is_given(qemu: str) -> None:
    with Machine(qemu, [*GUEST_ARGS, "-display", "none"], accel="tcg,thread=single", display=None) as vm:
        vm.launch()
        assert vm.command[:3] == (qemu, "-accel", "tcg,thread=single")


def test_none(qemu: str) -> None:
    with Machine(qemu, GUEST_ARGS) as vm:
        vm.launch()
        assert "-accel" not in vm.command


def test_it_is_asked_once_for_many_machines(posing: Pose) -> None:
    fake = posing(["tcg"])
    for _ in range(2):
        with Machine(fake.path, GUEST_ARGS, accel="best") as vm:
            vm.launch()
    assert fake.runs.count("-accel help") == 1


def test_none_works(posing: Pose) -> None:
    fake = posing(["odd"], odd=f"if '-bios' in args: {DIE}")
    vm = Machine(fake.path, GUEST_ARGS, accel="best")
    with pytest.raises(LaunchError, match=r"no accelerator of .* works here \(odd: .*it breaks"):
        vm.launch()
    assert (vm.state, vm.reason, vm.pid) == (State.FAILED, Reason.LAUNCH_ERROR, None)
    fake.write(["tcg"])
    vm.launch()
    vm.shutdown()


def test_it_cannot_be_found_out(posing: Pose) -> None:
    vm = Machine(posing(["tcg"], tcg=DIE).path, accel="best")
    with pytest.raises(LaunchError, match=r"cannot tell what .* it breaks"):
        vm.launch()
    assert vm.reason is Reason.LAUNCH_ERROR


def test_the_deadline(posing: Pose) -> None:
    vm = Machine(posing(["tcg"], on_help=HANG).path, accel="best")
    with pytest.raises(LaunchError, match=r"not up after 0\.5 s: the choice of an accelerator is running"):
        vm.launch(timeout=0.5)
    assert (vm.state, vm.reason) == (State.FAILED, Reason.DEADLINE)


def test_no_time_passes_while_it_is_held(posing: Pose, tmp_path: Path) -> None:
    go = tmp_path / "go"
    fake = posing(["tcg"], on_help=wait_for(go))
    vm = Machine(fake.path, GUEST_ARGS, accel="best")
    vm.hold("a look")
    launch = InThread(vm.launch, timeout=0.5)
    until(lambda: fake.runs)
    begin = time.monotonic()
    until(lambda: launch.over or time.monotonic() > begin + 1)
    go.touch()
    launch.result()
    vm.release()
    vm.shutdown()


@pytest.mark.parametrize("call", ["kill", "shutdown"])
def test_it_is_cancelled(posing: Pose, call: str) -> None:
    fake = posing(["tcg"], on_help=HANG)
    vm = Machine(fake.path, accel="best")
    launch = InThread(vm.launch, timeout=600)
    until(lambda: fake.runs)
    getattr(vm, call)(timeout=600)
    launch.join()
    assert isinstance(launch.error, LaunchError)
    assert f"cancelled by {call}()" in str(launch.error)
    assert vm.state is State.STOPPED


def test_one_that_waits_for_another_ones_choice_is_cancelled(posing: Pose, tmp_path: Path) -> None:
    go = tmp_path / "go"
    fake = posing(["tcg"], on_help=wait_for(go))
    asking = InThread(capabilities, fake.path)
    until(lambda: fake.runs)
    first = Machine(fake.path, GUEST_ARGS, accel="best")
    second = Machine(fake.path, GUEST_ARGS, accel="best")
    launches = [InThread(vm.launch) for vm in (first, second)]
    until(lambda: first.state is second.state is State.LAUNCHING)
    second.kill()
    assert isinstance(launches[1].join().error, LaunchError)
    assert not launches[0].over
    go.touch()
    launches[0].result()
    first.shutdown()
    assert asking.result().best == "tcg"


def test_an_interrupt(posing: Pose) -> None:
    fake = posing(["tcg"], on_help=HANG)
    vm = Machine(fake.path, accel="best")

    def interrupt() -> None:
        until(lambda: fake.runs)
        os.kill(os.getpid(), signal.SIGINT)

    interrupting = InThread(interrupt)
    with pytest.raises(KeyboardInterrupt):
        vm.launch()
    interrupting.join()
    assert (vm.state, vm.reason) == (State.FAILED, Reason.LAUNCH_ERROR)
