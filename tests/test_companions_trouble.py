"""Companions when things go wrong: several deaths at once, signs that mislead, floods, half a launch."""

import os
import re
import signal
import socket
import sys
import threading
from pathlib import Path

import pytest

from tests.conftest import MakeMachine
from tests.test_companions import DEAF, SAYS, SLEEP, Asking, asking, kill_first
from tests.waiting import LIMIT, InThread, until
from vmfsm import (
    AbnormalExit,
    Companion,
    ConfigError,
    GuestPanicked,
    LaunchError,
    LaunchPlan,
    Machine,
    MachineTimeout,
    PluginError,
    Reason,
    State,
    TransitionError,
    hookimpl,
)
from vmfsm.testing import GUEST_ARGS


@pytest.fixture
def two(bare: MakeMachine) -> Machine:
    """A machine with two companions, up, without its end."""
    plugin = Asking(
        lambda plan: plan.companion(SLEEP, name="first"), lambda plan: plan.companion(SLEEP, name="second")
    )
    return bare(plugin).launch()


def companions(vm: Machine) -> list[Companion]:
    return vm.plugin("asking").companions  # type: ignore[no-any-return]


def kill_both(vm: Machine) -> None:
    for companion in companions(vm):
        assert companion.pid is not None
        os.kill(companion.pid, signal.SIGKILL)


def kill_first_and_see(vm: Machine) -> None:
    kill_first(vm)
    until(lambda: companions(vm)[0].has_ended)


def exits(status: int) -> tuple[str, ...]:
    """A program that exits with `status` when it is told to."""
    return ("sh", "-c", f"trap 'exit {status}' USR1; echo up; while :; do sleep 0.01; done")


def tell_to_exit(companion: Companion) -> None:
    assert companion.pid is not None
    os.kill(companion.pid, signal.SIGUSR1)
    until(lambda: companion.has_ended)


def verdicts(vm: Machine) -> int:
    return sum(record.kind == "verdict" for record in vm.timeline)


# -- deaths -------------------------------------------------------------------------------------------------


def test_each_of_two_deaths_is_told_once(two: Machine) -> None:
    waiting = InThread(two.wait, LIMIT)
    kill_both(two)
    error = waiting.join().error
    assert isinstance(error, GuestPanicked)
    told: list[object] = [error, *error.errors]
    until(lambda: verdicts(two) == 2)
    try:
        two.shutdown()
    except PluginError as late:
        told += [late, *late.errors]
    said = " ".join(map(str, told))
    assert (said.count("'first'"), said.count("'second'")) == (1, 1)


def test_who_waits_later_is_told_of_both_deaths(two: Machine) -> None:
    kill_both(two)
    until(lambda: verdicts(two) == 2)
    with pytest.raises(GuestPanicked) as caught:
        two.wait(LIMIT)
    [other] = caught.value.errors
    assert isinstance(other, GuestPanicked)
    told = [error.verdict.what["companion"] for error in (caught.value, other) if error.verdict]
    assert sorted(map(str, told)) == ["first", "second"]
    two.shutdown()


def test_a_death_just_before_the_shutdown_is_told(two: Machine) -> None:
    kill_first_and_see(two)
    with pytest.raises(PluginError, match="companion 'first' of plugin 'asking' died of SIGKILL"):
        two.shutdown()
    assert (two.state, two.reason) == (State.STOPPED, Reason.REQUESTED)


def test_a_death_just_before_that_of_qemu_is_told_with_it(two: Machine) -> None:
    kill_first_and_see(two)
    assert two.pid is not None
    os.kill(two.pid, signal.SIGSEGV)
    with pytest.raises(AbnormalExit, match="died of SIGSEGV") as caught:
        two.wait(LIMIT)
    [error] = caught.value.errors
    assert "companion 'first' of plugin 'asking' died of SIGKILL" in str(error)


def test_a_death_that_nobody_was_told_of_does_not_hide_that_of_qemu(two: Machine) -> None:
    kill_first_and_see(two)
    until(lambda: verdicts(two) == 1)
    assert two.pid is not None
    os.kill(two.pid, signal.SIGSEGV)
    until(lambda: two.state is State.FAILED)
    with pytest.raises(AbnormalExit, match="died of SIGSEGV") as caught:
        two.wait(LIMIT)
    [error] = caught.value.errors
    assert "companion 'first' of plugin 'asking' died of SIGKILL" in str(error)


def test_a_death_while_the_guest_is_asked_is_told(bare: MakeMachine) -> None:
    """It has most of the deadline for that, so nothing has made QEMU end yet."""
    plugin = asking(name="first")
    block = ("console", "fdpass", "logs", "migration", "snapshots")
    vm = bare(plugin, args=GUEST_ARGS, block=block)
    vm.launch()
    shutdown = InThread(vm.shutdown, guest=True, timeout=10)
    until(lambda: any(record.kind == "stop" for record in vm.timeline))
    pid = plugin.companions[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    error = shutdown.join().error
    assert isinstance(error, PluginError)
    assert "companion 'first' of plugin 'asking' died of SIGKILL" in str(error)
    assert (vm.state, vm.reason) == (State.STOPPED, Reason.REQUESTED)


def test_one_that_ends_well_and_then_qemu_is_not_missed(bare: MakeMachine) -> None:
    plugin = asking(exits(0), ready=re.compile("up"))
    with bare(plugin) as vm:
        vm.launch()
        tell_to_exit(plugin.companions[0])


@pytest.mark.parametrize("status", [3, 0])
def test_no_launch_succeeds_with_a_dead_companion(bare: MakeMachine, status: int) -> None:
    class Ending(Asking):
        @hookimpl
        def post_launch(self) -> None:
            tell_to_exit(self.companions[0])

    vm = bare(Ending(lambda plan: plan.companion(exits(status), name="short", ready=re.compile("up"))))
    with pytest.raises(
        LaunchError, match=f"companion 'short' of plugin 'asking' ended with status {status} while"
    ):
        vm.launch()
    assert (vm.state, vm.reason) == (State.FAILED, Reason.HOOK_FAILED)


def test_one_that_fails_for_another_has_that_beside_it(bare: MakeMachine) -> None:
    class First(Asking):
        def ready(self) -> bool:
            kill = self.companions[0].pid
            if kill is not None:
                os.kill(kill, signal.SIGSEGV)
            until(lambda: self.companions[0].has_ended)
            raise ConnectionResetError("the first is gone")

    plugin = First(
        lambda plan: plan.companion(SLEEP, name="first"),
        lambda plan: plan.companion(SLEEP, name="second", ready=plugin.ready),
    )
    with pytest.raises(LaunchError, match=r"companion 'second' .* the first is gone") as caught:
        bare(plugin).launch()
    [error] = caught.value.errors
    assert "companion 'first' of plugin 'asking' died of SIGSEGV before QEMU was up" in str(error)


def test_one_that_is_deaf_costs_no_other_its_sigterm(
    bare: MakeMachine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved = tmp_path / "saved"
    argv = ("sh", "-c", f"trap ': >{saved}; exit 0' TERM; echo up; while :; do sleep 0.01; done")
    vm = bare(
        Asking(
            lambda plan: plan.companion(argv, name="saves", ready=re.compile("up")),
            lambda plan: plan.companion(DEAF, name="deaf", ready=re.compile("deaf")),
        )
    )
    vm.launch()
    vm.shutdown()
    assert saved.exists()
    assert "'deaf' ignored SIGTERM" in caplog.text
    assert "'saves'" not in caplog.text


# -- readiness ----------------------------------------------------------------------------------------------


def test_a_pattern_is_found_before_a_flood(bare: MakeMachine) -> None:
    script = "import time; print('ready\\n' + 'x' * 5_000_000, flush=True); time.sleep(1000)"
    with bare(asking((sys.executable, "-c", script), ready=re.compile("^ready$", re.MULTILINE))) as vm:
        vm.launch()


def test_a_pattern_is_found_across_two_looks(bare: MakeMachine) -> None:
    argv = ("sh", "-c", "printf rea; sleep 0.1; printf dy; exec sleep 1000")
    with bare(asking(argv, ready=re.compile("ready"))) as vm:
        vm.launch()


def test_a_plain_function_that_returns_a_coroutine(bare: MakeMachine) -> None:
    async def answer(ready: bool) -> bool:
        return ready

    with pytest.raises(LaunchError, match="returned a coroutine"):
        bare(asking(ready=lambda: answer(False))).launch()


BINDS = """
import socket, sys, time
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
print("bound", flush=True)
time.sleep(1000)
"""


def test_another_machine_listens_at_a_path_of_the_same_name(bare: MakeMachine, tmp_path: Path) -> None:
    path, others = tmp_path / "sock", tmp_path / "other" / "sock"
    others.parent.mkdir()
    plugin = asking((sys.executable, "-c", BINDS, str(path)), ready=path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(others))
        listener.listen()
        with pytest.raises(LaunchError) as caught:
            bare(plugin).launch(timeout=1)
    assert isinstance(caught.value.__cause__, MachineTimeout)
    assert plugin.companions[0].output == "bound\n"


def test_a_socket_by_another_way_to_its_directory(bare: MakeMachine, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    script = BINDS.replace("print(", "server.listen(); print(")
    plugin = asking((sys.executable, "-c", script, str(tmp_path / "link" / "sock")), ready=tmp_path / "sock")
    with bare(plugin) as vm:
        vm.launch()


@pytest.mark.parametrize("end", ["deadline", "kill", "shutdown"])
def test_a_plain_function_that_waits_for_its_companion_is_let_go(bare: MakeMachine, end: str) -> None:
    ours, theirs = socket.socketpair()
    asked = threading.Event()

    def ready() -> bool:
        asked.set()
        return ours.recv(1) == b"never sent"

    vm = bare(asking(ready=ready, fds=[theirs]))
    launch = InThread(vm.launch, 1 if end == "deadline" else LIMIT)
    assert asked.wait(LIMIT)
    if end != "deadline":
        getattr(vm, end)()
    assert isinstance(launch.join().error, LaunchError)
    assert vm.reason is {"deadline": Reason.DEADLINE, "kill": Reason.KILLED}.get(end, Reason.REQUESTED)
    ours.close()


# -- what it has --------------------------------------------------------------------------------------------


def test_a_log_that_nobody_reads_fails_the_launch(bare: MakeMachine, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "vm-sleep.log")
    vm = bare(asking(), name="vm", log_dir=tmp_path)
    launch = InThread(vm.launch)
    error = launch.join().error
    assert isinstance(error, LaunchError)
    assert "companion 'sleep' of plugin 'asking' could not be started" in str(error)


def test_a_log_that_became_a_fifo_holds_up_nothing(bare: MakeMachine, tmp_path: Path) -> None:
    log, done = tmp_path / "vm-x.log", tmp_path / "done"
    argv = ("sh", "-c", f"rm {log}; mkfifo {log}; : >{done}; exec sleep 1000")
    plugin = asking(argv, name="x", ready=done)
    vm = bare(plugin, name="vm", log_dir=tmp_path)
    vm.launch()
    InThread(vm.shutdown).result()
    assert plugin.companions[0].output == ""


def test_its_log_is_no_other_log(qemu: str) -> None:
    plugin = asking(SAYS, ready=re.compile("up"), name="console")
    with Machine(qemu, ["-M", "none", "-nodefaults"], plugins=[plugin]) as vm:
        vm.launch()
        assert vm.console.path != plugin.companions[0].log


@pytest.mark.parametrize("of", ["companion", "QEMU"])
def test_a_descriptor_that_is_closed_before_its_time(bare: MakeMachine, of: str) -> None:
    def ask(plan: LaunchPlan) -> None:
        ends = os.pipe()
        for end in ends:
            plan.pass_fd(end) if of == "QEMU" else plan.companion(SLEEP, name=str(end), fds=[end])
        for end in ends:
            os.close(end)

    vm = bare(Asking(ask))
    with pytest.raises(LaunchError, match=r"file descriptor [0-9]+ is not open"):
        vm.launch()
    assert vm.pid is None


@pytest.mark.parametrize("how", [{"ready": 5}, {"name": "there already"}], ids=["ready", "name"])
def test_what_is_refused_stays_with_who_gave_it(bare: MakeMachine, how: dict[str, object]) -> None:
    ours, theirs = socket.socketpair()

    def ask(plan: LaunchPlan) -> None:
        plan.companion(SLEEP, name="there already")
        plan.companion(SLEEP, fds=[theirs], **how)  # type: ignore[arg-type]

    with pytest.raises(LaunchError) as caught, ours, theirs:
        bare(Asking(ask)).launch()
    assert isinstance(caught.value.__cause__, PluginError)
    assert isinstance(caught.value.__cause__.__cause__, ConfigError)


def test_the_plan_of_a_launch_that_failed_is_spent(bare: MakeMachine) -> None:
    refused: list[str] = []

    class Late(Asking):
        @hookimpl
        def post_shutdown(self) -> None:
            assert self.plan is not None
            with pytest.raises(TransitionError):
                self.plan.companion(SLEEP)
            refused.append("companion")

    with pytest.raises(LaunchError):
        bare(Late(lambda plan: plan.companion(("false",), ready="/nowhere"))).launch()
    assert refused == ["companion"]


# -- many ---------------------------------------------------------------------------------------------------


def test_twenty_machines_at_once(bare: MakeMachine) -> None:
    machines = [bare(asking(SAYS, ready=re.compile("up"))) for _ in range(20)]
    for launch in [InThread(vm.launch) for vm in machines]:
        launch.result()
    for vm in machines[::2]:
        kill_first_and_see(vm)
    ends = [InThread(vm.shutdown) for vm in machines]
    errors = [end.join().error for end in ends]
    assert [type(error) for error in errors] == [PluginError, type(None)] * 10
    assert all(companions(vm)[0].has_ended for vm in machines)
