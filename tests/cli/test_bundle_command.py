"""`vmfsm bundle`: of a machine of another program, whatever that is doing."""

import json
from pathlib import Path

import pytest

from tests.bundles import LIVE, Seen
from tests.cli.harness import MakeHarness
from tests.cli.running import Here
from vmfsm.cli.status import ExitStatus

PROGRAM = """
with guest("target", options={"bundle": {"report": False}}) as vm:
    vm.launch()
    vm.console.expect("ready")
    say()
    sys.stdin.readline()
"""


def test_its_path_is_printed(
    harness: MakeHarness, here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program waits for its standard input, and writes it where the command says."""
    monkeypatch.chdir(tmp_path)
    harness(PROGRAM).hear()
    ran = here("bundle", "target", "-o", "made", "--timeout", "60")
    assert (ran.returncode, ran.stderr) == (0, "")
    it = Seen(ran.stdout.removesuffix("\n"))
    assert it.path.parent == tmp_path / "made"
    assert it.names >= LIVE
    assert it.told["why"] == "it was asked for"


def test_of_one_that_is_held_in_a_debugger(harness: MakeHarness, here: Here, tmp_path: Path) -> None:
    harness(PROGRAM.replace("say()", "vm.hold('to look'); import pdb; say(); pdb.set_trace()")).hear()
    ran = here("bundle", "target", "-o", str(tmp_path), "--memory", "--timeout", "60", "--json")
    assert ran.returncode == 0
    (row,) = json.loads(ran.stdout)
    assert row["name"] == "target"
    assert "guest-memory.elf" in Seen(row["path"]).names


def test_where_none_can_be_made(harness: MakeHarness, here: Here, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    harness(PROGRAM).hear()
    ran = here("bundle", "target", "-o", str(tmp_path / "file" / "in"))
    assert (ran.returncode, ran.stdout) == (ExitStatus.FAILED, "")
    assert "no bundle could be made" in ran.stderr
    ran = here("bundle", "target", "--timeout", "0.05")
    assert (ran.returncode, "at least 0.1" in ran.stderr) == (ExitStatus.USAGE, True)


def test_of_a_program_that_does_not_answer(harness: MakeHarness, here: Here, tmp_path: Path) -> None:
    """What is there instead is said."""
    program = harness(PROGRAM).hear()
    program.stop()
    ran = here("bundle", "target", "-o", str(tmp_path), "--timeout", "0.2")
    assert (ran.returncode, ran.stdout) == (ExitStatus.NO_ANSWER, "")
    assert "vmfsm report" in ran.stderr


def test_of_none(here: Here) -> None:
    assert here("bundle", "nobody").returncode == ExitStatus.NO_SUCH_MACHINE
