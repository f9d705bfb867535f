"""The stand-ins import `qemu.machine`, as what they stand for does: here that is the drop-in."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from vmfsm.compat import install

install()

ROOT = Path(__file__).parents[3]
LIMIT = 120.0
"""Seconds that a script may take on a busy machine."""

RunCode = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run_code(tmp_path: Path) -> RunCode:
    """Runs code that knows nothing of the drop-in, with warnings as errors: what it wrote, in one stream."""

    def run(
        *words: str, environment: Mapping[str, str] | None = None, limit: float = LIMIT
    ) -> "subprocess.CompletedProcess[str]":
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTEST"))}
        variables = {"PYTHONPATH": str(ROOT), **(environment or {})}
        with subprocess.Popen(
            [sys.executable, "-u", "-W", "error", "-m", "vmfsm.compat", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=tmp_path,
            env=inherited | variables,
            text=True,
        ) as process:
            try:
                output, _ = process.communicate(timeout=limit)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return subprocess.CompletedProcess(process.args, process.returncode, output)

    return run
