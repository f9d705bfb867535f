"""A gibibyte through a console that is kept, filed, recorded and watched for panics: memory stays flat.

The source is a process in QEMU's place that writes as fast as it is read from. Nobody reads what has come.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.waiting import InThread
from vmfsm import GuestPanicked, Machine

from . import booting
from .judging import Criterion, Outcome, Row, steady
from .plot import Panel
from .sampling import COUNTS, Samples, place, sample

LOOKS = 32
WARM_UP = 0.1
"""Of the bytes: the console's buffer is full by then."""
MEMORY_KIB = {"malloc_kib": 1_024, "resident_kib": 8_192}
"""What memory may differ by between two moments. In use are a buffer, a few reads and a timeline, whatever
went through; the pages that malloc has for them, whose sizes differ, get more until they suffice."""
PATIENCE = 600.0


def run(samples: Samples, *, mebibytes: int) -> Outcome:
    """Take that much, from the first byte to the end of the process."""
    size = mebibytes * 1024 * 1024
    with place() as directory:
        log = Path(directory, "console.log")
        with Machine(
            sys.executable,
            wrapper=[sys.executable, booting.__file__, str(size)],
            block=["qmp", "fdpass", "snapshots", "migration"],
            options={"console": {"log": log}},
        ) as machine:
            machine.launch()
            console = machine.console
            console.expect(booting.READY)
            ended = InThread(machine.wait, PATIENCE)
            samples.add(sample(mebibytes=0, seconds=0))
            begin = time.monotonic()
            console.send(b"g")
            while not ended.over:
                taken = console.mark() / 1024 / 1024
                if taken >= samples.last["mebibytes"] + mebibytes / LOOKS:
                    samples.add(sample(mebibytes=taken, seconds=time.monotonic() - begin))
                time.sleep(0.002)
            seconds = time.monotonic() - begin
            came = console.mark(), log.stat().st_size
            verdicts = [verdict.kind for verdict in machine.verdicts.seen]
    assert isinstance(ended.error, GuestPanicked), ended.error
    sent = len(booting.READY) + size + len(b"\r\n" + booting.PANIC)
    return Outcome(
        rows := samples.rows(),
        [
            Criterion("lost in the buffer or the file", max(sent - arrived for arrived in came), "bytes", 0),
            Criterion("verdicts beside the panic at the end", len(verdicts) - 1, "", 0),
            *judge(rows),
        ],
        PANELS,
        [f"{size / seconds / 1e6:.0f} MB/s", f"verdicts: {', '.join(verdicts)}"],
    )


def judge(rows: Sequence[Row]) -> list[Criterion]:
    """From a full buffer on."""
    judged = [row for row in rows if row["mebibytes"] >= WARM_UP * rows[-1]["mebibytes"]]
    there = [column for column in COUNTS if column != "tasks"]
    return [
        *steady(judged, there),
        *(
            Criterion(
                f"{column.removesuffix('_kib')}, most and least apart",
                max(row[column] for row in judged) - min(row[column] for row in judged),
                "KiB",
                limit,
            )
            for column, limit in MEMORY_KIB.items()
        ),
    ]


PANELS = [Panel("memory", "KiB", "mebibytes", ["resident_kib", "anonymous_kib", "malloc_kib"])]
