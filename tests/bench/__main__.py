"""Measures vmfsm beside the least that the same could cost: `python -m tests.bench [NAME …]`.

A benchmark is no test: a goal that is missed is shown, and the exit status is 0.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from . import (
    cli,
    companion,
    compat,
    console,
    death,
    fds,
    imports,
    launch,
    many,
    ownership,
    qmp,
    recorder,
    report_page,
    verdicts,
)
from .facts import facts
from .report import as_json, table

BENCHMARKS = {
    "launch": launch,
    "ownership": ownership,
    "companion": companion,
    "qmp": qmp,
    "fds": fds,
    "death": death,
    "console": console,
    "recorder": recorder,
    "verdicts": verdicts,
    "import": imports,
    "many": many,
    "compat": compat,
    "cli": cli,
    "report": report_page,
}


def main() -> None:
    options = _options()
    about = facts()
    print("\n".join(f"{name + ':':<13} {value}" for name, value in about.items()))
    figures = {}
    for name in options.names or BENCHMARKS:
        benchmark = BENCHMARKS[name]
        rounds = options.rounds or (benchmark.QUICK if options.quick else benchmark.ROUNDS)
        print(f"measuring {name} in {rounds} rounds ...", file=sys.stderr, flush=True)
        figures[name] = benchmark.measure(rounds)
    found = [figure for of_one in figures.values() for figure in of_one]
    print(f"\n{table(found)}\n")
    print("Medians, with 10th and 90th percentiles. Ratios and differences are of pairs.")
    missed = [figure.name for figure in found if figure.met is False]
    print(f"Goals missed: {', '.join(missed)}" if missed else "All goals are met.")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(as_json(about, figures), indent=1), encoding="utf-8")
    print(f"Every sample: {options.json}")


def _options() -> argparse.Namespace:
    assert __doc__
    parser = argparse.ArgumentParser("python -m tests.bench", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--rounds", type=int, help="how often; each benchmark has a number of its own")
    parser.add_argument("--quick", action="store_true", help="few rounds: does it work at all?")
    parser.add_argument("--json", type=Path, help="where every sample goes; by default below .cache/bench")
    options = parser.parse_args()
    unknown = set(options.names) - BENCHMARKS.keys()
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))} (there are: {', '.join(BENCHMARKS)})")
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be at least 1")
    if options.json is None:
        options.json = Path(".cache/bench", time.strftime("%Y%m%d-%H%M%S.json"))
    return options


if __name__ == "__main__":
    main()
