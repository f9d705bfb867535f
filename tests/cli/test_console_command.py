"""`vmfsm console` and `vmfsm watch`: what a guest says, harmless or as it is; typing; to the end."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.harness import Harness, MakeHarness
from tests.cli.running import environment, vmfsm
from tests.cli.screens import Screen
from tests.cli.terminals import Terminal
from tests.control.brief import NAME, brief
from tests.waiting import LIMIT
from vmfsm.cli.status import ExitStatus
from vmfsm.cli.terminal.safely import SafeText

READY = "vm = guest('box').launch(); vm.console.expect('ready'); say(); "
SAID = "vmfsm guest ready\r\n> "
ESCAPE = "\x1d"


@pytest.fixture
def box(harness: MakeHarness) -> Harness:
    """A guest that does what it is told; `input` ends it, and then its program."""
    return harness(READY + "input(); vm.shutdown(); say('over'); input()").hear()


def test_a_pipe_gets_every_byte(box: Harness) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "vmfsm", "console", "box"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment({}),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(len(SAID)) == SAID.encode()
        box.tell()
        out, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, out, err) == (0, b"", b"box: the machine has ended\n")


def test_one_that_is_over_is_shown(box: Harness) -> None:
    box.tell()
    box.hear("over")
    ran = vmfsm("console", "box", "-n", "1")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "> ", "box: the machine is not running\n")
    assert vmfsm("console", "box", "-n", "0").stdout == ""


def test_what_is_not_there(box: Harness) -> None:
    ran = vmfsm("console", "box/hvc0")
    assert (ran.returncode, ran.stdout) == (ExitStatus.FAILED, "")
    assert "no console 'hvc0' (there are: console)" in ran.stderr
    assert vmfsm("console", "other").returncode == ExitStatus.NO_SUCH_MACHINE


def test_stdin_is_typed(box: Harness) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "vmfsm", "console", "-i", f"{box.pid}/box/console"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment({}),
    ) as process:
        out, _ = process.communicate(b"ping\npoweroff\n", timeout=LIMIT)
    assert process.returncode == 0
    assert b"pong\r\n> echo: poweroff" in out


def test_typing_at_it(box: Harness) -> None:
    with Terminal("console", "-i", "box") as terminal:
        terminal.expect(r"vmfsm guest ready\r+\n> ")
        terminal.send("ping\r")
        terminal.expect(r"echo: ping\r+\npong\r+\n")
        terminal.send(f"{ESCAPE}?")
        terminal.expect_exact("leave; the machine goes on")
        terminal.send("\x03\r")  # the guest's, as every key is
        terminal.expect_exact("echo: \x03\r")
        terminal.send(f"{ESCAPE}q")
        terminal.ends(0)
    assert box.entries()  # the machine goes on


def test_several_at_once(box: Harness) -> None:
    with Terminal("console", "-i", "box") as one, Terminal("console", "box") as other:
        for terminal in (one, other):
            terminal.expect_exact("> ")
        one.send("ping\r")
        for terminal in (one, other):
            terminal.expect_exact("pong")
        box.tell()
        for terminal in (one, other):
            terminal.expect_exact("box: the machine has ended")
            terminal.ends(0)


def test_sigterm_restores_the_terminal(box: Harness, tmp_path: Path) -> None:
    line = f"stty -a >{tmp_path}/1; {sys.executable} -m vmfsm console -i box; stty -a >{tmp_path}/2"
    with Screen() as screen:
        screen.type(line, "Enter")
        screen.until(lambda rows: ">" in rows and "vmfsm guest ready" in rows)
        (shell,) = Path(f"/proc/{screen.pid}/task/{screen.pid}/children").read_text().split()
        (command,) = Path(f"/proc/{shell}/task/{shell}/children").read_text().split()
        os.kill(int(command), signal.SIGTERM)
        screen.until(lambda _: (tmp_path / "2").exists())
        screen.type("exit", "Enter")  # the shell reads what comes, as ever
        screen.until_over()
    assert (tmp_path / "1").read_text() == (tmp_path / "2").read_text()


def test_relaunches(harness: MakeHarness) -> None:
    box = harness(READY + "input(); vm.shutdown(); vm.launch(); vm.console.expect('ready'); input()").hear()
    with Terminal("console", "--reconnect", "box") as terminal:
        terminal.expect_exact("ready")
        box.tell()
        terminal.expect_exact("ready")
        box.kill()
        terminal.expect_exact("box: its program has ended")
        terminal.sendintr()
        terminal.ends(ExitStatus.INTERRUPTED)


@pytest.fixture
def own_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@pytest.mark.parametrize("what", ["waiting:dies", "accepted:dies", "greeted:dies", "half-answered:dies"])
def test_it_looks_again_whatever_happens_meanwhile(own_registry: None, what: str) -> None:
    """A harness that dies while it is looked at is no reason to end."""
    with (
        brief(["answer", "answered:hangs-up", what]),
        Terminal("console", "--reconnect", NAME) as terminal,
    ):
        terminal.expect_exact("one")
        terminal.expect_exact("box: the harness has hung up")
        with brief(["answer", "answered"]):
            terminal.expect_exact("one")
            terminal.sendintr()
            terminal.ends(ExitStatus.INTERRUPTED)


@pytest.mark.parametrize(
    ("how", "status", "said"),
    [
        ("dies", ExitStatus.NO_SUCH_MACHINE, "vmfsm: the harness has ended\n"),
        ("hangs-up", ExitStatus.NO_ANSWER, "vmfsm: the harness has hung up\nis it stopped"),
    ],
)
def test_what_is_said_of_a_harness(own_registry: None, how: str, status: ExitStatus, said: str) -> None:
    with brief(["answer", f"greeted:{how}"]):
        ran = vmfsm("inspect", NAME)
    assert (ran.returncode, ran.stdout) == (status, "")
    assert ran.stderr.startswith(said)


@pytest.mark.parametrize("words", [["console"], ["watch"]])
def test_whom_it_follows_dies_or_hangs_up(own_registry: None, words: list[str]) -> None:
    with brief(["answer", "greeted:dies"]):
        ran = vmfsm(*words, NAME)
    assert (ran.returncode, ran.stderr) == (0, "box: its program has ended\n")
    with brief(["answer", "greeted:hangs-up"]):
        assert vmfsm(*words, NAME).returncode == ExitStatus.NO_ANSWER


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        ([b"one\r\ntwo\r", b"\nthree"], "one\ntwo\nthree"),
        ([b"\x1b[31mred\x1b", b"[0m"], "\x1b[31mred\x1b[0m"),
        ([b"\x1b]0;title\x07\x1b[2J"], r"\x1b]0;title\x07\x1b[2J"),
        ([b"a\rb"], r"a\rb"),
        (["ä".encode()[:1], "ä".encode()[1:], b"\xff"], "ä\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_what_reaches_a_terminal(pieces: list[bytes], shown: str) -> None:
    text = SafeText(colours=True)
    assert "".join(text.feed(piece) for piece in pieces) + text.feed(b"", final=True) == shown
    plain = SafeText(colours=False)
    assert "\x1b" not in "".join(plain.feed(piece) for piece in pieces) + plain.feed(b"", final=True)


@pytest.mark.parametrize("words", [["console", "box"], ["console", "-i", "box"], ["watch", "box"]])
def test_it_ends_with_its_reader(box: Harness, words: list[str]) -> None:
    """Though the machine is quiet."""
    with subprocess.Popen(
        [sys.executable, "-m", "vmfsm", *words], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.wait(LIMIT) == ExitStatus.PIPE_CLOSED


# -- watch --------------------------------------------------------------------------------------------------


def test_watching_from_a_program(box: Harness) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "vmfsm", "watch", "box", "--json"], stdout=subprocess.PIPE, env=environment({})
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["kind"] == "transition"
        box.tell()
        records = [json.loads(line) for line in process.stdout]
        assert process.wait(LIMIT) == 0
    assert records[-1]["data"]["dest"] == "stopped"
    assert any(one["kind"] == "console" and "guest ready" in one["data"]["text"] for one in records)


def test_watching_line_by_line(box: Harness) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "vmfsm", "watch", "box"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment({}),
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first.split() == ["0.0000", "s", "transition", "configured", "->", "launching"]
        box.tell()
        lines = process.stdout.read().splitlines()
        assert process.wait(LIMIT) == 0
    assert lines[-1].endswith("quitting -> stopped (requested)")


def test_watching_on_a_terminal(box: Harness) -> None:
    with Screen(columns=90, rows=24) as screen:
        screen.type(f"{sys.executable} -m vmfsm watch box --every 0.1", "Enter")
        screen.until(
            lambda rows: (
                rows[0].startswith("box  running  for ")
                and rows[-2:] == ["vmfsm guest ready", ">"]
                and any(row.endswith("launching -> running") for row in rows)
            )
        )
        box.tell()
        screen.until(lambda rows: any(row.startswith("box  stopped  (requested)") for row in rows))
