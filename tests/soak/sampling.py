"""What this process has at one moment: memory, descriptors, threads, tasks, children, files.

`proc(5)` tells of memory and descriptors, `mallinfo(3)` of what is in use of it: Linux and glibc.
"""

import asyncio
import concurrent.futures
import contextlib
import csv
import ctypes
import gc
import linecache
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.waiting import until
from vmfsm import registry
from vmfsm.exit_guard import ExitGuard
from vmfsm.iothread import IOThread
from vmfsm.ownership import Ownership
from vmfsm.preparation import private_directories

from .judging import Row

COUNTS = ("fds", "sockets", "pipes", "threads", "tasks", "children", "machines", "entries", "directories")
"""Of which there must be no more."""


def sample(**columns: float) -> Row:
    """All of it, and `columns`.

    Pages are resident, as `proc(5)` counts them (RSS); in proportion to how many processes share them (PSS),
    which changes with others'; and anonymous, of no file. By malloc is in use what was taken for C's needs
    and Python's objects from 512 bytes on; of smaller ones there are blocks.
    """
    linecache.clearcache()  # lines of the sources that tracebacks have shown, a file at a time
    gc.collect()
    rollup = dict(line.split()[:2] for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    kinds = _descriptors()
    return {
        **columns,
        "resident_kib": float(rollup["Rss:"]),
        "proportional_kib": float(rollup["Pss:"]),
        "anonymous_kib": float(rollup["Anonymous:"]),
        "malloc_kib": _allocated() / 1024,
        "blocks": float(sys.getallocatedblocks()),
        "objects": len(gc.get_objects()),
        "fds": len(kinds),
        "sockets": sum(kind.startswith("socket:") for kind in kinds),
        "pipes": sum(kind.startswith("pipe:") for kind in kinds),
        "threads": len(os.listdir("/proc/self/task")),
        "tasks": tasks(),
        "children": children(),
        "machines": len(ExitGuard.get().machines),
        "entries": sum(entry.harness.pid == os.getpid() for entry in registry.machines()),
        "directories": len(private_directories),
        "ledger_bytes": _ledger(),
    }


@contextlib.contextmanager
def place() -> Iterator[str]:
    """A directory for what machines make, while nobody is warned of how they end."""
    log, silent = logging.getLogger("vmfsm"), logging.NullHandler()
    log.addHandler(silent)
    try:
        with tempfile.TemporaryDirectory(prefix="vmfsm-soak-") as directory:
            yield directory
    finally:
        log.removeHandler(silent)


def quiet() -> None:
    """Wait until the last machine has been forgotten: that comes a moment after `shutdown`."""
    until(lambda: not ExitGuard.get().machines and tasks() == 0)


def tasks() -> int:
    """Of the I/O thread."""
    io = IOThread.get()
    answer: concurrent.futures.Future[int] = concurrent.futures.Future()
    io.post(lambda: answer.set_result(len(asyncio.all_tasks(io.loop))))
    return answer.result(60)


def children() -> int:
    """Zombies are some, too."""
    number = 0
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(FileNotFoundError):  # it has ended meanwhile
            number += len(Path(f"/proc/self/task/{thread}/children").read_text().split())
    return number


class Samples:
    """Rows in a file, as CSV: those in memory would be what grows. It has what came before a crash, too."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._path.unlink(missing_ok=True)
        self.last: Row = {}

    def add(self, row: Row) -> None:
        is_first = not self._path.exists()
        with self._path.open("a", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, row)
            if is_first:
                table.writeheader()
            table.writerow({column: round(value, 3) for column, value in row.items()})
        self.last = row

    def rows(self) -> list[Row]:
        """All there are."""
        with self._path.open(encoding="utf-8", newline="") as file:
            return [{column: float(value) for column, value in row.items()} for row in csv.DictReader(file)]


def _descriptors() -> list[str]:
    kinds = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of this very listing
            kinds.append(os.readlink(f"/proc/self/fd/{name}"))
    return kinds


def _ledger() -> int:
    descriptor = Ownership.get().descriptor
    return 0 if descriptor is None else os.fstat(descriptor).st_size


class _Mallinfo2(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


_mallinfo2 = ctypes.CDLL(None).mallinfo2
_mallinfo2.restype = _Mallinfo2


def _allocated() -> int:
    """Bytes in use."""
    info = _mallinfo2()
    in_arenas, mapped = info.uordblks, info.hblkhd
    assert isinstance(in_arenas, int)
    assert isinstance(mapped, int)
    return in_arenas + mapped
