"""Two hundred machines at once, of which some end every moment, in ways that chance picks, and come again.

A few threads have their share of the machines each. In every round each machine ends once, alone or together
with others, in an order and a way that chance picks; it is launched again, and the next time replaced by a
new one. So after every round all of them run and half of them are new, and the process is to have as much as
after the round before. It is to have as much when all have gone as before there were any, too.
"""

import contextlib
import itertools
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence

from tests.bench.floor import NO_MACHINE, QEMU
from tests.waiting import InThread, until
from vmfsm import AbnormalExit, Machine, Reason, State
from vmfsm.exit_guard import ExitGuard
from vmfsm.testing import GUEST_ARGS

from .judging import IN_ALL, Criterion, Outcome, Row, growth, steady
from .plot import Panel
from .sampling import COUNTS, Samples, place, quiet, sample

THREADS = 8
GUESTS_EVERY = 10
"""One machine in ten has a guest, whose QEMU is never idle."""
WARM_UP = 0.25
"""Of the rounds."""
LEAST_ROUNDS = 4
PATIENCE = 120.0
"""Seconds for any call, as all processors are busy."""

VARIES = {"resident_kib": 20, "malloc_kib": 2, "blocks": 10}
"""For each machine: what any two moments may differ by, since its timeline tells how it ended."""
LEFT = {"malloc_kib": 512, "blocks": 5_000}
"""What may be left when all have gone, beside what one of each kind has left: caches that are larger, and
what each of the interpreter's and of malloc's pools keeps. It is less than what ten machines have had."""


class _Slot:
    """A machine, and the next of the same kind when that is replaced."""

    def __init__(self, number: int, directory: str) -> None:
        self._number = number
        self._directory = directory
        self.has_guest = number % GUESTS_EVERY == 0
        self._at_path = number % 2 == 1
        self._counts = itertools.count(1)
        self._is_old = number % 4 < 2
        self._replace()

    def _replace(self) -> None:
        name = f"m{self._number}-{next(self._counts)}"
        if self.has_guest:
            self.machine = Machine(QEMU, GUEST_ARGS, name=name, expected_exits=(0, 7))
        else:
            options = {"qmp": {"address": f"{self._directory}/{name}"}} if self._at_path else {}
            self.machine = Machine(QEMU, NO_MACHINE, name=name, options=options)

    def launch(self) -> None:
        self.machine.launch(PATIENCE)
        if self.has_guest:
            self.machine.console.expect("ready", timeout=PATIENCE)
        assert self.machine.qmp.execute("query-status", timeout=PATIENCE)["running"]

    def launch_next(self) -> None:
        if self._is_old:
            self._replace()
        self._is_old = not self._is_old
        self.launch()

    # Ways in which it ends.

    def sigkill(self) -> None:
        assert self.machine.pid
        os.kill(self.machine.pid, signal.SIGKILL)

    def kill(self) -> None:
        self.machine.kill(PATIENCE)

    def shut_down(self) -> None:
        self.machine.shutdown(timeout=PATIENCE)

    def end_from_inside(self) -> None:
        """By the guest, and where there is none by a command."""
        if self.has_guest:
            self.machine.console.sendline("exit 3", timeout=PATIENCE)
        else:
            self.machine.qmp.execute("quit", timeout=PATIENCE)

    def see_it_ended(self, way: "Way") -> None:
        with contextlib.suppress(AbnormalExit):
            self.machine.wait(PATIENCE)
        state, reasons = WAYS[way]
        assert self.machine.state is state, (self.machine, way)
        assert self.machine.reason in reasons, (self.machine, way)


Way = Callable[[_Slot], None]

WAYS: dict[Way, tuple[State, tuple[Reason, ...]]] = {
    _Slot.sigkill: (State.FAILED, (Reason.QEMU_SIGNAL,)),
    _Slot.kill: (State.STOPPED, (Reason.KILLED,)),
    _Slot.shut_down: (State.STOPPED, (Reason.REQUESTED,)),
    # Which of the last two depends on the QEMU: newer ones tell of it.
    _Slot.end_from_inside: (State.STOPPED, (Reason.REQUESTED, Reason.QEMU_EXIT, Reason.GUEST_SHUTDOWN)),
}


class _Fleet:
    """The machines of one thread."""

    def __init__(self, slots: Sequence[_Slot], seed: str) -> None:
        self._slots = slots
        self._random = random.Random(seed)

    def launch(self) -> None:
        for slot in self._slots:
            slot.launch()

    def end_each(self) -> None:
        """And launch it, or the one that takes its place."""
        order = self._random.sample(self._slots, len(self._slots))
        while order:
            together = self._random.choice((1, 1, 1, 6))
            ending, order = order[:together], order[together:]
            way = self._random.choice(list(WAYS))
            for slot in ending:
                way(slot)
            for slot in ending:
                slot.see_it_ended(way)
                slot.launch_next()

    def end(self) -> None:
        for slot in self._slots:
            slot.kill()


def run(samples: Samples, *, machines: int, minutes: float, seed: int) -> Outcome:
    """Have rounds for that long, and a few at least."""
    with place() as directory:
        for number in (0, 1, 2):  # what exists once in a process is there
            one = _Slot(number, directory)
            one.launch()
            one.kill()
            del one
        quiet()
        empty = sample(cycle=0, seconds=0)
        begin = time.monotonic()
        slots = [_Slot(number, directory) for number in range(machines)]
        fleets = [_Fleet(slots[number::THREADS], f"{seed}/{number}") for number in range(THREADS)]
        _all_do(fleets, _Fleet.launch)
        for number in itertools.count(1):
            _all_do(fleets, _Fleet.end_each)
            until(lambda: len(ExitGuard.get().machines) == machines)
            samples.add(sample(cycle=number * machines, seconds=time.monotonic() - begin))
            print(f"many: {number * machines} endings", file=sys.stderr, flush=True)
            if samples.last["seconds"] > minutes * 60 and number >= LEAST_ROUNDS:
                break
        _all_do(fleets, _Fleet.end)
        del slots, fleets
        quiet()
        gone = sample(cycle=samples.last["cycle"], seconds=time.monotonic() - begin)
    rows = samples.rows()
    samples.add(gone)
    return Outcome([*rows, gone], judge(empty, rows, gone), PANELS, [f"seed {seed}"])


def _all_do(fleets: Sequence[_Fleet], what: Callable[[_Fleet], None]) -> None:
    """In new threads each time."""
    for thread in [InThread(what, fleet) for fleet in fleets]:
        thread.result(3600)


def judge(empty: Row, rows: Sequence[Row], gone: Row) -> list[Criterion]:
    """While they run, after the warm-up; and when they have gone."""
    judged = rows[int(len(rows) * WARM_UP) :]
    machines = rows[0]["machines"]
    varies = {column: IN_ALL[column] + each * machines for column, each in VARIES.items()}
    there = [column for column in COUNTS if column != "tasks"]  # the last calls' may not have ended
    return [
        *steady(judged, there),
        *growth(judged, "cycle", varies),
        *(
            criterion._replace(name=f"all gone: {criterion.name}")
            for criterion in steady([empty, gone], COUNTS)
        ),
        *(
            Criterion(f"all gone: {column}, more than at first", gone[column] - empty[column], "", limit)
            for column, limit in LEFT.items()
        ),
    ]


PANELS = [
    Panel("memory", "KiB", "cycle", ["resident_kib", "anonymous_kib", "malloc_kib"]),
    Panel("descriptors, threads, children", "", "cycle", ["fds", "threads", "children"]),
]
