"""A harness with idle machines, and with threads that wait for them, sleeps: nothing of it is ever woken.

It is a process of its own, looked at from outside, so that looking wakes nobody. The kernel counts how long
each thread has run, and how often it was given a processor: `/proc/PID/task/TID/schedstat`, first and third
field. A thread that slept all the time has run for 0 ns, in 0 slices.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from vmfsm import watchdog

from . import idling
from .judging import Criterion, Outcome, Row
from .plot import Panel
from .sampling import Samples

QUIET, PATIENCE = 1.0, 60.0
"""What the launches have set off is over when nobody has run for that long; seconds."""
LOOKS = 60
CPU, SLICES = 1.0, 6.0
"""Milliseconds and slices an hour. There is nothing at all to do; this is for what a kernel may have a thread
do by itself. A single periodic wake-up, were it one in five minutes, is more."""
CPU_IN_ALL, SLICES_IN_ALL = 0.5, 2.0
"""The same, however short the time."""


class _Spent(NamedTuple):
    milliseconds: float = 0.0
    slices: int = 0


Threads = dict[int, _Spent]
"""What each has spent since it exists."""


def run(samples: Samples, *, minutes: float, program: Sequence[str] = ("-m", idling.__name__)) -> Outcome:
    """Watch for that long.

    :param program: the harness, as arguments for Python.
    """
    with _harness(program) as (pid, qemus):
        ours = {"harness": pid, "watchdog": _watchdog_of(pid)}
        watched = ours | qemus
        _settle(ours.values())
        begin = time.monotonic()
        before = {name: _threads(pid) for name, pid in watched.items()}
        for look in range(LOOKS + 1):
            time.sleep(max(0.0, begin + look * minutes * 60 / LOOKS - time.monotonic()))
            row = {"minutes": (time.monotonic() - begin) / 60}
            now = {name: _threads(pid) for name, pid in watched.items()}
            for name in watched:
                spent = _sum(_since(before[name], now[name]))
                row |= {f"{name}_cpu_ms": spent.milliseconds, f"{name}_slices": spent.slices}
            samples.add(row)
        busiest = _busiest(pid, _since(before["harness"], now["harness"]))
    last = samples.last
    return Outcome(
        samples.rows(),
        [criterion for name in ours for criterion in _judge(name, last)],
        [Panel("CPU time", "ms", "minutes", [f"{name}_cpu_ms" for name in watched])],
        [f"of the harness's threads ran most: {busiest}", *(_about_qemu(name, last) for name in qemus)],
    )


def _judge(name: str, last: Row) -> list[Criterion]:
    hours = last["minutes"] / 60
    period = f"in {last['minutes']:.3g} minutes"
    cpu, slices = CPU_IN_ALL + CPU * hours, SLICES_IN_ALL + SLICES * hours
    return [
        Criterion(f"CPU time of the {name}", last[f"{name}_cpu_ms"], f"ms {period}", cpu),
        Criterion(f"slices of the {name}", last[f"{name}_slices"], period, slices),
    ]


def _about_qemu(name: str, last: Row) -> str:
    hours = last["minutes"] / 60
    cpu, slices = last[f"{name}_cpu_ms"] / hours, last[f"{name}_slices"] / hours
    return f"the QEMU of machine {name}: {cpu:,.0f} ms of CPU and {slices:,.0f} slices an hour"


@contextlib.contextmanager
def _harness(program: Sequence[str]) -> Iterator[tuple[int, dict[str, int]]]:
    """Its pid, and those of its QEMUs by the names of the machines."""
    command = [sys.executable, *program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield process.pid, json.loads(process.stdout.readline())
        process.communicate()  # its input ends, and then it does
    assert process.returncode == 0, process.returncode


def _watchdog_of(pid: int) -> int:
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            if Path(f"/proc/{child}/comm").read_text().strip() == watchdog.NAME:
                return int(child)
    raise AssertionError("the harness has no watchdog")


def _settle(pids: Collection[int]) -> None:
    deadline = time.monotonic() + PATIENCE
    before: list[Threads] = []
    while (now := [_threads(pid) for pid in pids]) != before and time.monotonic() < deadline:
        before = now
        time.sleep(QUIET)


def _threads(pid: int) -> Threads:
    threads = {}
    for thread in map(int, os.listdir(f"/proc/{pid}/task")):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # one of QEMU's, that has ended
            running, _, slices = Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()
            threads[thread] = _Spent(int(running) / 1e6, int(slices))
    return threads


def _since(before: Threads, now: Threads) -> Threads:
    return {
        thread: _Spent(spent.milliseconds - then.milliseconds, spent.slices - then.slices)
        for thread, spent in now.items()
        for then in (before.get(thread, _Spent()),)
    }


def _sum(threads: Threads) -> _Spent:
    return _Spent(
        sum(spent.milliseconds for spent in threads.values()), sum(spent.slices for spent in threads.values())
    )


def _busiest(pid: int, threads: Threads) -> str:
    thread = max(threads, key=lambda thread: threads[thread])
    name = Path(f"/proc/{pid}/task/{thread}/comm").read_text().strip()
    return f"{name}, for {threads[thread].milliseconds:.3f} ms in {threads[thread].slices} slices"
