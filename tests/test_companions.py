"""Helper processes of a machine: started before QEMU, ended and reaped after it, never lost sight of."""

import asyncio
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeMachine
from tests.scripts import run_script
from tests.waiting import LIMIT, InThread, is_alive, until
from vmfsm import (
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
from vmfsm.launch import LAST_BREATH
from vmfsm.testing import GUEST_ARGS

SLEEP = ("sleep", "1000")
SAYS = ("sh", "-c", "echo up; exec sleep 1000")
DEAF = ("sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1000; done")

Ask = Callable[[LaunchPlan], object]


class Asking:
    """A plugin that asks for companions."""

    def __init__(self, *asks: Ask, name: str = "asking") -> None:
        self.name = name
        self.asks = asks
        self.companions: list[Companion] = []
        self.plan: LaunchPlan | None = None

    @hookimpl
    def pre_launch(self, plan: LaunchPlan) -> None:
        self.plan = plan
        answers = [ask(plan) for ask in self.asks]
        self.companions = [answer for answer in answers if isinstance(answer, Companion)]


def asking(argv: tuple[str, ...] = SLEEP, **how: Any) -> Asking:
    return Asking(lambda plan: plan.companion(argv, **how))


def kinds(vm: Machine) -> list[str]:
    """What concerns processes, and the hooks after them, in order."""
    return [
        f"{record.kind} {record.data.get('companion', '')}".strip()
        for record in vm.timeline
        if record.kind in {"companion", "companion-ready", "companion-exit", "spawn", "exit"}
    ]


@pytest.fixture
def two(bare: MakeMachine) -> Iterator[Machine]:
    """A machine with two companions, up."""
    plugin = Asking(
        lambda plan: plan.companion(SLEEP, name="first"), lambda plan: plan.companion(SLEEP, name="second")
    )
    with bare(plugin) as vm:
        yield vm.launch()


# -- order --------------------------------------------------------------------------------------------------


def test_before_and_after_qemu(two: Machine) -> None:
    pids = [companion.pid for companion in two.plugin("asking").companions]
    assert all(pid is not None and is_alive(pid) for pid in pids)
    two.shutdown()
    assert (two.state, two.reason) == (State.STOPPED, Reason.REQUESTED)
    assert not any(is_alive(pid) for pid in pids)
    assert kinds(two) == [
        "companion first",
        "companion-ready first",
        "companion second",
        "companion-ready second",
        "spawn",
        "exit",
        "companion-exit second",
        "companion-exit first",
    ]
    assert [companion.exit_status for companion in two.plugin("asking").companions] == [-signal.SIGTERM] * 2


def test_they_are_gone_when_post_shutdown_runs(bare: MakeMachine) -> None:
    alive = []

    class Looking(Asking):
        @hookimpl
        def early_cleanup(self) -> None:
            alive.append(self.companions[0].pid is not None)

        @hookimpl
        def post_shutdown(self) -> None:
            alive.append(self.companions[0].pid is not None)

    with bare(Looking(lambda plan: plan.companion(SLEEP))) as vm:
        vm.launch()
    assert alive == [True, False]


def test_each_launch_has_its_own(two: Machine) -> None:
    first = {companion.pid for companion in two.plugin("asking").companions}
    two.shutdown()
    two.launch()
    assert first.isdisjoint(companion.pid for companion in two.plugin("asking").companions)


def test_what_a_companion_leaves_in_its_group_goes_with_it(bare: MakeMachine, tmp_path: Path) -> None:
    child = tmp_path / "child"
    argv = ("sh", "-c", f"sleep 1000 & echo $! >{child}; echo up; wait")
    with bare(asking(argv, ready=re.compile("up"))) as vm:
        vm.launch()
        pid = int(child.read_text())
        assert is_alive(pid)
    assert not is_alive(pid)


# -- readiness ----------------------------------------------------------------------------------------------


def test_a_file_that_appears(bare: MakeMachine, tmp_path: Path) -> None:
    file = tmp_path / "ready"
    with bare(asking(("sh", "-c", f"sleep 0.1; : >{file}; exec sleep 1000"), ready=file)) as vm:
        vm.launch()
        assert file.exists()


LISTENER = """
import socket, sys, time
path, gate = sys.argv[1:]
server = socket.socket(socket.AF_UNIX, getattr(socket, "SOCK_STREAM"))
server.bind(path)
open(gate).read()  # a FIFO: until the test lets it go on
server.listen()
print("listening", flush=True)
connection, _ = server.accept()
time.sleep(1000)
"""


def test_a_socket_is_ready_when_somebody_listens(bare: MakeMachine, tmp_path: Path) -> None:
    path, gate = tmp_path / "socket", tmp_path / "gate"
    os.mkfifo(gate)
    plugin = asking((sys.executable, "-c", LISTENER, str(path), str(gate)), ready=path, name="listener")
    with bare(plugin) as vm:
        launch = InThread(vm.launch)
        until(path.exists)
        with socket.socket(socket.AF_UNIX) as too_early, pytest.raises(ConnectionRefusedError):
            too_early.connect(str(path))
        assert vm.pid is None
        gate.write_text("go")
        launch.result()
        until(lambda: "listening" in plugin.companions[0].output)  # which it says a moment later
        with socket.socket(socket.AF_UNIX) as only_one:  # nobody has used up its `accept`
            only_one.connect(str(path))


def test_a_pattern_in_its_output(bare: MakeMachine) -> None:
    plugin = asking(
        ("sh", "-c", "echo one; sleep 0.1; echo two >&2; exec sleep 1000"),
        ready=re.compile("^two$", re.MULTILINE),
    )
    with bare(plugin) as vm:
        vm.launch()
        assert plugin.companions[0].output == "one\ntwo\n"


def test_a_plain_function_is_asked_in_the_calling_thread(bare: MakeMachine) -> None:
    threads: list[threading.Thread] = []

    def ready() -> bool:
        threads.append(threading.current_thread())
        return len(threads) == 3

    with bare(asking(ready=ready)) as vm:
        vm.launch()
    assert threads == [threading.current_thread()] * 3


@pytest.mark.parametrize("answers", [[None], [True], [False, False, None]], ids=str)
def test_a_coroutine_function_returns_when_it_is_ready(bare: MakeMachine, answers: list[object]) -> None:
    left = list(answers)

    async def ready() -> object:
        return left.pop(0)

    with bare(asking(ready=ready)) as vm:
        vm.launch()
    assert left == []


def test_never_ready(bare: MakeMachine) -> None:
    vm = bare(asking(SAYS, ready=re.compile("no such thing"), name="silent"))
    with pytest.raises(LaunchError, match="companion 'silent' of plugin 'asking' is not ready") as caught:
        vm.launch(timeout=0.5)
    assert isinstance(caught.value.__cause__, MachineTimeout)
    assert (vm.state, vm.reason) == (State.FAILED, Reason.DEADLINE)
    assert caught.value.evidence.companions == {"silent": "up\n"}
    assert any("the end of what companion silent said" in note for note in caught.value.__notes__)


@pytest.mark.parametrize(
    ("argv", "ready", "words"),
    [
        (
            ("sh", "-c", "echo I cannot >&2; exit 3"),
            "/nowhere",
            "ended with status 3 before it was ready: I cannot",
        ),
        (("sh", "-c", "kill -SEGV $$"), "/nowhere", "died of SIGSEGV before it was ready"),
        (
            ("no-such-program",),
            None,
            "could not be started: FileNotFoundError: [Errno 2] no executable in the search path",
        ),
        (SLEEP, lambda: 1 / 0, "cannot say whether it is ready: ZeroDivisionError"),
    ],
    ids=["exit", "signal", "missing", "raises"],
)
def test_one_that_fails(bare: MakeMachine, argv: tuple[str, ...], ready: Any, words: str) -> None:
    vm = bare(
        Asking(lambda plan: plan.companion(SLEEP), lambda plan: plan.companion(argv, name="bad", ready=ready))
    )
    with pytest.raises(LaunchError, match=re.escape(f"companion 'bad' of plugin 'asking' {words}")) as caught:
        vm.launch()
    assert isinstance(caught.value.__cause__, PluginError)
    assert (caught.value.__cause__.plugin, caught.value.__cause__.hook) == ("asking", "companion")
    assert (vm.state, vm.reason) == (State.FAILED, Reason.HOOK_FAILED)
    assert "spawn" not in kinds(vm)


def test_an_interrupt_while_it_is_asked(bare: MakeMachine) -> None:
    interrupt = KeyboardInterrupt()

    def ready() -> bool:
        raise interrupt

    plugin = asking(ready=ready)
    vm = bare(plugin)
    with pytest.raises(KeyboardInterrupt) as caught:
        vm.launch()
    assert caught.value is interrupt
    assert (vm.state, vm.reason) == (State.FAILED, Reason.LAUNCH_ERROR)
    assert plugin.companions[0].exit_status == -signal.SIGTERM


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError()], ids=repr)
def test_a_coroutine_function_that_raises(bare: MakeMachine, error: BaseException) -> None:
    async def ready() -> None:
        raise error

    vm = bare(asking(ready=ready))
    with pytest.raises((SystemExit, LaunchError)):
        vm.launch()
    assert vm.state is State.FAILED
    assert "companion-exit sleep" in kinds(vm)


@pytest.mark.parametrize("end", [Machine.shutdown, Machine.kill])
def test_a_launch_that_waits_is_cancelled(bare: MakeMachine, end: Callable[[Machine], None]) -> None:
    plugin = asking(SAYS, ready=lambda: False)
    vm = bare(plugin)
    launch = InThread(vm.launch)
    until(lambda: plugin.companions and plugin.companions[0].pid)
    end(vm)
    assert isinstance(launch.join().error, LaunchError)
    assert vm.state is State.STOPPED
    assert plugin.companions[0].pid is None


# -- the end ------------------------------------------------------------------------------------------------


def test_killed_with_the_machine(two: Machine) -> None:
    two.kill()
    assert [companion.exit_status for companion in two.plugin("asking").companions] == [-signal.SIGKILL] * 2


def test_one_that_is_deaf(bare: MakeMachine, caplog: pytest.LogCaptureFixture) -> None:
    plugin = asking(DEAF, ready=re.compile("deaf"), name="deaf")
    vm = bare(plugin)
    vm.launch()
    begin = time.monotonic()
    vm.shutdown(timeout=LIMIT)
    assert time.monotonic() - begin < LIMIT / 2, "it had the whole of the deadline"
    assert (vm.state, vm.reason) == (State.STOPPED, Reason.REQUESTED)
    assert plugin.companions[0].exit_status == -signal.SIGKILL
    assert "companion 'deaf' ignored SIGTERM" in caplog.text


def test_qemu_that_dies_takes_them_along(two: Machine) -> None:
    assert two.pid is not None
    os.kill(two.pid, signal.SIGKILL)
    until(lambda: two.state is State.FAILED)
    assert [companion.exit_status for companion in two.plugin("asking").companions] == [-signal.SIGTERM] * 2
    with pytest.raises(Exception, match="SIGKILL"):
        two.wait(LIMIT)


def test_an_interpreter_that_exits_leaves_none(tmp_path: Path) -> None:
    ran = run_script(
        """
        from vmfsm import hookimpl
        class Asking:
            name = "asking"
            @hookimpl
            def pre_launch(self, plan):
                self.companion = plan.companion(["sleep", "1000"])
        plugin = Asking()
        other = Machine("qemu-system-x86_64", ["-M", "none", "-nodefaults"],
            plugins=[plugin], base_dir=sys.argv[1]).launch()
        print(plugin.companion.pid, flush=True)
        """,
        tmp_path,
    )
    assert (ran.status, ran.err, ran.left) == (0, "", [])
    assert not is_alive(int(ran.out))


# -- its death ----------------------------------------------------------------------------------------------


def kill_first(vm: Machine) -> None:
    pid = vm.plugin("asking").companions[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def test_who_waits_for_the_guest_is_told(two: Machine) -> None:
    waiting = InThread(two.wait, LIMIT)
    kill_first(two)
    error = waiting.join().error
    assert isinstance(error, GuestPanicked)
    assert "companion 'first' of plugin 'asking' died of SIGKILL while it was needed" in str(error)
    assert error.verdict is not None
    assert (error.verdict.kind, error.verdict.where) == ("companion-ended", "vmfsm")
    assert error.verdict.what["companion"] == "first"
    assert error.verdict.what["exit_status"] == -signal.SIGKILL
    assert two.state is State.RUNNING
    two.shutdown()  # nobody is told twice


def test_where_nobody_waits_who_ends_the_machine_is_told(two: Machine) -> None:
    kill_first(two)
    until(lambda: any(record.kind == "verdict" for record in two.timeline))
    with pytest.raises(PluginError, match="companion 'first' of plugin 'asking' died of SIGKILL"):
        two.shutdown()
    assert (two.state, two.reason) == (State.STOPPED, Reason.REQUESTED)


def test_one_that_ends_because_qemu_does_is_not_missed(bare: MakeMachine) -> None:
    def ask(plan: LaunchPlan) -> Companion:
        ours, theirs = socket.socketpair()
        plan.args += ["-chardev", f"socket,id=to-companion,fd={plan.give(theirs)}"]
        script = f"import os; print('up', flush=True); os.read({ours.fileno()}, 1); os._exit(7)"
        return plan.companion((sys.executable, "-c", script), fds=[ours], ready=re.compile("up"))

    plugin = Asking(ask)
    vm = bare(plugin, block=("console", "fdpass", "logs"))
    vm.launch()
    assert vm.pid is not None
    os.kill(vm.pid, signal.SIGTERM)
    assert vm.wait(LIMIT) == 0
    assert "verdict" not in {record.kind for record in vm.timeline}
    assert plugin.companions[0].exit_status in {7, -signal.SIGTERM}


def test_one_that_ends_when_qemu_has_announced_its_own_end_is_not_missed() -> None:
    """However long QEMU takes from there: here until it is told to go."""
    polite = ("sh", "-c", "trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done")
    plugin = asking(polite, ready=re.compile("up"))
    with Machine("qemu-system-x86_64", [*GUEST_ARGS, "-no-shutdown"], plugins=[plugin]) as vm:
        vm.launch()
        vm.console.expect("ready")
        vm.console.sendline("poweroff")
        until(lambda: vm.run_state == "shutdown")
        (companion,) = plugin.companions
        assert companion.pid is not None
        os.kill(companion.pid, signal.SIGTERM)
        until(lambda: companion.exit_status == 0)
        time.sleep(2 * LAST_BREATH)  # by when one that is missed is a verdict
        vm.qmp.execute("quit")
        assert vm.wait(LIMIT) == 0
    assert "verdict" not in {record.kind for record in vm.timeline}


def test_one_that_ends_during_the_launch(bare: MakeMachine) -> None:
    class Slow(Asking):
        @hookimpl
        def post_launch(self, machine: Machine) -> None:
            kill_first(machine)
            until(lambda: machine.pid is None)

    vm = bare(Slow(lambda plan: plan.companion(SLEEP, name="short")))
    with pytest.raises(
        LaunchError, match="companion 'short' of plugin 'asking' died of SIGKILL while it was needed"
    ):
        vm.launch()
    assert (vm.state, vm.reason) == (State.FAILED, Reason.HOOK_FAILED)


# -- what it has --------------------------------------------------------------------------------------------


def test_it_inherits_what_was_named(bare: MakeMachine) -> None:
    mine, given = os.pipe()
    unnamed = os.memfd_create("unnamed", 0)
    os.set_inheritable(unnamed, True)
    file = os.fdopen(given, "wb")
    script = "import os; print(sorted(map(int, os.listdir('/proc/self/fd')))); import time; time.sleep(1000)"
    plugin = asking((sys.executable, "-c", script), fds=[mine, file], ready=re.compile(r"]\n"))
    try:
        with bare(plugin) as vm:
            vm.launch()
            listed = plugin.companions[0].output
            own = max({mine, given}) + 1
            numbers = [int(number) for number in re.findall(r"\d+", listed)]
            assert set(numbers) - {own, 3, 4, 5} >= {0, 1, 2} - {own}
            assert {mine, given} <= set(numbers)
            assert unnamed not in numbers
            assert file.closed
            os.fstat(mine)
    finally:
        os.close(mine)
        os.close(unnamed)


def test_its_environment(bare: MakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAKEN", "away")
    monkeypatch.setenv("LEFT", "alone")
    plugin = asking(
        ("sh", "-c", "echo $TAKEN-$LEFT-$ADDED; exec sleep 1000"),
        env={"TAKEN": None, "ADDED": "here"},
        ready=re.compile("\n"),
    )
    with bare(plugin, env={"ADDED": "for QEMU only"}) as vm:
        vm.launch()
        assert plugin.companions[0].output == "-alone-here\n"


def test_its_log_is_kept_where_the_user_wants_it(bare: MakeMachine, tmp_path: Path) -> None:
    plugin = asking(SAYS, ready=re.compile("up"), name="tpm")
    vm = bare(plugin, name="vm", log_dir=tmp_path)
    for name in ("vm-tpm.log", "vm-tpm.2.log"):
        vm.launch()
        assert plugin.companions[0].log == str(tmp_path / name)
        vm.shutdown()
        assert (tmp_path / name).read_text() == "up\n"


def test_its_output_outlives_the_private_directory(bare: MakeMachine) -> None:
    plugin = asking(SAYS, ready=re.compile("up"))
    with bare(plugin) as vm:
        vm.launch()
        assert os.path.exists(plugin.companions[0].log)
    assert not os.path.exists(plugin.companions[0].log)
    assert plugin.companions[0].output == "up\n"


# -- what is wrong ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "argv", "how"),
    [
        ("argv", "swtpm socket", {}),
        ("argv", [], {}),
        ("argv", ["a", 1], {}),
        ("name", SLEEP, {"name": "a/b"}),
        ("ready", SLEEP, {"ready": ""}),
        ("ready", SLEEP, {"ready": 1}),
        ("ready", SLEEP, {"ready": re.compile(b"bytes")}),
        ("env['A']", SLEEP, {"env": {"A": 1}}),
        ("fds", SLEEP, {"fds": 3}),
        ("fds", SLEEP, {"fds": [-1]}),
        ("fds", SLEEP, {"fds": [123456]}),
    ],
)
def test_bad_input(bare: MakeMachine, field: str, argv: Any, how: dict[str, Any]) -> None:
    vm = bare(asking(argv, **how))
    with pytest.raises(LaunchError) as caught:
        vm.launch()
    assert caught.value.__cause__ is not None
    cause = caught.value.__cause__.__cause__
    assert isinstance(cause, ConfigError)
    assert cause.field == field


def test_a_name_is_there_once(bare: MakeMachine) -> None:
    with pytest.raises(LaunchError, match="there is a companion 'sleep' already"):
        bare(Asking(lambda plan: plan.companion(SLEEP), lambda plan: plan.companion(SLEEP))).launch()


def test_too_late_for_the_plan(two: Machine) -> None:
    plan = two.plugin("asking").plan
    assert plan.spent
    tries: list[Callable[[], object]] = [
        lambda: plan.companion(SLEEP),
        lambda: plan.pass_fd(0),
        lambda: plan.give(sys.stdin),
    ]
    for late in tries:
        with pytest.raises(TransitionError, match="QEMU is being started already"):
            late()
