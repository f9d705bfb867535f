"""Recordings that anybody may have made, and large ones: the data stays small, honest, and JSON."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cli.running import vmfsm
from tests.report.recorded import record, without_progress, write
from tests.report.test_model import lane, made_of
from vmfsm import ConfigError, recording, report
from vmfsm.report.sampling import Density, Sample

KINDS = [*recording.schema()["$defs"]["kinds"], "failure", "somebody's"]
VALUES: list[Any] = [
    None,
    True,
    -1,
    0.5,
    1e308,
    -1e308,
    "",
    "x" * 5_000,
    "\ud800",
    "\x1b[2J\x00\u202e</script>",
    [],
    ["a", {"b": [1]}],
    {"x" * 500: {"y": 1}},
]
FIELDS = [
    *("dest", "hook", "plugin", "operation", "thread", "caller", "step", "text", "reason", "by", "companion"),
    *("command", "status", "way", "verdict", "error", "id", "arguments", "values", "return", "event", "data"),
    *("console", "seconds", "timeout", "cwd", "environment", "pid", "outcome", "path", "paths", "name"),
]


def size(data: object) -> int:
    return len(json.dumps(data, allow_nan=False))


@pytest.mark.parametrize("value", VALUES, ids=[str(number) for number in range(len(VALUES))])
def test_anything_in_any_field(tmp_path: Path, value: Any) -> None:
    """For each kind that there is: all fields at once, and nothing at all."""
    records = [record(n / 100, kind, **dict.fromkeys(FIELDS, value)) for n, kind in enumerate(KINDS)]
    records += [record(1 + n / 100, kind) for n, kind in enumerate(KINDS)]
    (vm,) = made_of(write(tmp_path / "odd.jsonl", records, harness=value, host=value, plugins=value))[
        "machines"
    ]
    assert vm["lanes"]
    assert size(vm) < 500_000


def test_kinds_are_those_of_the_schema() -> None:
    assert {"transition", "wait", "qmp-reply", "console"} <= set(KINDS)


def test_what_is_no_number_or_too_deep(tmp_path: Path) -> None:
    deep = b'{"at":1001,"kind":"note","data":{"text":' + b"[" * 100_000 + b"]" * 100_000 + b"}}\n"
    lines = [
        b'{"at":NaN,"kind":"note","data":{}}\n',
        b'{"at":1e999,"kind":"note","data":{}}\n',
        b'{"at":1000.5,"kind":"wait","data":{"seconds":NaN,"timeout":Infinity}}\n',
        b'{"at":1001,"kind":"step","data":{"seconds":' + b"9" * 5_000 + b"}}\n",
        b'{"at":1001,"kind":"step","data":{"seconds":' + b"9" * 4_000 + b"}}\n",
        deep,
        b"\xff\xfe\n",
        b'{"at":1002,"kind":"note","data":{"text":"last"}}\n',
    ]
    (vm,) = made_of(write(tmp_path / "odd.jsonl", lines))["machines"]
    assert [item["label"] for item in lane(vm, "notes")] == ["last"]
    assert sum("is damaged" in problem for problem in vm["problems"]) == 5


def test_times_from_another_world(tmp_path: Path) -> None:
    records = [record(at, "note", text="x") for at in (-1e10, 1e10, 0, 5, -5)]
    data = made_of(write(tmp_path / "odd.jsonl", records))
    assert data["length"] == 2e10


def test_lines_in_any_order(tmp_path: Path) -> None:
    records = [record(at, "console", console="c", text=f"{at}\n") for at in (3, 1, 2)]
    (vm,) = made_of(write(tmp_path / "odd.jsonl", records))["machines"]
    assert [item["label"] for item in lane(vm, "console:c")] == ["1", "2", "3"]


def many() -> Iterator[dict[str, Any]]:
    yield record(0, "transition", event="launch", source="configured", dest="launching", reason=None)
    for n in range(3_000):
        at = n / 1000
        yield record(at, "console", console=f"tty{n}", text=f"{n}\n")
        yield record(at, "wait-begin", operation=f"wait {n}", thread=f"t{n}", caller=None, timeout=None)
        yield record(at, "hook-begin", hook=f"h{n}", plugin="p")
        yield record(at, "qmp-event", event=f"EVENT{n}", data={"text": "y" * 300})
        yield record(at, f"kind-{n}", text="x" * 300)
        yield record(
            at, "verdict", verdict=f"v{n}", where="console", what={"line": "z" * 300}, action="raise"
        )
    yield record(3, "exit", status=-9)


def test_many_of_everything(tmp_path: Path) -> None:
    data = made_of(write(tmp_path / "many.jsonl", many()))
    (vm,) = data["machines"]
    assert size(data) < 8_000_000
    assert sum(one["id"].startswith("console:") for one in vm["lanes"]) == 20
    assert "2,980 records are of further consoles, which are not shown" in vm["problems"]
    assert all(len(one["items"]) <= 2_400 for one in vm["lanes"])
    waits = next(one for one in vm["lanes"] if one["id"] == "waits")
    assert waits["total"] == 3_000
    assert lane(vm, "process")[-1]["tone"] == "bad"


def test_much_in_everything(tmp_path: Path) -> None:
    def much() -> Iterator[dict[str, Any]]:
        data = {f"field {n}": "z" * 280 for n in range(16)}
        for n in range(2_500):
            for kind in ("note", "verdict", "stop", "somebody's"):
                yield record(n / 100, kind, text=f"note {n}", **data)
            yield record(n / 100, "console", console=f"tty{n % 20}", text=f"{'y' * 900}\n" * 10)

    data = made_of(write(tmp_path / "much.jsonl", much()))
    assert size(data) < 8_000_000
    notes = lane(data["machines"][0], "notes")
    assert len(notes[0]["detail"]) > 10
    assert notes[-1]["detail"] == {"…": "left out"}


def test_machines_share_what_a_page_may_have(tmp_path: Path) -> None:
    text = "".join(f"line {n:06} {'x' * 80}\n" for n in range(3_000))
    for n in range(40):
        write(tmp_path / f"{n}.jsonl", [record(0, "console", console="console", text=text)] * 3)
    data = made_of(tmp_path)
    assert size(data) < 8_000_000
    assert len(data["machines"]) == 40


def test_empty_lines_of_many_machines(tmp_path: Path) -> None:
    for n in range(60):
        write(tmp_path / f"{n}.jsonl", [record(0, "console", console="console", text="\n" * 16_000)] * 2)
    data = made_of(tmp_path)
    assert size(data["machines"]) < 60 * 50_000


def test_too_many_recordings(tmp_path: Path) -> None:
    for n in range(201):
        write(tmp_path / f"{n}.jsonl", [])
    with pytest.raises(ConfigError, match="more than 200 recordings"):
        report.data([tmp_path])


def test_how_any_number_of_tests_went(tmp_path: Path) -> None:
    """In the JUnit file of a whole run; of each test the machine that failed first is the first."""
    for n in range(201):
        phase = "setup" if n % 2 else "call"
        harness = {"pid": 1, "test": f"t.py::test_{n // 2} ({phase})"}
        said = [record(n % 2 and -0.5, "failure", error="ValueError: x", by="note")]
        clocks = {"monotonic": 1000.0, "wall": 1.7e9 + n // 2}
        write(tmp_path / f"{n}.jsonl", said, name=f"vm{n}", harness=harness, clocks=clocks)
    told: Any = report.outcomes([tmp_path])
    assert len(told["machines"]) == 201
    assert size(told) < 400_000
    assert told["begin"] == "2023-11-14T22:13:19.500000+00:00"
    assert told["length"] == 100.5
    junit = tmp_path / "junit.xml"
    cases = "".join(f"<testcase classname='t' name='test_{n}'/>" for n in range(101))
    junit.write_text(f"<testsuites>{cases}</testsuites>")
    ran = vmfsm("report", str(tmp_path), "--junit", str(junit))
    assert (ran.returncode, without_progress(ran.stderr)) == (0, "")
    of_cases = [
        {one.get("name"): one.get("value") for one in case.iter("property")}
        for case in ElementTree.parse(junit).iter("testcase")
    ]
    assert len(of_cases) == 101
    assert [one["vmfsm.machine"] for one in of_cases[:100]] == [f"vm{n}" for n in range(1, 200, 2)]
    assert {one["vmfsm.2.machine"] for one in of_cases[:100]} == {f"vm{n}" for n in range(0, 200, 2)}


def test_a_long_console_is_whole_beside_the_page(tmp_path: Path) -> None:
    """Broken anywhere, also in the middle of a line end, and between two halves of a line."""
    text = (
        "".join(f"[{n:8}] what the guest says, and it says a lot of it, é\r\n" for n in range(60_000)) + "end"
    )
    pieces = [text[at : at + 9_973] for at in range(0, len(text), 9_973)]
    records = [record(n / 10, "console", console="tty S0", text=piece) for n, piece in enumerate(pieces)]
    middle = len(records) // 2
    verdict = record(middle / 10, "verdict", verdict="oops", where="tty S0", what={}, action="raise")
    path = write(tmp_path / "long.jsonl", [*records[:middle], verdict, *records[middle:]])
    (vm,) = made_of(path, page=str(tmp_path / "page.html"))["machines"]
    (log,) = vm["logs"]
    assert (tmp_path / log["file"]).read_bytes().decode() == text
    assert (tmp_path / log["file"]).stat().st_mode & 0o777 == 0o600
    all_lines = text.replace("\r", "").split("\n")
    assert log["total"] == len(all_lines)
    gaps = {gap["before"]: gap["lines"] for gap in log["gaps"]}
    assert len(gaps) == 2, "one before what is near the verdict, and one after it"
    place = 0
    for index, (_, line) in enumerate(log["lines"]):
        place += gaps.get(index, 0)
        assert line == all_lines[place]
        place += 1
    near = log["lines"][min(sorted(gaps)[1] - 1, len(log["lines"]) - 1)]
    assert abs(near[0] - middle / 10) < 0.2
    assert size(log) < 1_500_000


@pytest.mark.parametrize("piece", [1_000_000, 700])
def test_a_line_that_never_ends(tmp_path: Path, piece: int) -> None:
    long = "".join(f"{n:07};" for n in range(250_000))
    text = f"before\n{long}\nafter\n"
    records = [
        record(at / 1e6, "console", console="console", text=text[at : at + piece])
        for at in range(0, len(text), piece)
    ]
    page = str(tmp_path / "page.html")
    (vm,) = made_of(write(tmp_path / "line.jsonl", records), page=page)["machines"]
    (log,) = vm["logs"]
    before, line, after = (text for _, text in log["lines"])
    assert (before, after) == ("before", "after")
    assert len(line) < 5_000
    assert line.startswith(long[:1_000])
    assert line.endswith(long[-700:])
    left_out = int(line.partition("[…")[2].partition(" ")[0].replace(",", ""))
    assert len(long) - 4_100 <= left_out <= len(long) - 3_900
    assert (tmp_path / log["file"]).read_text() == text


def test_a_busy_monitor_is_sampled_and_counted(tmp_path: Path) -> None:
    def talk() -> Iterator[dict[str, Any]]:
        for n in range(20_000):
            yield record(n / 1000, "qmp-command", command="query-status", id=str(n), arguments=[])
            failed = "GenericError" if n == 7_777 else None
            yield record(n / 1000, "qmp-reply", command="query-status", id=str(n), seconds=0, error=failed)

    (vm,) = made_of(write(tmp_path / "busy.jsonl", talk()), page=str(tmp_path / "page.html"))["machines"]
    qmp = next(one for one in vm["lanes"] if one["id"] == "qmp")
    assert qmp["total"] == 20_000
    assert len(qmp["items"]) <= 2_400
    assert (qmp["items"][0]["t"], qmp["items"][-1]["t"]) == (0, 19.999)
    assert [item["t"] for item in qmp["items"] if item["tone"] == "bad"] == [7.777]
    ts = [item["t"] for item in qmp["items"]]
    assert max(b - a for a, b in itertools.pairwise(ts)) < 0.05, "as dense everywhere"
    (log,) = vm["logs"]
    assert (log["total"], log["file"]) == (40_000, "busy.jsonl")


@given(st.lists(st.floats(0, 1e6) | st.sampled_from([0.0, 1e-6]), min_size=1, max_size=300))
@settings(max_examples=50, deadline=None)
def test_density_counts_all(times: list[float]) -> None:
    density = Density()
    for at in times:
        density.add(at)
    told = density.told(0)
    assert isinstance(told, dict)
    counts = told["counts"]
    assert isinstance(counts, list)
    assert sum(counts) == len(times)  # type: ignore[arg-type]
    assert len(counts) <= 240


@given(st.integers(1, 3_000), st.integers(40, 400), st.sets(st.integers(0, 2_999), max_size=20))
@settings(max_examples=50, deadline=None)
def test_a_sample_is_bounded_and_has_what_matters(count: int, most: int, mattering: set[int]) -> None:
    sample: Sample[int] = Sample(most)
    for number in range(count):
        sample.add(number, matters=number in mattering)
    kept = sample.kept()
    assert kept == sorted(set(kept))
    assert len(kept) <= most
    assert kept[0] == 0
    assert kept[-1] == count - 1
    room = most // 8
    if count <= 3 * room:
        assert len(kept) == count
    mattered = sorted(number for number in mattering if number < count)
    assert {*mattered[:room]} <= {*kept}
