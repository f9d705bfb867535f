"""A gibibyte through a console that is kept, filed and recorded, with nobody reading: memory stays flat.

The source is a process in QEMU's place that writes as fast as it is read from, as of `tests.bench`.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench import flooder
from tests.waiting import InThread
from vmfsm import Machine

from .judging import Criterion, Outcome, Row, steady
from .plot import Panel
from .sampling import COUNTS, Samples, place, sample

LOOKS = 64
LINE = 88
WARM_UP = 0.1
"""Of the bytes: the console's buffer is full by then."""
MEMORY_KIB = {"malloc_kib": 1_024, "resident_kib": 8_192}
"""What memory may differ by between two moments. In use are a buffer, a few reads and a timeline, whatever
went through; the pages that malloc has for them, whose sizes differ, get more until they suffice."""
_READY = "ready\n"


def run(samples: Samples, *, mebibytes: int) -> Outcome:
    """Take that much, from the first byte to the end of the process."""
    size = mebibytes * 1024 * 1024
    with place() as directory:
        log = Path(directory, "console.log")
        command = [sys.executable, flooder.__file__, str(size), str(LINE)]
        with Machine(
            sys.executable, wrapper=command, block=["qmp", "fdpass"], options={"console": {"log": log}}
        ) as machine:
            machine.launch()
            machine.console.expect(_READY)
            ended = InThread(machine.wait)
            samples.add(sample(mebibytes=0, seconds=0))
            begin = time.monotonic()
            machine.console.send(b"g")
            while not ended.over:
                taken = machine.console.mark() / 1024 / 1024
                if taken >= samples.last["mebibytes"] + mebibytes / LOOKS:
                    samples.add(sample(mebibytes=taken, seconds=time.monotonic() - begin))
                time.sleep(0.002)
            seconds = time.monotonic() - begin
            ended.result()
            lost = len(_READY) + size - machine.console.mark()
            lost += len(_READY) + size - log.stat().st_size
    rows = samples.rows()
    note = f"{size / seconds / 1e6:.0f} MB/s"
    return Outcome(rows, [Criterion("lost", lost, "bytes", 0), *judge(rows)], PANELS, [note])


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
