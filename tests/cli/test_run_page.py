"""What the documentation says of `vmfsm run`: its sessions, also with a Linux guest, and its tables."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.running import environment, vmfsm
from tests.cli.test_page import commands_of, is_shown, normal
from tests.test_docs import BLOCKS, DOCS, LINUX_SESSION, OWN_SESSION, Block
from tests.waiting import LIMIT
from vmfsm.cli.running.outcome import MEANINGS
from vmfsm.testing import GUEST_ARGS

OWN = [block for block in BLOCKS if block.comment == OWN_SESSION]
LINUX = [block for block in BLOCKS if block.comment == LINUX_SESSION]
_MARK = "-- the end of what it prints --"


def check(session: Block, directory: Path, **env: str) -> None:
    """Have one shell run all commands, and compare what each prints."""
    commands = commands_of(session)
    script = "".join(f"{command}\necho '{_MARK}'\n" for command, _ in commands)
    scripts = os.path.dirname(sys.executable)
    ran = subprocess.run(
        ["bash", "-c", script],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=directory,
        env=environment({"PATH": f"{scripts}:{os.environ['PATH']}", **env}),
        timeout=6 * LIMIT,
    )
    printed = ran.stdout.split(f"{_MARK}\n")
    for (command, said), shown in zip(commands, printed, strict=False):
        assert is_shown(normal(said), normal(shown)), f"{command}\n{shown}"
    assert printed[len(commands) :] == [""]


@pytest.mark.parametrize("session", OWN, ids=[block.id for block in OWN])
def test_a_session(session: Block, qemu: str, tmp_path: Path) -> None:
    check(session, tmp_path)


@pytest.mark.parametrize("session", LINUX, ids=[block.id for block in LINUX])
def test_a_session_with_linux(
    session: Block, qemu: str, kernel: Path, initramfs: Path, tmp_path: Path
) -> None:
    check(session, tmp_path, VMFSM_TEST_KERNEL=str(kernel), VMFSM_TEST_INITRAMFS=str(initramfs))


def table(name: str) -> list[list[str]]:
    text = (DOCS / "run.md").read_text(encoding="utf-8")
    found = re.search(rf"<!-- run: {name} -->\n(.*?)<!-- end -->", text, re.DOTALL)
    assert found is not None
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].strip().split("\n")]
    return rows[2:]


def test_the_page_has_every_status() -> None:
    assert table("statuses") == [[str(int(one)), one.word, meaning] for one, meaning in MEANINGS.items()]


def test_the_page_has_every_field_of_the_result(qemu: str, tmp_path: Path) -> None:
    import json

    file = tmp_path / "result.json"
    assert vmfsm("run", "--result", str(file), "--qmp", "stop", "--", qemu, *GUEST_ARGS).returncode == 0
    names = [name for row in table("result") for name in re.findall(r"`(\w+)`", row[0])]
    assert names == list(json.loads(file.read_text()))
