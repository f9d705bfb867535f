"""`plan.adopt`: a child that was started already is the machine's QEMU."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.conftest import MakeMachine
from tests.scripts import run_script
from tests.waiting import InThread, catches, is_alive, until
from vmfsm import ConfigError, LaunchError, LaunchPlan, Machine, Reason, State, hookimpl

QEMU = ("qemu-system-x86_64", "-M", "none", "-nodefaults", "-display", "none")
Popen = subprocess.Popen[bytes]
Start = Callable[..., Popen]


class Adopting:
    name = "adopting"

    def __init__(self, *children: Popen, then: Callable[[], object] = lambda: None) -> None:
        self.children = children
        self.then = then

    @hookimpl
    def pre_launch(self, plan: LaunchPlan) -> None:
        self.plan = plan
        for child in self.children:
            plan.adopt(child)
        self.then()


class Waiting:
    """Does not let the machine get up."""

    name = "waiting"

    @hookimpl
    def post_launch(self, machine: Machine) -> None:
        until(lambda: machine.exit_status is not None)


@pytest.fixture
def start(qemu: str) -> Iterator[Start]:
    children: list[Popen] = []

    def run(command: Sequence[str] = QEMU, **parameters: object) -> Popen:
        null = subprocess.DEVNULL
        children.append(subprocess.Popen(command, stdin=null, stdout=null, stderr=null, **parameters))  # type: ignore[call-overload]
        return children[-1]

    yield run
    for child in children:
        child.kill()
        child.wait()


@pytest.mark.parametrize("leads", [False, True])
def test_it_is_the_machines(bare: MakeMachine, start: Start, leads: bool) -> None:
    child = start(start_new_session=leads)
    adopting = Adopting(child)
    machine = bare(adopting).launch()
    assert (machine.pid, machine.command) == (child.pid, QEMU)
    assert adopting.plan.pid == child.pid
    until(lambda: catches(child.pid, signal.SIGTERM))
    machine.shutdown()
    assert (machine.state, machine.exit_status, machine.pid) == (State.STOPPED, 0, None)
    assert child.poll() == 0
    kinds = [record.kind for record in machine.timeline]
    assert "adopt" in kinds
    assert "spawn" not in kinds


@pytest.mark.parametrize("leads", [False, True])
def test_kill(bare: MakeMachine, start: Start, leads: bool) -> None:
    child = start(start_new_session=leads)
    machine = bare(Adopting(child)).launch()
    os.kill(child.pid, signal.SIGSTOP)
    machine.kill()
    assert (machine.state, machine.reason, machine.exit_status) == (State.STOPPED, Reason.KILLED, -9)
    assert child.returncode == -9


def test_its_death_is_noticed(bare: MakeMachine, start: Start) -> None:
    child = start()
    machine = bare(Adopting(child)).launch()
    waiting = InThread(machine.wait)
    until(lambda: catches(child.pid, signal.SIGTERM))
    child.terminate()
    assert waiting.result() == 0


@pytest.mark.parametrize("leads", [False, True])
def test_who_waits_for_it_too_is_told_the_same(bare: MakeMachine, start: Start, leads: bool) -> None:
    child = start(["sh", "-c", "kill -STOP $$; exit 7"], start_new_session=leads)
    machine = bare(Adopting(child)).launch()
    waiting = InThread(child.wait)
    until(lambda: Path(f"/proc/{child.pid}/stat").read_text().rpartition(") ")[2][0] == "T")
    os.kill(child.pid, signal.SIGCONT)
    assert waiting.result() == 7
    until(lambda: machine.state is State.FAILED)
    assert machine.exit_status == 7


@pytest.mark.parametrize("is_reaped", [False, True])
def test_one_that_has_ended(bare: MakeMachine, start: Start, is_reaped: bool) -> None:
    child = start(["sh", "-c", "exit 3"])
    if is_reaped:
        child.wait()
    else:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    machine = bare(Adopting(child), Waiting())
    with pytest.raises(LaunchError) as caught:
        machine.launch()
    assert caught.value.exit_status == machine.exit_status == child.returncode == 3
    assert machine.pid is None


def test_what_it_leaves_in_a_group_of_its_own(bare: MakeMachine, start: Start, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    child = start(["sh", "-c", f"sleep 1000 & echo $! > {file}; wait"], start_new_session=True)
    until(lambda: file.exists() and file.read_text())
    machine = bare(Adopting(child)).launch()
    machine.kill()
    until(lambda: not is_alive(int(file.read_text())))


def test_nobody_else_in_its_group_is_signalled(bare: MakeMachine, start: Start) -> None:
    leader = start(["sleep", "1000"], process_group=0)
    child = start(process_group=leader.pid)
    bare(Adopting(child)).launch().kill()
    assert child.returncode == -9
    assert is_alive(leader.pid)


def test_a_launch_that_fails_later_ends_it(bare: MakeMachine, start: Start) -> None:
    child = start()

    def fail() -> None:
        raise ValueError("later")

    machine = bare(Adopting(child, then=fail))
    with pytest.raises(LaunchError, match="later"):
        machine.launch()
    assert child.returncode == machine.exit_status == -9
    assert machine.state is State.FAILED


def test_a_launch_that_is_cancelled_ends_it(bare: MakeMachine, start: Start) -> None:
    child = start()
    asked: list[InThread] = []
    machine = bare(Adopting(child, then=lambda: asked.append(InThread(machine.kill))))
    launching = InThread(machine.launch)
    until(lambda: asked)
    launching.join()
    asked[0].result()
    assert machine.state is State.STOPPED
    assert child.returncode == -9


def test_bad_input(bare: MakeMachine, start: Start) -> None:
    for children in ((start(), start()), ("sleep",)):
        with pytest.raises(LaunchError) as caught:
            bare(Adopting(*children)).launch()
        cause = caught.value.__cause__
        assert cause is not None
        assert isinstance(cause.__cause__, ConfigError)
        assert cause.__cause__.field == "popen"


ADOPTING = """
import os, subprocess, sys, time
from vmfsm import Machine, hookimpl

class Adopting:
    name = "adopting"
    @hookimpl
    def pre_launch(self, plan):
        plan.adopt(subprocess.Popen(["qemu-system-x86_64", "-M", "none", "-display", "none"]))

vm = Machine("qemu-system-x86_64", plugins=[Adopting()], base_dir=sys.argv[1],
             block=["console", "fdpass", "logs", "migration", "qmp", "snapshots", "verdicts"]).launch()
os.write(1, f"{vm.pid}\\n".encode())
"""


def test_it_does_not_outlive_a_harness_that_is_killed(qemu: str, tmp_path: Path) -> None:
    ran = run_script("os.kill(os.getpid(), 9)", tmp_path, beginning=ADOPTING)
    assert ran.status == -9
    until(lambda: not is_alive(int(ran.out)))
    until(lambda: not os.listdir(tmp_path))


def test_it_does_not_outlive_a_harness_that_ends(qemu: str, tmp_path: Path) -> None:
    ran = run_script("", tmp_path, beginning=ADOPTING)
    assert (ran.status, ran.err, ran.left) == (0, "", [])
    assert not is_alive(int(ran.out))
