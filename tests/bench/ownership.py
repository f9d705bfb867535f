"""What it costs that nothing outlives its harness, of a launch and a shutdown.

The floor is the same machine, owned by nobody: with no mark, no entry in the registry and no watchdog.
"""

import time
from collections.abc import Mapping
from unittest import mock

from vmfsm import Machine
from vmfsm.ownership import Owned, Ownership

from .floor import NO_MACHINE, QEMU
from .measuring import Figure, Goal, by_turns

ROUNDS, QUICK = 200, 10


def measure(rounds: int) -> list[Figure]:
    samples = by_turns(rounds, owned=_cycle, floor=_cycle_of_nobody)
    mine, floor = samples["owned"]["cycle"], samples["floor"]["cycle"]
    return [Figure("launch and shutdown, owned", "ms", mine, floor, Goal("ratio", 1.05))]


def _cycle() -> Mapping[str, float]:
    begin = time.perf_counter()
    with Machine(QEMU, NO_MACHINE) as machine:
        machine.launch()
        machine.shutdown()
    return {"cycle": (time.perf_counter() - begin) * 1e3}


def _cycle_of_nobody() -> Mapping[str, float]:
    def own_nothing(self: Ownership, name: str, directory: str) -> Owned:
        return Owned("", None)

    with mock.patch.object(Ownership, "own", own_nothing):
        return _cycle()
