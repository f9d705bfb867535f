"""What recording costs, and what it costs not to: the same with and without, by turns.

A cycle is `launch` and `shutdown`; a round trip is that of the benchmark `qmp`. The floor is a machine whose
recorder is off; of one that is off, a machine without the plugin. The console is that of the benchmark
`console`: what counts is what of it is in the file when `wait` has returned.
"""

import functools
import os
import shutil
import sys
import tempfile
import time
from typing import Any

from vmfsm import Machine, recording

from .console import LINES
from .flooder import __file__ as FLOODER
from .floor import NO_MACHINE, QEMU
from .measuring import Figure, Goal, Side, by_turns

ROUNDS, QUICK = 100, 10
COMMANDS = 200
"""How many commands make a sample."""
QUIET = 0.05
"""Seconds after which all is written that came before."""
MEGABYTES = 48
_SIZE = MEGABYTES * 1_000_000
_READY = "ready\n"
_OFF: dict[str, Any] = {}
_BLOCKED: dict[str, Any] = {"block": ["recorder"]}


def measure(rounds: int) -> list[Figure]:
    os.environ.pop("VMFSM_RECORD", None)
    directory = tempfile.mkdtemp(prefix="vmfsm-bench-")
    on: dict[str, Any] = {"options": {"recorder": {"directory": directory}}}
    try:
        cycles = by_turns(rounds, on=_cycle(on), off=_cycle(_OFF), blocked=_cycle(_BLOCKED))
        with (
            Machine(QEMU, NO_MACHINE, **on).launch() as recorded,
            Machine(QEMU, NO_MACHINE, **_OFF).launch() as off,
            Machine(QEMU, NO_MACHINE, **_BLOCKED).launch() as blocked,
        ):
            trips = by_turns(rounds, on=_trips(recorded), off=_trips(off), blocked=_trips(blocked))
            times = by_turns(rounds, vmfsm=functools.partial(_until_written, recorded))["vmfsm"]
        figures = [
            _beside("launch and shutdown", "ms", cycles, "on", "off", Goal("ratio", 1.05)),
            _beside("(the same, recorder off)", "ms", cycles, "off", "blocked"),
            _beside("QMP round trip", "µs", trips, "on", "off", Goal("ratio", 1.1)),
            _beside("(the same, recorder off)", "µs", trips, "off", "blocked"),
            Figure("record until it is in the file", "ms", times["time"]),
        ]
        for name, length in LINES.items():
            samples = by_turns(max(1, rounds // 10), vmfsm=functools.partial(_flood, length, directory))
            goal = Goal("itself", 50, at_least=True)
            figures.append(Figure(f"console recorded, {name}", "MB/s", samples["vmfsm"]["rate"], goal=goal))
            figures.append(Figure("(of what was said)", "%", samples["vmfsm"]["share"]))
        return figures
    finally:
        shutil.rmtree(directory)


def _beside(name: str, unit: str, samples: Any, side: str, floor: str, goal: Goal | None = None) -> Figure:
    return Figure(name, unit, samples[side]["time"], samples[floor]["time"], goal)


def _cycle(parameters: dict[str, Any]) -> Side:
    def side() -> dict[str, float]:
        machine = Machine(QEMU, NO_MACHINE, **parameters)
        begin = time.perf_counter()
        machine.launch()
        machine.shutdown()
        return {"time": (time.perf_counter() - begin) * 1e3}

    return side


def _trips(machine: Machine) -> Side:
    def side() -> dict[str, float]:
        begin = time.perf_counter()
        for _ in range(COMMANDS):
            machine.qmp.execute("query-status")
        return {"time": (time.perf_counter() - begin) / COMMANDS * 1e6}

    return side


def _until_written(machine: Machine) -> dict[str, float]:
    """Of what happens while nothing else does."""
    time.sleep(QUIET)
    path = machine.plugin("recorder").path
    before = os.stat(path).st_size
    begin = time.perf_counter()
    machine.qmp.execute("query-status")
    while os.stat(path).st_size == before:
        time.sleep(0.0005)
    return {"time": (time.perf_counter() - begin) * 1e3}


def _flood(length: int, directory: str) -> dict[str, float]:
    flooder = [sys.executable, FLOODER, str(_SIZE), str(length)]
    options = {"recorder": {"directory": directory, "max_bytes": 1_000_000_000, "files": 2}}
    with Machine(sys.executable, wrapper=flooder, block=["qmp", "fdpass"], options=options) as machine:
        machine.launch()
        machine.console.expect(_READY)
        begin = time.perf_counter()
        machine.console.send(b"g")
        machine.wait()
        seconds = time.perf_counter() - begin
        path = machine.plugin("recorder").path
    records = recording.read(path).records()
    said = sum(len(str(record.data["text"])) for record in records if record.kind == "console")
    os.unlink(path)
    return {"rate": said / 1e6 / seconds, "share": said / _SIZE * 100}
