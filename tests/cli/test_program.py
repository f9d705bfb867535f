"""The program itself: the table of commands, help, options, statuses, and how it ends."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tests.cli.running import patient_vmfsm, vmfsm
from tests.waiting import LIMIT
from vmfsm.cli.command import Command
from vmfsm.cli.commands import COMMANDS, Row
from vmfsm.cli.status import MEANINGS, ExitStatus

SCRIPT = Path(sys.executable).with_name("vmfsm")


def command_of(row: Row) -> Command:
    module, attribute = row.place.split(":")
    found = getattr(importlib.import_module(f"vmfsm.cli.{module}"), attribute)
    assert isinstance(found, Command)
    return found


@pytest.mark.parametrize("row", COMMANDS.values(), ids=lambda row: row.name)
def test_each_command_of_the_table_is_there_and_helps(row: Row) -> None:
    command = command_of(row)
    help_text = (command.help or "").strip()
    assert help_text.splitlines()[0] == row.help
    assert command.examples
    for line, purpose in command.examples:
        assert line.startswith("vmfsm ") or " vmfsm " in line or "$(vmfsm" in line
        assert purpose
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
    assert {ExitStatus.DONE, ExitStatus.USAGE} <= set(command.exits)


def test_every_status_has_a_meaning() -> None:
    assert set(MEANINGS) == set(ExitStatus)


def test_help_imports_no_command() -> None:
    script = """
import sys
from vmfsm.cli.program import run
status = run(["--help"])
print(status, sorted(name for name in sys.modules if name.startswith("vmfsm.cli.")), file=sys.stderr)
print(sorted({"asyncio", "rich", "transitions", "pluggy", "json"} & set(sys.modules)), file=sys.stderr)
"""
    ran = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=LIMIT
    )
    imported, heavy = ran.stderr.splitlines()
    modules = ["command", "commands", "failures", "output", "program", "status"]
    assert imported == f"0 {[f'vmfsm.cli.{name}' for name in modules]}"
    assert heavy == "['json']"
    for row in COMMANDS.values():
        assert f"\n  {row.name} " in ran.stdout


def test_the_script_is_installed() -> None:
    ran = subprocess.run([SCRIPT, "--version"], check=True, capture_output=True, text=True, timeout=LIMIT)
    assert ran.stdout.startswith("vmfsm 0.")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "vmfsm: No such command 'nonsense'.\nsee: vmfsm --help\n"),
        (["insp"], "vmfsm: No such command 'insp'. Did you mean 'inspect'?\nsee: vmfsm --help\n"),
        (["gc", "--nonsense"], "vmfsm: No such option '--nonsense'.\nsee: vmfsm gc --help\n"),
    ],
)
def test_wrong_usage_is_said_on_stderr_in_one_place(arguments: list[str], said: str) -> None:
    ran = vmfsm(*arguments)
    assert (ran.returncode, ran.stdout, ran.stderr) == (ExitStatus.USAGE, "", said)


def test_without_a_command_it_helps_on_stderr() -> None:
    ran = vmfsm()
    assert (ran.returncode, ran.stdout) == (ExitStatus.USAGE, "")
    assert ran.stderr.startswith("Usage: vmfsm ")


@pytest.mark.parametrize("missing", ["click", "rich", "prompt_toolkit"])
def test_without_the_extra_it_says_what_to_install(missing: str) -> None:
    script = f"""
import sys
sys.modules[{missing!r}] = None
sys.modules["vmfsm.cli.program"] = type(sys)("program")
def run(arguments):
    import {missing}
sys.modules["vmfsm.cli.program"].run = run
if {missing!r} == "click":
    del sys.modules["vmfsm.cli.program"]
from vmfsm.cli import main
sys.exit(main())
"""
    ran = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=LIMIT
    )
    assert (ran.returncode, ran.stdout) == (ExitStatus.USAGE, "")
    assert ran.stderr == f"vmfsm: there is no {missing} here: pip install 'vmfsm[cli]'\n"


def test_a_reader_that_leaves_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb") as output:
        ran = subprocess.run(
            [sys.executable, "-m", "vmfsm", "--help"],
            check=False,
            stdout=output,
            stderr=subprocess.PIPE,
            timeout=LIMIT,
        )
    assert (ran.returncode, ran.stderr) == (ExitStatus.PIPE_CLOSED, b"")


def test_a_full_disk_is_one() -> None:
    with open("/dev/full", "wb") as output:
        ran = subprocess.run(
            [sys.executable, "-m", "vmfsm", "--help"],
            check=False,
            stdout=output,
            stderr=subprocess.PIPE,
            timeout=LIMIT,
        )
    assert (ran.returncode, ran.stderr) == (
        ExitStatus.FAILED,
        b"vmfsm: [Errno 28] No space left on device\n",
    )


def test_without_any_output_it_does_its_work() -> None:
    command = f"{sys.executable} -m vmfsm --help >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], check=False, timeout=LIMIT).returncode == 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_each_shell(shell: str) -> None:
    ran = vmfsm(_VMFSM_COMPLETE=f"{shell}_source")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "_VMFSM_COMPLETE" in ran.stdout


def completions(line: str, **env: str) -> list[str]:
    """What bash would offer for the last word."""
    return [offer.partition(",")[2] for offer in bash_offers(line, **env)]


def bash_offers(line: str, **env: str) -> list[str]:
    """What it is told: the words, each after what it is."""
    words = line.split(" ")
    ran = patient_vmfsm(
        _VMFSM_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1), **env
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout.splitlines()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("vmfsm graph records/boot-", "file,records/boot-"),
        ("vmfsm run --record rec", "dir,rec"),
        ("vmfsm run -- qemu-system-x86_64 -kernel bzI", "file,bzI"),
        ("vmfsm run qemu-system-risc", "plain,qemu-system-riscv64"),
    ],
)
def test_files_and_programs_complete(line: str, offered: str) -> None:
    """As the shell completes files, which it is told to."""
    assert offered in bash_offers(line)


def test_commands_and_options_complete() -> None:
    assert completions("vmfsm g") == [name for name in COMMANDS if name.startswith("g")]
    assert "--dry-run" in completions("vmfsm gc --d")
    assert completions("vmfsm --ver") == ["--version"]
