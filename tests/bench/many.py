"""A hundred machines in one process: what each of them costs, and what becomes of the threads.

Each repetition is a process of its own, so that memory which an earlier one gave back to Python hides
nothing. Memory is what is resident, after a garbage collection; before the first count one machine has come
and gone, so that what exists once in a process is there. Threads are counted by the kernel: after that one
machine, and, as many as there ever are, while all are killed at once. The floor of the time that takes is the
same number of bare QEMUs.
"""

import gc
import json
import logging
import os
import select
import signal
import subprocess
import sys
import time

from vmfsm import Machine, State

from .floor import NO_MACHINE, QEMU, BareQEMU
from .measuring import Figure, Goal

ROUNDS, QUICK = 5, 1
MACHINES = 100
COMMANDS = 20


def measure(rounds: int) -> list[Figure]:
    runs = [_in_own_process() for _ in range(rounds)]
    samples = {what: [run[what] for run in runs] for what in runs[0]}
    kib = Goal("itself", 200)
    return [
        Figure("memory a machine, launched", "KiB", samples["launched"], goal=kib),
        Figure(f"memory a machine, {COMMANDS} commands later", "KiB", samples["used"], goal=kib),
        Figure("threads more than with one machine", "", samples["threads"], goal=Goal("itself", 0)),
        Figure("(threads with one machine)", "", samples["threads-of-one"]),
        Figure(f"{MACHINES} killed at once, until all are final", "ms", samples["final"], samples["reaped"]),
    ]


def _in_own_process() -> dict[str, float]:
    command = [sys.executable, "-m", __name__]
    said = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    figures: dict[str, float] = json.loads(said)
    return figures


def _run() -> dict[str, float]:
    logging.getLogger("vmfsm.logs").addHandler(logging.NullHandler())  # it would warn of every QEMU
    reaped = _kill_bare()
    with Machine(QEMU, NO_MACHINE).launch() as first:
        first.qmp.execute("query-status")
    threads_of_one = _threads()
    before = _resident()
    machines = [Machine(QEMU, NO_MACHINE).launch() for _ in range(MACHINES)]
    launched = _resident()
    for machine in machines:
        for _ in range(COMMANDS):
            machine.qmp.execute("query-status")
    used = _resident()
    most_threads = _threads()

    pids = [machine.pid for machine in machines]
    begin = time.perf_counter()
    for pid in pids:
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    living = machines
    while living:
        most_threads = max(most_threads, _threads())
        time.sleep(0.001)  # leave the interpreter to those who are at work
        living = [machine for machine in living if machine.state is not State.FAILED]
    final = time.perf_counter() - begin
    return {
        "launched": (launched - before) / MACHINES,
        "used": (used - before) / MACHINES,
        "threads": most_threads - threads_of_one,
        "threads-of-one": threads_of_one,
        "final": final * 1e3,
        "reaped": reaped * 1e3,
    }


def _kill_bare() -> float:
    qemus = [BareQEMU() for _ in range(MACHINES)]
    poll = select.poll()
    for qemu in qemus:
        qemu.negotiate()
        poll.register(qemu.pidfd, select.POLLIN)
    of_pidfd = {qemu.pidfd: qemu for qemu in qemus}
    begin = time.perf_counter()
    for qemu in qemus:
        qemu.process.kill()
    while of_pidfd:
        for pidfd, _ in poll.poll():
            poll.unregister(pidfd)
            of_pidfd.pop(pidfd).process.wait()
    reaped = time.perf_counter() - begin
    for qemu in qemus:
        with qemu:
            pass
    return reaped


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))


def _resident() -> float:
    """KiB."""
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024


if __name__ == "__main__":
    json.dump(_run(), sys.stdout)
