"""A machine with a companion, from `launch` to a monitor that takes commands.

The floor is the sum of its parts, each measured alone: the companion until it can be connected to, and the
launch of a machine without one. The companion is swtpm, which makes its socket when it has started; once as
it is, and once after a pause, since it is looked for less and less often.
"""

import contextlib
import functools
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence

from vmfsm import LaunchPlan, Machine, hookimpl

from .floor import NO_MACHINE, QEMU
from .measuring import Figure, Goal, by_turns

ROUNDS, QUICK = 100, 10


PAUSE = 0.06


def measure(rounds: int) -> list[Figure]:
    figures = []
    for title, pause in (("swtpm", 0.0), ("a slow swtpm", PAUSE)):
        samples = by_turns(
            rounds,
            both=functools.partial(_both, pause),
            companion=functools.partial(_companion, pause),
            machine=_machine,
        )
        companion, machine = samples["companion"]["ready"], samples["machine"]["launch"]
        parts = [sum(pair) for pair in zip(companion, machine, strict=True)]
        figures += [
            Figure(f"launch with {title}", "ms", samples["both"]["launch"], parts, Goal("ratio", 1.1)),
            Figure(f"({title} alone, until it listens)", "ms", companion),
        ]
    return figures


class _Swtpm:
    name = "swtpm"

    def __init__(self, pause: float) -> None:
        self.pause = pause

    @hookimpl
    def pre_launch(self, plan: LaunchPlan) -> None:
        plan.companion(_command(plan.directory, self.pause), ready=f"{plan.directory}/socket")


def _command(directory: str, pause: float) -> Sequence[str]:
    where = ("--tpmstate", f"dir={directory}", "--ctrl", f"type=unixio,path={directory}/socket")
    swtpm = ("swtpm", "socket", "--tpm2", *where)
    return ("sh", "-c", f"sleep {pause}; exec {shlex.join(swtpm)}") if pause else swtpm


def _both(pause: float) -> dict[str, float]:
    return _launch(Machine(QEMU, NO_MACHINE, plugins=[_Swtpm(pause)]))


def _machine() -> dict[str, float]:
    return _launch(Machine(QEMU, NO_MACHINE))


def _launch(machine: Machine) -> dict[str, float]:
    with machine:
        begin = time.perf_counter()
        machine.launch()
        return {"launch": (time.perf_counter() - begin) * 1e3}


def _companion(pause: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as directory:
        begin = time.perf_counter()
        with _started(_command(directory, pause)):
            while not _connects(f"{directory}/socket"):
                time.sleep(0.0001)
            return {"ready": (time.perf_counter() - begin) * 1e3}


@contextlib.contextmanager
def _started(command: Sequence[str]) -> Iterator[None]:
    null = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=null, stdout=null, stderr=null) as process:
        try:
            yield
        finally:
            process.kill()


def _connects(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(path)
        except OSError:
            return False
        return True
