"""Thousands of launches in one process, one after the other, that end in every way there is.

New machines, and one that is launched again and again; monitors on a socket pair and at a path; launches that
fail; ends by `shutdown`, `kill`, `quit`, a signal of somebody else's, and an exception in the `with` block.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

from tests.bench.floor import NO_MACHINE, QEMU
from tests.waiting import InThread
from vmfsm import AbnormalExit, LaunchError, Machine, Reason, State, hookimpl

from .judging import LONG, Criterion, Outcome, Row, growth, steady
from .plot import Panel
from .sampling import COUNTS, Samples, place, quiet, sample

WARM_UP = 0.1
"""Of all cycles: caches and the malloc of each thread have their sizes by then."""
LOOKS = 100
RELAUNCHES = 50
"""Of one machine, in a long run: its `history` is that of all its launches, and goes with it."""


class Soak:
    """The machine that is launched again, and where the others put what they make."""

    def __init__(self, directory: str, relaunches: int) -> None:
        self.directory = directory
        self._relaunches = relaunches
        self._kept: Machine | None = None
        self._left = 0

    def make(self, **parameters: Any) -> Machine:
        return Machine(QEMU, NO_MACHINE, **parameters)

    def kept(self) -> Machine:
        if self._left == 0:
            self._kept, self._left = self.make(log_dir=self.directory), self._relaunches
        self._left -= 1
        assert self._kept
        return self._kept

    def at_path(self) -> Machine:
        return self.make(options={"qmp": {"address": f"{self.directory}/monitor"}})


class _Refuses:
    name = "refuses"

    @hookimpl
    def post_launch(self) -> None:
        raise RuntimeError("no good")


def shut_down(soak: Soak) -> None:
    machine = soak.make().launch()
    machine.qmp.execute("query-status")
    machine.shutdown()
    _expect(machine, State.STOPPED, Reason.REQUESTED)


def shut_down_at_path(soak: Soak) -> None:
    with soak.at_path().launch() as machine:
        machine.qmp.execute("stop")
        machine.qmp.wait_event("STOP")
    _expect(machine, State.STOPPED, Reason.REQUESTED)


def kill(soak: Soak) -> None:
    with soak.make().launch() as machine:
        machine.kill()
    _expect(machine, State.STOPPED, Reason.KILLED)


def launch_again(soak: Soak) -> None:
    with soak.kept().launch() as machine:
        machine.qmp.execute("query-status")
    _expect(machine, State.STOPPED, Reason.REQUESTED)


def kill_and_launch_again(soak: Soak) -> None:
    soak.kept().launch().kill()


def refused_by_qemu(soak: Soak) -> None:
    machine = Machine(QEMU, [*NO_MACHINE, "-device", "no-such-device"])
    _fails(machine, Reason.LAUNCH_ERROR)


def no_binary(soak: Soak) -> None:
    _fails(Machine(f"{soak.directory}/no-such-qemu"), Reason.LAUNCH_ERROR)


def refused_by_a_hook(soak: Soak) -> None:
    _fails(soak.make(plugins=[_Refuses()]), Reason.HOOK_FAILED)


def killed_by_somebody(soak: Soak) -> None:
    machine = soak.make().launch()
    assert machine.pid
    os.kill(machine.pid, signal.SIGKILL)
    with contextlib.suppress(AbnormalExit):
        machine.wait(60)
    _expect(machine, State.FAILED, Reason.QEMU_SIGNAL)


def quit_by_command(soak: Soak) -> None:
    with soak.make().launch() as machine:
        machine.qmp.execute("quit")
        machine.wait(60)
    _expect(machine, State.STOPPED, Reason.REQUESTED)


def left_by_an_exception(soak: Soak) -> None:
    with contextlib.suppress(ZeroDivisionError), soak.make().launch() as machine:
        raise ZeroDivisionError
    _expect(machine, State.STOPPED, Reason.REQUESTED)


def in_another_thread(soak: Soak) -> None:
    InThread(shut_down, soak).result(120)


Way = Callable[[Soak], None]

MIX: tuple[Way, ...] = (
    shut_down,
    shut_down_at_path,
    kill,
    launch_again,
    refused_by_qemu,
    refused_by_a_hook,
    killed_by_somebody,
    kill_and_launch_again,
    no_binary,
    quit_by_command,
    left_by_an_exception,
    in_another_thread,
)


def run(samples: Samples, *, cycles: int, mix: Sequence[Way] = MIX) -> Outcome:
    """Do that many, looking a hundred times, each time after as many of each kind."""
    every = max(1, cycles // LOOKS // len(mix)) * len(mix)
    begin = time.monotonic()
    with place() as directory:
        soak = Soak(directory, RELAUNCHES if cycles >= LONG else 2)
        for cycle in range(1, cycles // every * every + 1):
            mix[cycle % len(mix)](soak)
            if cycle % every == 0:
                quiet()
                samples.add(sample(cycle=cycle, seconds=time.monotonic() - begin))
    rows = samples.rows()
    each = rows[-1]["seconds"] / rows[-1]["cycle"]
    return Outcome(rows, judge(rows), PANELS, [f"a cycle took {each * 1e3:.0f} ms"])


def _expect(machine: Machine, state: State, reason: Reason) -> None:
    assert (machine.state, machine.reason) == (state, reason), machine


def _fails(machine: Machine, reason: Reason) -> None:
    try:
        machine.launch()
    except LaunchError:
        _expect(machine, State.FAILED, reason)
    else:
        raise AssertionError(f"{machine} is not to be launched")


PANELS = [
    Panel("memory", "KiB", "cycle", ["resident_kib", "anonymous_kib", "malloc_kib"]),
    Panel("Python's blocks", "", "cycle", ["blocks"]),
    Panel("descriptors, threads, children", "", "cycle", ["fds", "threads", "children"]),
]


def judge(rows: Sequence[Row]) -> list[Criterion]:
    """What comes after the warm-up."""
    judged = [row for row in rows if row["cycle"] >= WARM_UP * rows[-1]["cycle"]]
    return steady(judged, COUNTS) + growth(judged, "cycle")
