"""Holds of harnesses that people sit before: at a debugger's prompt, and where a test has failed."""

import os
import re
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pexpect
import pytest

from tests.conftest import MakeMachine
from tests.scripts import run_script
from tests.waiting import LIMIT, InThread, is_alive, until
from vmfsm import State
from vmfsm.debuggers import at_prompt

if TYPE_CHECKING:
    Spawn = pexpect.spawn[str]
else:
    Spawn = pexpect.spawn

PROMPT = "(Pdb) "
BEGINNING = """
import os, pdb, sys, threading, time
from vmfsm import Machine, MachineTimeout, hookimpl
from vmfsm.testing import GUEST_ARGS

def wait():
    try:
        vm.console.expect("never", timeout=0.2)
    except MachineTimeout:
        print("it is late", flush=True)

def be_launched(*plugins):
    global vm
    vm = Machine("qemu-system-x86_64", GUEST_ARGS, name="vm", base_dir=sys.argv[1], plugins=plugins)
    return vm.launch(60)

waiting = threading.Thread(target=wait)
"""


class Harness(Spawn):
    """A harness on a terminal. `base` is for its machines, and empty when it has ended."""

    def __init__(self, command: list[str], hold: str, base: Path) -> None:
        self.base = base
        env = {**os.environ, "VMFSM_HOLD": hold, "TERM": "dumb", "PYTHONUNBUFFERED": "1"}
        super().__init__(command[0], command[1:], env=env, encoding="utf-8", timeout=LIMIT, echo=False)
        self.delaybeforesend = None
        self.delayafterclose = self.delayafterterminate = 0

    def ask(self, expression: str) -> str:
        """What a debugger shows for an expression, at its prompt."""
        self.sendline(f"p {expression}")
        self.expect_exact(PROMPT)
        assert isinstance(self.before, str)
        return self.before.strip().splitlines()[-1]

    def until(self, expression: str, said: str) -> None:
        until(lambda: said in self.ask(expression))

    def ends(self) -> int:
        self.expect(pexpect.EOF)
        self.wait()
        assert self.exitstatus is not None
        return self.exitstatus


Run = Callable[..., Harness]


@pytest.fixture
def run(qemu: str, tmp_path: Path) -> Iterator[Run]:
    harnesses: list[Harness] = []
    base = tmp_path / "base"
    base.mkdir()

    def run(body: str, *, hold: str = "") -> Harness:
        script = BEGINNING + textwrap.dedent(body)
        harnesses.append(Harness([sys.executable, "-c", script, str(base)], hold, base))
        return harnesses[-1]

    yield run
    for harness in harnesses:
        harness.close(force=True)
    until(lambda: os.listdir(base) == [])


# -- debuggers ----------------------------------------------------------------------------------------------


def assert_waits_without_being_late(harness: Harness) -> None:
    """At a prompt: a wait of 0.2 s is begun when the machine is held, and goes on."""
    harness.until("vm.held", "a debugger")
    harness.ask("waiting.start()")
    harness.ask("time.sleep(0.6)")
    assert harness.ask("waiting.is_alive()") == "True"


AT_A_BREAKPOINT = """
    be_launched()
    with vm:
        breakpoint()
        waiting.join()
"""


def test_at_a_breakpoint(run: Run) -> None:
    harness = run(AT_A_BREAKPOINT, hold="breakpoint")
    harness.expect_exact(PROMPT)
    assert_waits_without_being_late(harness)
    harness.sendline("next")  # back at the prompt only when the wait is over, for which it has to be released
    harness.expect_exact("it is late")
    harness.expect_exact(PROMPT)
    harness.until("vm.held", "a debugger")
    harness.sendline("continue")
    assert harness.ends() == 0


def test_at_a_breakpoint_where_nobody_asked_for_it(run: Run) -> None:
    harness = run(AT_A_BREAKPOINT)
    harness.expect_exact(PROMPT)
    harness.ask("waiting.start()")
    harness.until("waiting.is_alive()", "False")
    assert harness.ask("vm.held") == "None"
    harness.sendline("continue")
    assert harness.ends() == 0


def test_in_a_plain_hook_of_a_launch(run: Run) -> None:
    body = """
        class Looking:
            name = "looking"

            @hookimpl
            def post_launch(self, machine):
                global vm
                vm = machine
                breakpoint()
                print("goes on", flush=True)

        be_launched(Looking()).shutdown()
    """
    harness = run(body, hold="breakpoint")
    harness.expect_exact(PROMPT)
    harness.until("vm.held", "a debugger")
    left = harness.ask("vm._launch._deadline.remaining()")
    harness.ask("time.sleep(0.1)")
    assert harness.ask("vm._launch._deadline.remaining()") == left
    harness.sendline("continue")
    harness.expect_exact("goes on")
    assert harness.ends() == 0


def test_after_an_exception(run: Run) -> None:
    body = """
        be_launched()
        try:
            raise ValueError("what went wrong")
        except ValueError as error:
            pdb.post_mortem(error.__traceback__)
        waiting.join()
        vm.shutdown()
    """
    harness = run(body, hold="breakpoint")
    harness.expect_exact(PROMPT)
    assert_waits_without_being_late(harness)
    harness.sendline("continue")
    harness.expect_exact("it is late")
    assert harness.ends() == 0


def test_in_another_thread_that_may_release_it(run: Run) -> None:
    """The same prompt does not hold it again, the next one does."""
    body = """
        from vmfsm.debuggers import DebuggerWatch

        def look():
            for _ in range(2):
                breakpoint()
                while DebuggerWatch.get()._holds:  # it has not seen that we go on
                    time.sleep(0.01)

        be_launched()
        looking = threading.Thread(target=look, name="looking")
        looking.start()
        looking.join()
        vm.shutdown()
    """
    harness = run(body, hold="breakpoint")
    harness.expect_exact(PROMPT)
    harness.until("vm.held", "a debugger")
    assert "'looking'" in harness.ask("[r.data['by'] for r in vm.timeline if r.kind == 'hold']")
    harness.ask("vm.release()")
    harness.ask("time.sleep(0.3)")
    assert harness.ask("vm.held") == "None"
    harness.sendline("continue")
    harness.expect_exact(PROMPT)
    harness.until("vm.held", "a debugger")
    harness.sendline("continue")
    assert harness.ends() == 0


def test_pytest_at_a_failure(run: Run, tmp_path: Path) -> None:
    test = """
        import pytest, time
        from vmfsm import Machine
        from vmfsm.testing import GUEST_ARGS

        @pytest.fixture
        def vm():
            with Machine("qemu-system-x86_64", GUEST_ARGS) as vm:
                yield vm.launch()

        def test_it(vm):
            assert vm.pid is None
    """
    path = tmp_path / "test_that_fails.py"
    path.write_text(textwrap.dedent(test))
    options = ["--pdb", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"--rootdir={tmp_path}"]
    words = [sys.executable, "-m", "pytest", *options, str(path)]
    harness = run(f"os.execv({words[0]!r}, {words!r})", hold="breakpoint")
    harness.expect_exact(PROMPT)
    harness.until("vm.held", "a debugger")
    harness.sendline("continue")
    harness.expect_exact("1 failed")
    assert harness.ends() == 1


class Proxy:
    """Stands for what is not there."""

    @property  # type: ignore[misc]
    def __class__(self) -> NoReturn:  # type: ignore[override]
        raise RuntimeError("not there")

    def user_login(self) -> object:
        """As debuggers name their methods."""
        return InThread(at_prompt).result()


def test_what_is_only_named_as_debuggers_are_is_none() -> None:
    assert Proxy().user_login() is None


# -- failures -----------------------------------------------------------------------------------------------

FAILS = """
    with be_launched():
        print("QEMU", vm.pid, flush=True)
        raise ValueError("what went wrong")
"""


def held_at_a_failure(run: Run) -> tuple[Harness, int]:
    harness = run(FAILS, hold="on-failure")
    harness.expect(r"QEMU (\d+)\r\n")
    assert isinstance(harness.match, re.Match)
    pid = int(harness.match[1])
    harness.expect_exact("vm is held (the test failed: ValueError: what went wrong)")
    harness.expect_exact("vmfsm release vm")
    return harness, pid


def test_ctrl_c_releases_what_failed(run: Run) -> None:
    harness, pid = held_at_a_failure(run)
    assert is_alive(pid)
    harness.sendintr()
    harness.expect_exact("vm is released by Ctrl-C")
    harness.expect_exact("ValueError: what went wrong")
    assert harness.ends() == 1
    assert not is_alive(pid)


def test_the_end_of_qemu_releases_what_failed(run: Run) -> None:
    harness, pid = held_at_a_failure(run)
    os.kill(pid, signal.SIGKILL)
    harness.expect_exact("ValueError: what went wrong")
    assert harness.ends() == 1


def test_a_harness_that_is_killed_takes_its_machine_along(run: Run) -> None:
    harness, pid = held_at_a_failure(run)
    harness.kill(signal.SIGKILL)
    until(lambda: not is_alive(pid))


@pytest.mark.parametrize(
    "what", ["SystemExit(3)", "KeyboardInterrupt()", "__import__('unittest').SkipTest('no')"]
)
def test_what_is_no_failure_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setenv("VMFSM_HOLD", "on-failure")
    ran = run_script(f"with vm: raise {what}", tmp_path)
    assert ran.left == []
    assert "is held" not in ran.err


def test_the_io_thread_never_waits_at_a_failure(bare: MakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what would release it."""
    monkeypatch.setenv("VMFSM_HOLD", "on-failure")
    vm = bare().launch()

    async def fail() -> None:
        with vm:
            raise ValueError("in a coroutine")

    with pytest.raises(ValueError, match="in a coroutine"):
        vm.run(fail(), timeout=5, operation="fail")
    assert vm.held is None
    assert vm.state is State.RUNNING


@pytest.mark.parametrize("what", ["ValueError(3)", "__import__('pytest').fail.Exception('no')"])
def test_another_thread_releases_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setenv("VMFSM_HOLD", "on-failure, breakpoint")
    body = f"""
        def release():
            while not vm.held:
                time.sleep(0.01)
            vm.release()
        threading.Thread(target=release).start()
        with contextlib.suppress(BaseException), vm:
            raise {what}
        assert vm.state is State.STOPPED, vm.state
    """
    ran = run_script(body, tmp_path)
    assert (ran.status, ran.left) == (0, []), ran.err
    assert "is held (the test failed" in ran.err


def test_a_failure_without_a_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMFSM_HOLD", "on-failure")
    body = """
        with vm:
            vm.kill()
            raise ValueError("after the end")
    """
    ran = run_script(body, tmp_path)
    assert (ran.status, ran.left) == (1, [])
    assert "is held" not in ran.err


# -- the exit of the harness --------------------------------------------------------------------------------

SPARED = """
from vmfsm.exit_guard import ExitGuard
ExitGuard.get().spare(vm)
vm.hold(keep=True)
atexit.register(vm.shutdown)
"""


@pytest.mark.parametrize(
    "body",
    [
        "vm.hold(keep=True)",
        "vm.hold(keep=True); sys.exit(0)",
        "vm.hold(keep=True); threading.Thread(target=vm.shutdown).start()",
        "vm.hold(keep=True); threading.Thread(target=vm.wait_released).start()",
        SPARED,
    ],
)
def test_nothing_holds_up_the_exit(tmp_path: Path, body: str) -> None:
    ran = run_script(body, tmp_path)
    assert (ran.status, ran.left) == (0, []), ran.err
    assert "Traceback" not in ran.err


def test_what_is_none_of_the_words(qemu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMFSM_HOLD", "on-failure,breakpiont")
    ran = run_script("", tmp_path)
    assert ran.status == 1
    assert "ConfigError: VMFSM_HOLD must be some of on-failure, breakpoint" in ran.err
    assert "'breakpiont'" in ran.err
