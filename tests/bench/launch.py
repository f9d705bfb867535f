"""From `launch` to a monitor that takes commands, and from `shutdown` to a QEMU that is reaped.

The floor spawns QEMU with a monitor on a socket pair, reads the greeting and has `qmp_capabilities`
answered; then it sends `quit`, polls the pidfd and reaps. Machines have their default plugins.
"""

import time

from vmfsm import Machine

from .floor import NO_MACHINE, QEMU, BareQEMU
from .measuring import Figure, Goal, by_turns

ROUNDS, QUICK = 100, 10
SETTLE = 0.005
"""Seconds for QEMU and all threads to come to rest between the two."""


def measure(rounds: int) -> list[Figure]:
    samples = by_turns(rounds, vmfsm=_machine, floor=_bare)
    mine, floor = samples["vmfsm"], samples["floor"]
    return [
        Figure("machine constructed", "ms", mine["construct"]),
        Figure("launch until QMP is ready", "ms", mine["launch"], floor["launch"], Goal("ratio", 1.1)),
        Figure("shutdown until reaped", "ms", mine["stop"], floor["stop"], Goal("difference", 1)),
    ]


def _machine() -> dict[str, float]:
    begin = time.perf_counter()
    machine = Machine(QEMU, NO_MACHINE)
    constructed = time.perf_counter()
    with machine:
        machine.launch()
        launched = time.perf_counter()
        time.sleep(SETTLE)
        stopping = time.perf_counter()
        machine.shutdown()
        stopped = time.perf_counter()
    return {
        "construct": (constructed - begin) * 1e3,
        "launch": (launched - constructed) * 1e3,
        "stop": (stopped - stopping) * 1e3,
    }


def _bare() -> dict[str, float]:
    begin = time.perf_counter()
    with BareQEMU() as qemu:
        qemu.negotiate()
        launched = time.perf_counter()
        time.sleep(SETTLE)
        stopping = time.perf_counter()
        qemu.quit()
        stopped = time.perf_counter()
    return {"launch": (launched - begin) * 1e3, "stop": (stopped - stopping) * 1e3}
