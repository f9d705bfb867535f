"""From SIGKILL of QEMU to a waiting thread that holds `MachineDied`, everything being cleaned up.

The floor is a thread that waits in `poll` on a bare QEMU's pidfd, and is told of nothing else.
"""

import asyncio
import logging
import os
import signal
import threading
import time

from vmfsm import Machine, MachineDied, State

from .floor import NO_MACHINE, QEMU, BareQEMU
from .measuring import Figure, Goal, by_turns

ROUNDS, QUICK = 100, 10
SETTLE = 0.005
"""Seconds for the waiting thread and QEMU to be asleep in what they wait in."""


def measure(rounds: int) -> list[Figure]:
    logging.getLogger("vmfsm.logs").addHandler(logging.NullHandler())  # it would warn of every QEMU
    samples = by_turns(rounds, vmfsm=_machine, floor=_bare)
    mine, floor = samples["vmfsm"]["told"], samples["floor"]["told"]
    return [Figure("SIGKILL until a waiter knows", "ms", mine, floor, Goal("difference", 5))]


class _Waiter:
    """A thread that waits for QEMU's end, and when it was told."""

    def __init__(self) -> None:
        self.waiting = threading.Event()
        self._told = 0.0
        self._thread = threading.Thread(target=self._run)

    def measure(self, pid: int) -> dict[str, float]:
        self._thread.start()
        self.waiting.wait()
        time.sleep(SETTLE)
        begin = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        self._thread.join()
        return {"told": (self._told - begin) * 1e3}

    def _run(self) -> None:
        self.wait()
        self._told = time.perf_counter()

    def wait(self) -> None:
        raise NotImplementedError


class _WaitsForMachine(_Waiter):
    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self._machine = machine

    def wait(self) -> None:
        try:
            self._machine.run(self._for_ever(), timeout=30, operation="waiting for ever")
        except MachineDied:
            assert self._machine.state is State.FAILED, "it was told too early"

    async def _for_ever(self) -> None:
        self.waiting.set()
        await asyncio.Event().wait()


class _WaitsForPidfd(_Waiter):
    def __init__(self, qemu: BareQEMU) -> None:
        super().__init__()
        self._qemu = qemu

    def wait(self) -> None:
        self.waiting.set()
        self._qemu.await_end()


def _machine() -> dict[str, float]:
    machine = Machine(QEMU, NO_MACHINE).launch()
    assert machine.pid is not None
    return _WaitsForMachine(machine).measure(machine.pid)


def _bare() -> dict[str, float]:
    with BareQEMU() as qemu:
        qemu.negotiate()
        return _WaitsForPidfd(qemu).measure(qemu.process.pid)
