"""Has vmfsm do much for long, and judges whether anything grows: `python -m tests.soak [NAME …]`.

The exit status is 1 where something has grown, or was lost, or has cost what it must not.
"""

import argparse
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.facts import facts

from . import console, cycles, idle, many
from .judging import Outcome
from .plot import svg
from .sampling import Samples

SCENARIOS: dict[str, Callable[[Samples, argparse.Namespace], Outcome]] = {
    "cycles": lambda samples, options: cycles.run(samples, cycles=options.cycles),
    "many": lambda samples, options: many.run(
        samples, machines=options.machines, minutes=options.many_minutes, seed=options.seed
    ),
    "console": lambda samples, options: console.run(samples, mebibytes=options.mebibytes),
    "idle": lambda samples, options: idle.run(samples, minutes=options.idle_minutes),
}


# What threads keep of freed memory for themselves counts as in use, and grows for thousands of cycles to what
# it may have. Without it malloc's figure is exact (GNU C Library manual, "Memory Allocation Tunables").
_EXACT = "glibc.malloc.tcache_count=0"


def main() -> int:
    options = _options()
    if os.environ.pop("GLIBC_TUNABLES", None) == _EXACT:  # taken away, since no QEMU is to have it
        (name,) = options.names
        return _run(name, options)
    about = facts()
    print("\n".join(f"{name + ':':<13} {value}" for name, value in about.items()))
    options.out.mkdir(parents=True, exist_ok=True)
    met = [_in_own_process(name, options) for name in options.names or SCENARIOS]
    verdict = "All criteria are met." if all(met) else "NOT all criteria are met."
    print(f"\n{verdict} Every sample: {options.out}")
    return 0 if all(met) else 1


def _in_own_process(name: str, options: argparse.Namespace) -> bool:
    """So that none has memory of another one's."""
    print(f"\n{name} ...", flush=True)
    values = vars(options).items()
    arguments = [f"--{key.replace('_', '-')}={value}" for key, value in values if key != "names"]
    command = [sys.executable, "-m", "tests.soak", name, *arguments]
    return subprocess.run(command, env=os.environ | {"GLIBC_TUNABLES": _EXACT}, check=False).returncode == 0


def _run(name: str, options: argparse.Namespace) -> int:
    outcome = SCENARIOS[name](Samples(options.out / f"{name}.csv"), options)
    plot = svg(f"{name}, {time.strftime('%Y-%m-%d')}", outcome.rows, outcome.panels)
    (options.out / f"{name}.svg").write_text(plot, encoding="utf-8")
    print("\n".join([*map(str, outcome.criteria), *outcome.notes]), flush=True)
    return 0 if all(criterion.met for criterion in outcome.criteria) else 1


def _options() -> argparse.Namespace:
    assert __doc__
    parser = argparse.ArgumentParser("python -m tests.soak", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SCENARIOS)}; default: all")
    parser.add_argument("--cycles", type=_positive(int), default=10_000)
    parser.add_argument("--machines", type=_positive(int), default=200, help="at once, of `many`")
    parser.add_argument("--many-minutes", type=_positive(float), default=10, help="of `many`")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of what `many` does")
    parser.add_argument("--mebibytes", type=_positive(int), default=1024, help="through the console")
    parser.add_argument("--idle-minutes", type=_positive(float), default=60, help="of `idle`")
    parser.add_argument("--out", type=Path, help="where samples and plots go; by default below .cache/soak")
    options = parser.parse_args()
    unknown = set(options.names) - SCENARIOS.keys()
    if unknown:
        parser.error(f"no scenario {', '.join(sorted(unknown))} (there are: {', '.join(SCENARIOS)})")
    if options.out is None:
        options.out = Path(".cache/soak", time.strftime("%Y%m%d-%H%M%S"))
    return options


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = kind(text)
        if value <= 0:
            raise argparse.ArgumentTypeError(f"{text} is not positive")
        return value

    return number


if __name__ == "__main__":
    sys.exit(main())
