"""`vmfsm run` on real terminals: keys, signals, the status line, and what the terminal is like afterwards."""

import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pexpect
import pytest

from tests.cli.running import environment, vmfsm
from tests.cli.screens import Screen
from tests.waiting import LIMIT, SLACK
from vmfsm.testing import GUEST_ARGS, FakeQEMU
from vmfsm.testing import actions as do

VMFSM = (sys.executable, "-m", "vmfsm")
GUEST = ("--", "qemu-system-x86_64", *GUEST_ARGS)
READY_AND_WAIT = ("--expect", "ready", "--then", "wait", *GUEST)
ESCAPE = "\x1d"


if TYPE_CHECKING:
    Spawn = pexpect.spawn[str]
else:
    Spawn = pexpect.spawn


class Shell(Spawn):
    """A shell that runs `vmfsm run`, between two looks at how its terminal is set (stty(1))."""

    def __init__(self, *words: str, before: str = ":", after: str = "") -> None:
        line = shlex.join([*VMFSM, "run", "--name", "box", *words])
        look = "stty -a; echo so"
        script = f"{before}; trap : INT; {look}; {line}{after}; echo status $?; {look}"
        super().__init__(
            "sh", ["-c", script], env=environment({}), encoding="utf-8", timeout=LIMIT, dimensions=(24, 80)
        )
        self.delaybeforesend = None
        self.delayafterclose = self.delayafterterminate = 0
        self.expect_exact("so\r\n")
        self.settings = str(self.before)

    def ends(self, status: int) -> str:
        """Wait for the end, with the terminal set as it was; what was said before."""
        self.expect_exact(f"status {status}\r\n")
        said = self.before
        self.expect_exact("so\r\n")
        assert self.before == self.settings
        self.expect(pexpect.EOF)
        assert isinstance(said, str)
        return said


def runner_of(shell: Shell) -> int:
    """The process of `vmfsm run`."""
    (runner,) = Path(f"/proc/{shell.pid}/task/{shell.pid}/children").read_text().split()
    return int(runner)


Terminal = Callable[..., Shell]


@pytest.fixture
def terminal(qemu: str) -> Iterator[Terminal]:
    shells = []

    def run(*words: str, before: str = ":", after: str = "") -> Shell:
        shells.append(Shell(*words, before=before, after=after))
        return shells[-1]

    yield run
    for shell in shells:
        shell.close(force=True)


def test_what_is_typed_goes_to_the_guest(terminal: Terminal) -> None:
    child = terminal(*GUEST)
    child.expect_exact("ready")
    child.send("ping\r")
    child.expect(r"echo: ping\r+\npong\r+\n")
    child.send("poweroff\r")
    assert "vmfsm run: ok: the guest shut down (status 0) [box, " in child.ends(0)


def test_ctrl_c_stops_it(terminal: Terminal) -> None:
    child = terminal(*GUEST)
    child.expect_exact("ready")
    child.expect_exact("Ctrl-] ? for help")
    child.send("\x03")
    said = child.ends(130)
    assert "stopping box (Ctrl-C kills it)" in said
    assert "FAILED (interrupted): interrupted by Ctrl-C (SIGINT)" in said


def test_ctrl_c_twice_kills_it(terminal: Terminal) -> None:
    with FakeQEMU(ready=[do.say("up")], on={"quit": [do.hold()]}, sigterm=[]) as fake:
        child = terminal("--qmp", "stop", "--then", "wait", "--", fake.binary)
        child.expect_exact("stop: {}")
        child.send("\x03")
        child.expect_exact("stopping box")
        child.send("\x03")
        begin = time.monotonic()
        assert "killing box" in child.ends(130)
        assert time.monotonic() - begin < SLACK  # where asking it to go takes 30


def test_the_escape_key_leads_in_commands(terminal: Terminal) -> None:
    with FakeQEMU(lines={"\x03": [do.say("interrupted")], "a\x1db": [do.say("escaped")]}) as fake:
        child = terminal("--", fake.binary)
        child.expect_exact("Ctrl-] ? for help")
        child.send(f"{ESCAPE}?")
        child.expect_exact("Ctrl-] k       kill it")
        child.send(f"{ESCAPE}c\n")
        child.expect_exact("interrupted")
        child.send(f"a{ESCAPE}{ESCAPE}b\n")
        child.expect_exact("escaped")
        child.send(f"{ESCAPE}s")
        child.expect(r"box: running [0-9]+ s \| waiting for the guest to end")
        child.send(f"{ESCAPE}x")
        child.expect_exact("Ctrl-] ? shows what there is")
        child.send(f"{ESCAPE}q")
        assert "ended by the user" in child.ends(130)


def test_one_that_has_failed_is_kept(terminal: Terminal) -> None:
    child = terminal("--expect", "ready", "--qmp", "no-such", "--hold-on-failure", *GUEST)
    told = ["no-such has not been found: kept for a look, and Ctrl-C ends it", "vmfsm release box"]
    first = child.expect_exact(told)  # by two threads
    child.expect_exact(told[1 - first])
    child.send("ping\r")
    child.expect_exact("pong")
    assert vmfsm("release", "box").returncode == 0
    assert "FAILED (step-failed)" in child.ends(16)


def test_interactive_ctrl_c_is_for_the_guest(terminal: Terminal) -> None:
    with FakeQEMU(lines={"\x03": [do.say("interrupted")]}) as fake:
        child = terminal("-i", "--", fake.binary)
        child.expect_exact("Ctrl-] ? for help")
        child.send("\x03\n")
        child.expect_exact("interrupted")
        child.send(f"{ESCAPE}k")
        assert "killed by the user" in child.ends(130)


def test_sigterm_restores_the_terminal(terminal: Terminal) -> None:
    child = terminal("--expect", "ready", "--qmp", "query-status", "--then", "wait", *GUEST)
    child.expect_exact("query-status: ")
    child.expect_exact("Ctrl-] ? for help")
    os.kill(runner_of(child), signal.SIGTERM)
    assert "terminated (SIGTERM)" in child.ends(143)


def test_a_script_beside_a_person(terminal: Terminal) -> None:
    child = terminal("--expect", "ready", "--send", r"ping\n", "--expect", "pong", "--then", "keep", *GUEST)
    child.expect_exact("pong")
    child.send("ping again\r")
    child.expect_exact("echo: ping again")
    child.send("\x03")
    assert "vmfsm run: ok: interrupted by Ctrl-C" in child.ends(0)


def test_the_status_line_where_the_console_goes_elsewhere(terminal: Terminal, tmp_path: Path) -> None:
    out = tmp_path / "out"
    child = terminal("--expect", r"ready\r\n> ", "--expect", "no such thing", *GUEST, after=f" >{out}")
    child.expect(r"\r\x1b\[7mbox: running [0-9]+ s \| 2/2 --expect 'no such thing' \([0-9]+ s left\)")
    child.send("\x03")
    assert "\r\x1b[Kstopping box (Ctrl-C kills it)" in child.ends(130)
    assert out.read_bytes() == b"vmfsm guest ready\r\n> "


def test_in_the_background_it_leaves_the_terminal_alone(terminal: Terminal) -> None:
    """A job that changed it would be stopped; and the screen is the shell's."""
    child = terminal("--expect", "ready", *GUEST, before="set -m", after=" & wait $!")
    said = child.ends(0)
    assert "vmfsm run: ok: 1 step done" in said
    assert "\x1b" not in said


def test_one_that_is_kept_may_end_by_itself(terminal: Terminal) -> None:
    child = terminal("--expect", "ready", "--qmp", "no-such", "--hold-on-failure", *GUEST)
    child.expect_exact("vmfsm release box")
    child.send("poweroff\r")
    assert "FAILED (step-failed)" in child.ends(16)


def test_it_is_stopped_and_goes_on(terminal: Terminal) -> None:
    """The shell gets the terminal as it was, and what is typed at it; in the foreground it is raw again."""
    shell = "stty -a; echo stopped; bg; read -r line; echo $line; fg"
    child = terminal(*GUEST, before="set -m", after=f"; {shell}")
    child.expect_exact("ready")
    child.expect_exact("Ctrl-] ? for help")
    os.kill(runner_of(child), signal.SIGTSTP)
    child.expect_exact("stopped\r\n")
    assert child.settings in str(child.before)
    child.send("for the shell\n")
    child.expect_exact("for the shell\r\nfor the shell\r\n")
    child.expect(r"box: running [0-9]+ s")
    child.send("ping\r")
    child.expect_exact("pong")
    child.send("\x03")
    assert "FAILED (interrupted)" in child.ends(130)


def test_a_terminal_without_a_size(terminal: Terminal, tmp_path: Path) -> None:
    child = terminal(*READY_AND_WAIT, before="stty rows 0 cols 0", after=f" >{tmp_path}/out")
    child.expect(r"box: running [0-9]+ s \| waiting for the guest to end")
    child.send("\x03")
    assert "FAILED (interrupted)" in child.ends(130)


@pytest.fixture
def screen() -> Iterator[Screen]:
    with Screen(columns=90, rows=12) as screen:
        yield screen


def test_the_screen(screen: Screen, qemu: str) -> None:
    """The last row is the status; what the guest says scrolls above it, and no message hides any of it."""
    screen.type(shlex.join([*VMFSM, "run", "--name", "box", "--no-color", *GUEST]), "Enter")
    screen.until(lambda rows: rows[-1].startswith("box: running ") and "vmfsm guest ready" in rows)
    for number in range(12):
        screen.type(f"line {number}", "Enter")
    screen.until(lambda rows: "> echo: line 11" in rows and rows[-1].startswith("box: running "))
    screen.type("C-]", "?")
    screen.until(lambda rows: "Ctrl-] Ctrl-]  send Ctrl-] to the guest" in rows)
    screen.type("C-c")
    rows = screen.until(lambda rows: any("FAILED (interrupted)" in row for row in rows))
    assert not any(row.startswith("box: running") for row in rows)


def test_a_guest_that_takes_the_screen_has_it(screen: Screen) -> None:
    """An editor in the alternate buffer, a scrolling region: there is no status line meanwhile."""
    edit = [do.say("\x1b[?1049h\x1b[2J\x1b[3;5Hediting"), do.hold()]
    leave = [do.say("\x1b[?1049lback\r\n")]
    with FakeQEMU(lines={"edit": edit, "leave": leave}, ready=[do.say("up\r\n")]) as fake:
        screen.type(shlex.join([*VMFSM, "run", "--name", "box", "--", fake.binary]), "Enter")
        screen.until(lambda rows: rows[-1].startswith("box: running "))
        screen.type("edit", "C-j")
        screen.until(lambda rows: rows[2].startswith("    editing") and not rows[-1])
        screen.type("leave", "C-j")
        screen.until(lambda rows: "back" in rows and rows[-1].startswith("box: running "))
        screen.type("C-c")
        screen.until(lambda rows: any("FAILED (interrupted)" in row for row in rows))
