"""Running the command line as users do: as a program, whose output goes somewhere."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import TypeAlias

import pytest

from tests.waiting import LIMIT
from vmfsm.cli import program

COLUMNS_UNKNOWN = {"COLUMNS": None, "NO_COLOR": None, "TERM": "xterm-256color"}


def environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    """This process's, with changes; `None` takes a variable away."""
    merged = {**os.environ, **COLUMNS_UNKNOWN, **changes}
    return {name: value for name, value in merged.items() if value is not None}


def vmfsm(*arguments: str, **env: str | None) -> subprocess.CompletedProcess[str]:
    """`vmfsm ARGUMENTS`, with pipes."""
    return subprocess.run(
        [sys.executable, "-m", "vmfsm", *arguments],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(env),
        timeout=LIMIT,
    )


PATIENT = {"VMFSM_TIMEOUT_SCALE": "20"}
"""For who has to answer a command, be the machine ever so busy."""


def patient_vmfsm(*arguments: str, **env: str | None) -> subprocess.CompletedProcess[str]:
    """`vmfsm ARGUMENTS`, whose timeouts are longer than they say."""
    return vmfsm(*arguments, **{**PATIENT, **env})


Here: TypeAlias = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def here(qemu: str, capfd: pytest.CaptureFixture[str]) -> Here:
    """`vmfsm ARGUMENTS` in this process, which takes a fraction of the time."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        status = program.run(arguments)
        return subprocess.CompletedProcess(arguments, status, *capfd.readouterr())

    return run
