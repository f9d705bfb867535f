"""A long walk: `python -m tests.walks --steps 100000`, or `--minutes 60`; what it came to, on stdout.

Walks that come to what they may not are told and counted, and others follow.
"""

import argparse
import logging
import random
import sys
import tempfile
import time
import traceback

from tests.walks.walk import Grounds, walk

AT_ONCE = 20
"""Walks after which it is looked whether there were enough, and told how far it is."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.walks", description=__doc__)
    parser.add_argument("--steps", type=int, default=None, help="how many at least")
    parser.add_argument("--minutes", type=float, default=None, help="how long at least")
    parser.add_argument("--seed", type=int, default=None, help="the first walks' number, to go them again")
    parser.add_argument("--qemu", default="qemu-system-x86_64", help="the QEMU to run")
    given = parser.parse_args()
    if given.steps is None and given.minutes is None:
        given.steps = 100_000
    number = random.randrange(10**9) if given.seed is None else given.seed
    logging.disable()  # that QEMUs die
    failures = 0
    begin = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="walks-") as directory,
        Grounds(given.qemu).ready() as grounds,
    ):
        tempfile.tempdir = directory  # where nothing else may be left
        while _goes_on(grounds.tally.steps, time.monotonic() - begin, given):
            try:
                walk(grounds, number, walks=AT_ONCE)
            except Exception:  # noqa: BLE001 - an assertion, mostly, and whatever else
                failures += 1
                print(f"\n-- walk {number} failed:", flush=True)
                traceback.print_exc(file=sys.stdout)
            minutes = (time.monotonic() - begin) / 60
            print(f"{minutes:6.1f} min, seed {number}: {grounds.tally.steps} steps", flush=True)
            number += 1
        tempfile.tempdir = None
    print(f"\n{grounds.tally}\n")
    unreached = grounds.tally.unreached(seldom=True)
    print(f"not reached: {', '.join(unreached) or 'nothing'}")
    print(f"{failures} failures")
    return 1 if failures or unreached else 0


def _goes_on(steps: int, seconds: float, given: argparse.Namespace) -> bool:
    too_few = given.steps is not None and steps < given.steps
    return too_few or (given.minutes is not None and seconds < 60 * given.minutes)


if __name__ == "__main__":
    sys.exit(main())
