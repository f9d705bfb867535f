"""Machines and devices by the hundred, most of which do not start: always for the reason that QEMU gives.

Here it is a sample of them. Where VMFSM_TEST_COMBINATIONS is set it is all.
"""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.compat.standins import combinations_script
from tests.compat.standins.conftest import RunCode

WHOLE = os.environ.get("VMFSM_TEST_COMBINATIONS", "") not in {"", "0"}
SAMPLE = 40
MACHINES = ("pc", "none")
QMP = '{"execute": "qmp_capabilities"}{"execute": "quit"}'


def directly(qemu: str, machine: str, device: str | None) -> tuple[bool, int, str]:
    """What QEMU does, without anybody else: whether it starts, its exit status, what it says."""
    ran = subprocess.run(
        [
            *(
                qemu,
                "-display",
                "none",
                "-vga",
                "none",
                "-chardev",
                "stdio,id=mon",
                "-mon",
                "chardev=mon,mode=control",
            ),
            *combinations_script.arguments((machine, device)),
        ],
        check=False,
        input=QMP,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return '"return"' in ran.stdout, ran.returncode, ran.stderr


def same(text: str) -> str:
    """Without what is never the same twice."""
    return re.sub(r"0x[0-9a-f]+", "0x", text)


@pytest.fixture
def tried(run_code: RunCode, qemu: str) -> list[dict[str, Any]]:
    everything = len(list(combinations_script.combinations(qemu, MACHINES)))
    step = 1 if WHOLE else everything // SAMPLE
    result = run_code(
        str(Path(combinations_script.__file__)), qemu, str(step // 2), str(step), *MACHINES, limit=7200
    )
    assert result.returncode == 0, result.stdout
    lines = result.stdout.splitlines()
    assert [line for line in lines if not line.startswith("{")] == [], "nothing else is said"
    return [json.loads(line) for line in lines]


@pytest.mark.timeout(7200 if WHOLE else 300)
def test_verdicts_are_qemus(tried: list[dict[str, Any]], qemu: str) -> None:
    different = []
    for each in tried:
        verdict = each["starts"], each["exitcode"], same(each["log"])
        starts, status, errors = directly(qemu, each["machine"], each["device"])
        if verdict != (starts, status, same(errors)):
            different.append((each["machine"], each["device"], verdict, (starts, status, errors)))
    started = sum(each["starts"] for each in tried)
    print(f"{len(tried)} combinations: {started} start, {len(tried) - started} do not")
    assert different == []
    assert 0 < started < len(tried)
