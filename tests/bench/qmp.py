"""A round trip of `query-status`, from a plain thread.

The floor is `qemu.qmp`, which the plugin is built on, under `run_until_complete`: the least that synchronous
code can do with it. Beside it, for comparison, what a bare socket and `json` take.
"""

import asyncio
import time
from collections.abc import Callable

from qemu.qmp import QMPClient

from vmfsm import Machine

from .floor import NO_MACHINE, QEMU, BareQEMU
from .measuring import Figure, Goal, Side, by_turns

ROUNDS, QUICK = 150, 20
COMMANDS = 40
"""How many commands make a sample."""


def measure(rounds: int) -> list[Figure]:
    loop = asyncio.new_event_loop()
    client = QMPClient("floor")
    # qemu.qmp negotiates itself, so its QEMU's greeting must not have been read.
    with Machine(QEMU, NO_MACHINE).launch() as machine, BareQEMU() as of_client, BareQEMU() as bare:
        bare.negotiate()
        loop.run_until_complete(client.connect(of_client.monitor.dup()))
        samples = by_turns(
            rounds,
            vmfsm=_timed(lambda: machine.qmp.execute("query-status")),
            floor=_timed(lambda: loop.run_until_complete(client.execute("query-status"))),
            socket=_timed(lambda: bare.execute("query-status")),
        )
        loop.run_until_complete(client.disconnect())
    loop.close()
    floor = samples["floor"]["trip"]
    return [
        Figure("QMP round trip", "µs", samples["vmfsm"]["trip"], floor, Goal("ratio", 1.3)),
        Figure("(the same by a bare socket)", "µs", samples["socket"]["trip"], floor),
    ]


def _timed(execute: Callable[[], object]) -> Side:
    def side() -> dict[str, float]:
        begin = time.perf_counter()
        for _ in range(COMMANDS):
            execute()
        return {"trip": (time.perf_counter() - begin) / COMMANDS * 1e6}

    return side
