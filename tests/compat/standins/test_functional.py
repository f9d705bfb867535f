"""Functional tests, run as they are: by their own runner, with Python's warnings as errors."""

import ast
import os
from pathlib import Path

import pytest

from tests.compat.standins.conftest import RunCode

SCRIPT = Path(__file__).with_name("functional_script.py")
CLASSES = [node.name for node in ast.parse(SCRIPT.read_text()).body if isinstance(node, ast.ClassDef)]


@pytest.mark.parametrize("name", CLASSES)
def test_functional(run_code: RunCode, qemu: str, tmp_path: Path, name: str) -> None:
    environment = {"QEMU_TEST_QEMU_BINARY": qemu, "QEMU_TEST_DIR": str(tmp_path)}
    result = run_code(str(SCRIPT), "-v", name, environment=environment)
    assert result.returncode == 0, result.stdout
    assert result.stdout.rstrip().endswith("\nOK"), result.stdout
    assert "Warning" not in result.stdout
    left = [file for directory in tmp_path.iterdir() for file in os.listdir(directory)]
    assert [file for file in left if not file.endswith(".log")] == []
