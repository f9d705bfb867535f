"""Scripts that use machines, run by an interpreter of their own, to see what they leave behind."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

LIMIT = 60.0
"""Seconds that a script may take on a busy machine."""

# A machine with the tiny guest, up; the test is told of its process: pid and start time, `proc(5)`.
BEGINNING = """
import atexit, contextlib, os, signal, sys, threading, time
from pathlib import Path
from vmfsm import Machine, MachineDied, LaunchError, TransitionError, State, Reason
from vmfsm.testing import GUEST_ARGS

def tell(vm):
    start = Path(f"/proc/{vm.pid}/stat").read_text().rpartition(") ")[2].split()[19]
    os.write(1, f"QEMU {vm.pid} {start}\\n".encode())

def machine():
    return Machine("qemu-system-x86_64", GUEST_ARGS, base_dir=sys.argv[1])

vm = machine().launch()
tell(vm)
"""


class Ran(NamedTuple):
    """What a script did."""

    status: int
    out: str
    """Without what it told of its processes."""
    err: str
    left: list[str]
    """Its QEMUs that live, and what is in the directory that was its machines' alone."""


def run_script(body: str, directory: Path, *, beginning: str = BEGINNING) -> Ran:
    """Run `beginning` and then `body`; `directory` is for the machines.

    Warnings are shown, so that there are none, but for the one about forking beside threads.
    """
    options = ["-W", "default", "-W", "ignore:This process:DeprecationWarning"]
    with subprocess.Popen(
        [sys.executable, *options, "-c", beginning + textwrap.dedent(body), str(directory)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            for line in out.splitlines():
                _kill(line)
            raise AssertionError(f"it hangs\n{out}\n{err}") from None
    lines = out.splitlines(keepends=True)
    left = [line.strip() for line in lines if _lives(line)]
    for line in left:
        _kill(line)
    left += os.listdir(directory)
    return Ran(process.returncode, "".join(line for line in lines if not line.startswith("QEMU ")), err, left)


def _lives(line: str) -> bool:
    """Whether the process that the line tells of is there, be it as a zombie."""
    if not line.startswith("QEMU "):
        return False
    _, pid, start = line.split()
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[19] == start
    except OSError:
        return False


def _kill(line: str) -> None:
    if _lives(line):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(line.split()[1]), signal.SIGKILL)
