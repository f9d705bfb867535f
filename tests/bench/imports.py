"""`from vmfsm import Machine` beside the import of the three packages that it is built on.

In fresh interpreters. Nothing is subtracted: these are whole processes, from spawn to reaped. What of them
is Python itself is a figure of its own. All of them find compiled modules, as those of an installed
package are.
"""

import os
import subprocess
import sys
import time

from .measuring import Figure, Goal, Side, by_turns

ROUNDS, QUICK = 60, 8


def measure(rounds: int) -> list[Figure]:
    samples = by_turns(
        rounds,
        vmfsm=_python("from vmfsm import Machine"),
        floor=_python("import transitions, pluggy, qemu.qmp"),
        machine=_python("import vmfsm; vmfsm.Machine('qemu-system-x86_64')"),
        python=_python("pass"),
    )
    mine, floor = samples["vmfsm"]["run"], samples["floor"]["run"]
    return [
        Figure("from vmfsm import Machine", "ms", mine, floor, Goal("ratio", 1.3)),
        Figure("(and the first machine constructed)", "ms", samples["machine"]["run"], floor),
        Figure("(Python's own start)", "ms", samples["python"]["run"], floor),
    ]


def _python(program: str) -> Side:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def side() -> dict[str, float]:
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", program], env=env, check=True)
        return {"run": (time.perf_counter() - begin) * 1e3}

    return side
