"""A descriptor added to a set of a running machine, from a plain thread.

The floor is two round trips of `query-status` by the same monitor. `remove-fd` is outside of what is
measured.
"""

import os
import time

from vmfsm import Machine

from .floor import NO_MACHINE, QEMU
from .measuring import Figure, Goal, by_turns

ROUNDS, QUICK = 150, 20
DESCRIPTORS = 20
"""How many make a sample."""


def measure(rounds: int) -> list[Figure]:
    reader, writer = os.pipe()
    with Machine(QEMU, NO_MACHINE).launch() as machine:

        def add() -> dict[str, float]:
            seconds = 0.0
            for _ in range(DESCRIPTORS):
                begin = time.perf_counter()
                name = machine.fds.add(reader)
                seconds += time.perf_counter() - begin
                machine.qmp.execute("remove-fd", fdset_id=int(os.path.basename(name)))
            return {"passed": seconds / DESCRIPTORS * 1e6}

        def ask_twice() -> dict[str, float]:
            begin = time.perf_counter()
            for _ in range(2 * DESCRIPTORS):
                machine.qmp.execute("query-status")
            return {"passed": (time.perf_counter() - begin) / DESCRIPTORS * 1e6}

        samples = by_turns(rounds, vmfsm=add, floor=ask_twice)
    os.close(reader)
    os.close(writer)
    floor = samples["floor"]["passed"]
    return [
        Figure("descriptor to a running machine", "µs", samples["vmfsm"]["passed"], floor, Goal("ratio", 1.3))
    ]
