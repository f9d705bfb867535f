"""The command line, from spawn to reaped: help, which imports nothing, and a list of a hundred machines.

The floor of the help is Python itself. The machines are `-M none` QEMUs of four programs, which idle; the
commands write to a pipe.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator

from .floor import NO_MACHINE, QEMU
from .measuring import Figure, Goal, Side, by_turns

ROUNDS, QUICK = 30, 4
PROGRAMS, MACHINES = 4, 25
"""Of each program."""
COUNT = PROGRAMS * MACHINES

_PROGRAM = f"""
import logging
from vmfsm import Machine
logging.getLogger("vmfsm.logs").addHandler(logging.NullHandler())  # it would warn of every QEMU
machines = [Machine({QEMU!r}, {NO_MACHINE!r}).launch() for _ in range({MACHINES})]
print("up", flush=True)
input()
for machine in machines:
    machine.kill()
"""


def measure(rounds: int) -> list[Figure]:
    with _programs():
        samples = by_turns(
            rounds,
            help=_side("-m", "vmfsm", "--help"),
            ps=_side("-m", "vmfsm", "ps"),
            json=_side("-m", "vmfsm", "ps", "--json"),
            python=_side("-c", "pass"),
        )
    floor = samples["python"]["run"]
    return [
        Figure("vmfsm --help", "ms", samples["help"]["run"], floor, Goal("difference", 150)),
        Figure(f"vmfsm ps, {COUNT} machines", "ms", samples["ps"]["run"], floor, Goal("itself", 500)),
        Figure(f"(vmfsm ps --json, {COUNT} machines)", "ms", samples["json"]["run"], floor),
    ]


@contextlib.contextmanager
def _programs() -> Iterator[None]:
    programs = [
        subprocess.Popen([sys.executable, "-c", _PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(PROGRAMS)
    ]
    try:
        for program in programs:
            assert program.stdout is not None
            assert program.stdout.readline() == b"up\n"
        yield
    finally:
        for program in programs:
            program.communicate(b"\n")


def _side(*arguments: str) -> Side:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def side() -> dict[str, float]:
        begin = time.perf_counter()
        subprocess.run([sys.executable, *arguments], env=env, check=True, stdout=subprocess.PIPE)
        return {"run": (time.perf_counter() - begin) * 1e3}

    return side
