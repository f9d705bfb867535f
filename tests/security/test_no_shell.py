"""No shell comes between: what is given is given as words, never as text for one."""

import ast
import os
from pathlib import Path

import pytest

from vmfsm import LaunchError, Machine

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "vmfsm").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")])
SHELLS = {"/bin/sh", "sh", "/bin/bash", "bash"}
TAKES_TEXT = {
    "system",
    "popen",
    "getoutput",
    "getstatusoutput",
    "create_subprocess_shell",
    "subprocess_shell",
    "spawnl",
    "spawnlp",
}
ALLOWED = {
    # Texts that never change, for what only a process can do for itself or in another's place (limits before
    # QEMU is executed, writing a program); what they are about comes as words, "$@".
    "vmfsm/accelerators.py",
    "vmfsm/testing/fake_qemu.py",
}


def uses_of_shells(source: str) -> list[int]:
    """The lines."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.keyword) and node.arg == "shell":
            found.append(node.value.lineno)
        if isinstance(node, ast.Attribute) and node.attr in TAKES_TEXT:
            is_platform = isinstance(node.value, ast.Name) and node.value.id == "platform"
            found += [] if is_platform else [node.lineno]
        if isinstance(node, ast.Constant) and node.value in SHELLS:
            found.append(node.lineno)
        if isinstance(node, ast.ImportFrom) and {alias.name for alias in node.names} & TAKES_TEXT:
            found.append(node.lineno)
    return found


@pytest.mark.parametrize(
    "source",
    [
        "subprocess.run(x, shell=True)",
        "os.system(x)",
        "from os import popen",
        "run(['sh', '-c', x])",
        "await asyncio.create_subprocess_shell(x)",
    ],
)
def test_this_test_would_notice(source: str) -> None:
    tree = source if not source.startswith("await") else f"async def f():\n    {source}"
    assert len(uses_of_shells(tree)) == 1


def test_there_is_none() -> None:
    assert len(SOURCES) > 100
    found = {
        str(path.relative_to(ROOT)): lines
        for path in SOURCES
        if (lines := uses_of_shells(path.read_text(encoding="utf-8")))
    }
    assert found.keys() == ALLOWED


def test_words_stay_words(qemu: str, tmp_path: Path) -> None:
    """In arguments, paths and names."""
    evil = "$(touch was-run); `touch was-run` | touch was-run && \n'\""
    directory = tmp_path / evil.replace("/", "")
    directory.mkdir()
    with Machine(
        qemu, ["-M", "none", "-name", f"guest={evil}"], cwd=directory, base_dir=directory, log_dir=directory
    ) as vm:
        vm.launch()
        assert vm.pid
        assert os.fsencode(f"guest={evil}") in Path(f"/proc/{vm.pid}/cmdline").read_bytes().split(b"\0")
    with pytest.raises(LaunchError, match="no such file"):
        Machine(f"./{evil}", cwd=tmp_path).launch()
    assert not list(tmp_path.rglob("was-run"))
