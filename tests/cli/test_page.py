"""What the documentation shows of the command line is what it prints.

A program with the comment `<!-- NAME, looked at by the session below -->` runs while the session does: a
block of commands, after `$ `, with what they print. Numbers, directories and the width of columns may be
others, and `...` stands for any lines.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.running import PATIENT, environment
from tests.test_docs import BLOCKS, PROGRAM, SESSION, Block, after
from tests.waiting import LIMIT, until
from vmfsm import registry

PROGRAMS = [block for block in BLOCKS if block.comment.endswith(PROGRAM)]
_DIRECTORY = re.compile(r"/\S*/")
_NUMBER = re.compile(r"\d+(\.\d+)*( (ms|s|min))?")


def normal(text: str) -> list[str]:
    """The lines of an output, without what differs from one time to the next."""
    lines = [_NUMBER.sub("N", _DIRECTORY.sub("", line)) for line in text.splitlines()]
    return [" ".join(line.split()) for line in lines]


def is_shown(lines: list[str], printed: list[str]) -> bool:
    """Whether it is what was printed; `...` are any lines."""
    if not lines:
        return not printed
    if lines[0] == "...":
        return any(is_shown(lines[1:], printed[n:]) for n in range(len(printed) + 1))
    return bool(printed) and printed[0] == lines[0] and is_shown(lines[1:], printed[1:])


def commands_of(session: Block) -> list[tuple[str, str]]:
    """Command lines, and what each is said to print."""
    parts = re.split(r"^\$ (.*)\n", session.text, flags=re.MULTILINE)
    assert parts[0] == ""
    return list(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("block", PROGRAMS, ids=[block.id for block in PROGRAMS])
def test_a_session_beside_a_program(block: Block, qemu: str, tmp_path: Path) -> None:
    session = after(block)
    assert session is not None
    assert session.comment == SESSION
    script = tmp_path / block.comment.partition(",")[0]
    script.write_text(block.text, encoding="utf-8")
    scripts = os.path.dirname(sys.executable)
    env = environment({"PATH": f"{scripts}:{os.environ['PATH']}", "PYTEST_CURRENT_TEST": None})
    process = subprocess.Popen(
        [sys.executable, script.name], cwd=tmp_path, stderr=subprocess.DEVNULL, env=env
    )

    def run(command: str) -> str:
        words = ["bash", "-c", command]
        ran = subprocess.run(
            words,
            check=False,
            capture_output=True,
            cwd=tmp_path,
            env={**env, **PATIENT},
            text=True,
            timeout=LIMIT,
        )
        return ran.stdout

    try:
        for command, said in commands_of(session):
            printed = run(command)
            deadline = time.monotonic() + LIMIT
            only_looks = command.startswith(("vmfsm ps", "vmfsm inspect"))
            while only_looks and not is_shown(normal(said), normal(printed)) and time.monotonic() < deadline:
                printed = run(command)  # the program has to come so far first
            assert is_shown(normal(said), normal(printed)), printed
    finally:
        process.kill()
        process.wait()
        until(lambda: process.pid not in {entry.harness.pid for entry in registry.machines()})


def test_how_outputs_are_compared() -> None:
    assert is_shown(normal("a  1.5 s\n...\nb\n"), normal("a 20 ms\nx\ny\nb\n"))
    assert is_shown(normal("...\nb"), normal("b"))
    assert not is_shown(normal("a\n...\nb"), normal("a\nb\nc"))
    assert not is_shown(normal("a"), normal("a\nb"))
