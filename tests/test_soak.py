"""The soak, in short: all of it runs, and what it is to find it finds."""

import csv
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.soak import __main__ as soak
from tests.soak import console, idle
from tests.soak.judging import COLUMNS, Criterion, Row, growth, slope, steady
from tests.soak.plot import Panel, svg
from tests.soak.sampling import COUNTS, Samples

ROOT = Path(__file__).parents[1]


def python(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """In a process of its own, in which nothing grows but what the soak has grow."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=240
    )


def missed(criteria: Sequence[Criterion]) -> list[str]:
    return [criterion.name for criterion in criteria if not criterion.met]


# -- for real -----------------------------------------------------------------------------------------------


def test_all_of_it_in_short(qemu: str, tmp_path: Path) -> None:
    few = ["--cycles=36", "--machines=6", "--many-minutes=0.001", "--mebibytes=16", "--idle-minutes=0.03"]
    ran = python("-m", "tests.soak", *few, f"--out={tmp_path}", "--seed=1")
    assert ran.returncode == 0, "".join(
        [line + "\n" for line in ran.stdout.splitlines() if "MISSED" in line] + [ran.stdout, ran.stderr]
    )
    assert "All criteria are met." in ran.stdout
    for name, rows in (("cycles", 3), ("many", 5), ("console", 2), ("idle", 61)):
        assert f"\n{name} ...\n  met" in ran.stdout
        with (tmp_path / f"{name}.csv").open(encoding="utf-8") as file:
            assert len(list(csv.DictReader(file))) >= rows, name
        assert "<polyline" in (tmp_path / f"{name}.svg").read_text(encoding="utf-8")


LEAKING = """
import json, os, pathlib, sys, threading
from tests.soak import cycles
from tests.soak.sampling import Samples
from vmfsm import Machine

kept, end = [], threading.Event()
leaks = {
    "nothing": lambda: None,
    "descriptor": lambda: os.open(os.devnull, os.O_RDONLY),
    "10 kB": lambda: kept.append(bytes(10_000)),
    "objects": lambda: kept.append({letter: [letter] for letter in "abcdefghijklmnopqrstuvwxyz"}),
    "machine": lambda: kept.append(Machine("qemu")),
    "thread": lambda: threading.Thread(target=end.wait).start(),
}

def missed(leak):
    def cycle(soak):
        cycles.no_binary(soak)
        leak()
    criteria = cycles.run(Samples(pathlib.Path(sys.argv[1])), cycles=40, mix=[cycle] * 4).criteria
    return [criterion.name for criterion in criteria if not criterion.met]

missed(leaks["nothing"])  # what exists once is there
print(json.dumps({name: missed(leak) for name, leak in leaks.items()}))
end.set()
"""


def test_what_stays_of_each_cycle_is_found(tmp_path: Path) -> None:
    ran = python("-c", LEAKING, f"{tmp_path}/leaking.csv")
    assert ran.returncode == 0, ran.stderr
    found = {name: set(missed) for name, missed in json.loads(ran.stdout).items()}
    assert found.pop("nothing") == set()
    assert found["descriptor"] == {"fds, more than at first"}
    assert found["10 kB"] == {"malloc_kib per cycle"}
    assert found["objects"] == {"blocks per cycle"}
    assert found["machine"] >= {"blocks per cycle"}
    assert found["thread"] >= {"threads, more than at first"}


WAKING = """
import threading, time
from tests.soak import idling

def wake():
    while True:
        time.sleep(0.1)

threading.Thread(target=wake, daemon=True).start()
idling.main()
"""


def test_who_wakes_up_ten_times_a_second_is_found(
    qemu: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(idle, "PATIENCE", 1)  # until nobody runs: that does not come
    outcome = idle.run(Samples(tmp_path / "idle.csv"), minutes=0.05, program=["-c", WAKING])
    names = missed(outcome.criteria)
    assert "slices of the harness" in names
    assert not any("watchdog" in name for name in names)


# -- the judge ----------------------------------------------------------------------------------------------


def rows(of: Callable[[int], float], columns: Sequence[str] = COLUMNS, cycles: int = 10_000) -> list[Row]:
    """A hundred of them, from 1,000 on."""
    every = cycles // 100
    return [
        {"cycle": cycle, **dict.fromkeys(columns, of(cycle))}
        for cycle in range(every * 10, cycles + 1, every)
    ]


@pytest.mark.parametrize("column", COLUMNS)
def test_steady_growth_is_found_under_noise(column: str) -> None:
    noise = random.Random(0)

    def grown(each: float) -> list[Row]:
        return rows(lambda cycle: 25_000 + each * cycle + noise.gauss(0, 100))

    each = 1.0 if column == "blocks" else 0.5
    assert f"{column} per cycle" in missed(growth(grown(each), "cycle"))
    assert missed(growth(grown(0), "cycle")) == []


def test_a_step_and_a_saw_are_no_growth() -> None:
    assert missed(growth(rows(lambda cycle: 400 if cycle > 7_000 else 0), "cycle")) == []
    assert missed(growth(rows(lambda cycle: cycle % 700), "cycle")) == []


def test_pages_are_judged_in_long_runs_only() -> None:
    short = growth(rows(lambda cycle: cycle, cycles=1_000), "cycle")
    assert {"malloc_kib per cycle", "blocks per cycle"} == {criterion.name for criterion in short}


def test_the_slope_is_that_of_most() -> None:
    line = [(float(x), 3.0 * x) for x in range(20)]
    assert slope(line) == 3
    assert slope([*line, (20.0, 1e9), (21.0, -1e9)]) == 3


@pytest.mark.parametrize("column", COUNTS)
def test_one_more_of_anything_is_found(column: str) -> None:
    seen = rows(lambda cycle: 7, COUNTS)
    assert missed(steady(seen, COUNTS)) == []
    seen[40][column] = 8
    assert missed(steady(seen, COUNTS)) == [f"{column}, more than at first"]


def test_a_console_that_keeps_what_came_is_found() -> None:
    def seen(kept: float) -> list[Row]:
        there = dict.fromkeys(COUNTS, 1.0)
        return [
            {"mebibytes": at, "malloc_kib": 8_000 + kept * at, "resident_kib": 25_000 + kept * at, **there}
            for at in range(0, 1025, 16)
        ]

    assert missed(console.judge(seen(0))) == []
    assert len(missed(console.judge(seen(10)))) == 2  # a hundredth of it


# -- the rest -----------------------------------------------------------------------------------------------


def test_a_plot_stays_within_its_frame() -> None:
    seen = [{"cycle": 10.0 * number, "a": number % 5, "b": 0.0} for number in range(10)]
    plot = svg("a < b", seen, [Panel("both", "KiB", "cycle", ["a", "b"])])
    assert "a &lt; b" in plot
    assert plot.count("<polyline") == 2
    heights = [float(point.split(",")[1]) for point in plot.split('points="')[1].split('"')[0].split()]
    assert (min(heights), max(heights)) == (50, 200)


@pytest.mark.parametrize("wrong", [["nothing"], ["--cycles=0"], ["--idle-minutes=-1"], ["--machines=many"]])
def test_what_it_does_not_know_is_refused(
    wrong: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["soak", *wrong, f"--out={tmp_path}/out"])
    with pytest.raises(SystemExit, match="2"):
        soak.main()
    assert "usage:" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []
