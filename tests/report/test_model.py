"""What a report tells of real recordings: as documented, of all machines on one axis."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.report.recorded import make_all, record, write
from vmfsm import ConfigError, report
from vmfsm.report.text import render as text_of

DOCS = Path(__file__).parents[2] / "docs"
TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "number": (int, float),
    "str": (str,),
    "bool": (bool,),
    "null": (type(None),),
    "list": (list,),
    "object": (dict,),
}


@pytest.fixture(scope="module")
def recorded(temporary_directory: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_all(tmp_path_factory.mktemp("recorded"))


def fields(table: str) -> Iterator[tuple[str, tuple[type, ...]]]:
    page = (DOCS / "report.md").read_text(encoding="utf-8")
    text = page.partition(f"<!-- fields: {table} -->")[2].partition("<!-- end -->")[0]
    for line in text.splitlines()[3:]:
        name, types = [cell.strip() for cell in line.split("|")[1:3]]
        yield (
            re.findall(r"`(\w+)`", name)[0],
            tuple(kind for word in types.split(", ") for kind in TYPES[word]),
        )


def has(table: str, found: Mapping[str, object], *optional: str) -> None:
    rows = dict(fields(table))
    assert {*found, *optional} == {*rows}, table
    for name, value in found.items():
        assert isinstance(value, rows[name]), (table, name, value)
        assert not isinstance(value, bool) or bool in rows[name], (table, name, value)


def check(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """It is what the page of the documentation says, and agrees with itself."""
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    has("report", data)
    for machine in data["machines"]:
        has("machine", machine)
        assert -1e-6 <= machine["begin"] <= machine["end"] <= data["length"] + 1e-6
        logs = {log["id"]: log for log in machine["logs"]}
        for log in logs.values():
            has("log", log)
            assert len(log["lines"]) + sum(gap["lines"] for gap in log["gaps"]) == log["total"]
            assert all(0 <= gap["before"] <= len(log["lines"]) for gap in log["gaps"])
        for lane in machine["lanes"]:
            has("lane", lane)
            assert len(lane["items"]) + lane["left_out"] == lane["total"] > 0
            assert sum(lane["density"]["counts"]) == lane["total"]
            assert [item["t"] for item in lane["items"]] == sorted(item["t"] for item in lane["items"])
            own = logs.get("qmp" if lane["id"] in {"qmp", "events"} else lane["id"])
            for item in lane["items"]:
                has("item", item, "end")
                assert item["line"] is None or (own and 0 <= item["line"] < len(own["lines"]))
    for row in (data["comparison"] or {}).get("rows", ()):
        has("row", row)
    return data


def made_of(*paths: Path, **options: Any) -> Mapping[str, Any]:
    return check(report.data(paths, **options))


def lane(machine: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    return next(lane["items"] for lane in machine["lanes"] if lane["id"] == key)


def text(machine: Mapping[str, Any], key: str) -> str:
    return "\n".join(line[1] for log in machine["logs"] if log["id"] == key for line in log["lines"])


def test_a_run_that_went_well(recorded: Path) -> None:
    data = made_of(recorded / "good")
    (vm,) = data["machines"]
    assert (data["title"], data["primary"], vm["diagnosis"]["outcome"]) == ("good", None, "ok")
    assert [item["label"] for item in lane(vm, "state")] == ["launching", "running", "quitting", "stopped"]
    assert [item["label"] for item in lane(vm, "steps")] == ["boot", "ping", "ping", "ping"]
    assert lane(vm, "steps")[2]["detail"]["number"] == 1
    assert all(
        item["end"] is not None for key in ("state", "steps", "hooks", "qmp") for item in lane(vm, key)
    )
    assert "vmfsm guest ready" in text(vm, "console:console")
    assert "* SHUTDOWN" in text(vm, "qmp")
    commands = lane(vm, "qmp")
    lines = next(log["lines"] for log in vm["logs"] if log["id"] == "qmp")
    assert all(lines[item["line"]][1].startswith(f"→ {item['label']}") for item in commands)
    facts = {fact["name"]: fact["value"] for fact in vm["facts"]}
    assert facts["binary"].endswith("qemu-system-x86_64")
    assert vm["exit"] == "QEMU ended with status 0"
    assert "qemu-system-x86_64" in vm["command"]


def test_the_failure_and_the_wait_that_was_in_progress(recorded: Path) -> None:
    data = made_of(recorded / "hangs")
    (vm,) = data["machines"]
    diagnosis = vm["diagnosis"]
    assert (data["primary"], diagnosis["kind"]) == ("m0", "guest-hang")
    wait = diagnosis["wait"]
    assert "expect('installed')" in wait["operation"]
    assert wait["since"] < wait["until"] <= data["length"]
    assert vm["begin"] <= diagnosis["at"] <= vm["end"]
    (shown,) = [item for item in lane(vm, "waits") if item["label"] == wait["operation"]]
    assert (shown["tone"], shown["detail"]["outcome"]) == ("bad", "timeout")
    assert (shown["t"], shown["end"]) == pytest.approx((wait["since"], wait["until"]), abs=0.01)


def test_a_bundle_shows_what_is_in_it(recorded: Path) -> None:
    (bundle,) = (recorded / "bundles").iterdir()
    for given in (bundle, bundle / "bundle.json", recorded / "bundles"):
        data = made_of(given, page=str(bundle / "report.html"))
        (vm,) = data["machines"]
        assert vm["diagnosis"]["kind"] == "guest-hang"
        files = {file["file"] for file in vm["files"]}
        assert "snapshot.json" in files
        assert all((bundle / file).is_file() for file in files)


def test_a_bundle_and_the_recorders_own_are_one_machine(recorded: Path) -> None:
    (bundle,) = (recorded / "bundles").iterdir()
    (own,) = (recorded / "hangs").iterdir()
    for given in ((recorded / "hangs", recorded / "bundles"), (bundle, own)):
        (vm,) = made_of(*given)["machines"]
        assert (vm["source"], vm["bundle"]) == (str(own), str(bundle))
        assert vm["state"] in {"stopped", "failed"}  # as only the recorder's has it
        assert "snapshot.json" in {Path(file["file"]).name for file in vm["files"]}


def test_machines_of_several_tests(tmp_path: Path) -> None:
    for number, test in enumerate(["test_a.py::test_a (call)", "test_a.py::test_a (setup)", "test_b"]):
        write(tmp_path / f"{number}.jsonl", [], harness={"test": test}, name=f"vm{number}")
    data = made_of(tmp_path)
    assert (data["title"], data["test"]) == ("3 machines of 2 tests, 0 failed", None)
    assert [vm["test"] for vm in data["machines"]][-1] == "test_b"
    assert "test_b" in text_of(data)
    same = made_of(tmp_path / "0.jsonl", tmp_path / "1.jsonl")
    assert (same["title"], same["test"]) == ("vm0, vm1", "test_a.py::test_a (call)")


def test_machines_of_one_test_are_on_one_axis(recorded: Path) -> None:
    data = made_of(recorded / "moves")
    source, destination = data["machines"]
    assert (source["name"], destination["name"], data["title"]) == (
        "source",
        "destination",
        "source, destination",
    )
    assert source["begin"] == 0 < destination["begin"]
    ends = [lane(vm, "state")[1]["t"] for vm in data["machines"]]
    moved = [item for item in lane(destination, "events") if item["label"] == "RESUME"]
    assert ends[0] < ends[1] < moved[0]["t"] < source["end"]


def test_launches_of_one_machine(recorded: Path) -> None:
    first, second = made_of(recorded / "again")["machines"]
    assert (first["launch"], second["launch"]) == (1, 2)
    assert first["end"] <= second["begin"]


def test_a_harness_that_was_killed(recorded: Path) -> None:
    data = made_of(recorded / "killed")
    (vm,) = data["machines"]
    assert (vm["diagnosis"]["outcome"], vm["diagnosis"]["kind"]) == ("unfinished", "harness-killed")
    (step,) = lane(vm, "steps")
    assert (step["label"], step["end"]) == ("long work", None)
    assert lane(vm, "state")[-1]["end"] is None
    assert "its harness was killed" in vm["problems"][0]


def test_the_step_that_took_longer(recorded: Path) -> None:
    data = made_of(recorded / "good", recorded / "slow", compare=True)
    assert [vm["begin"] for vm in data["machines"]] == [0, 0]
    comparison = data["comparison"]
    assert comparison["names"] == ["A: good", "B: good"]
    rows = {(row["kind"], row["name"]): row for row in comparison["rows"]}
    slower = rows["step", "ping (2)"]
    assert slower["slower"]
    assert slower["delta"] == pytest.approx(slower["seconds"][1] - slower["seconds"][0], abs=1e-5)
    assert slower["seconds"][1] > 0.5


def run_of(*seconds: float) -> list[dict[str, Any]]:
    """A step `all`, and in it one `part` after the other, which take so long."""
    records = [record(0, "step-begin", step="all", thread="t")]
    at = 0.0
    for one in seconds:
        records.append(record(at, "step-begin", step="part", thread="t"))
        at += one
        records.append(record(at, "step", step="part", thread="t", seconds=one, error=None))
    return [*records, record(at, "step", step="all", thread="t", seconds=at, error=None)]


@pytest.mark.parametrize(
    ("first", "second", "slower", "most"),
    [
        ((0.1, 0.1, 0.1), (0.1, 0.9, 0.1), {"all", "part (2)"}, "part (2)"),
        ((0.1, 0.1, 0.1), (0.4, 0.4, 0.4), {"all", "part (1)", "part (2)", "part (3)"}, "all"),
        ((0.1, 0.1), (0.1, 0.1, 0.5), {"all"}, "all"),
        ((0.1, 0.9), (0.1, 0.1), set(), None),
        ((5.0,), (5.3,), set(), None),
    ],
)
def test_what_took_longer_and_what_did_most(
    tmp_path: Path, first: tuple[float, ...], second: tuple[float, ...], slower: set[str], most: str | None
) -> None:
    paths = [write(tmp_path / f"{n}.jsonl", run_of(*run)) for n, run in enumerate((first, second))]
    rows = made_of(*paths, compare=True)["comparison"]["rows"]
    assert {row["name"] for row in rows if row["slower"]} == slower
    assert [row["name"] for row in rows if row["most"]] == ([most] if most else [])


def test_two_are_compared(recorded: Path) -> None:
    with pytest.raises(ConfigError, match="two recordings can be compared, not 1"):
        report.data([recorded / "good"], compare=True)


@pytest.mark.parametrize("cut", [2, 500, 2_000])
def test_what_is_cut_off_is_shown_as_far_as_it_goes(recorded: Path, tmp_path: Path, cut: int) -> None:
    (path,) = (recorded / "good").iterdir()
    damaged = tmp_path / path.name
    damaged.write_bytes(path.read_bytes()[:-cut])
    (vm,) = made_of(damaged)["machines"]
    assert any("cut off" in problem for problem in vm["problems"])
    assert lane(vm, "steps")


def other(host: str, wall: float, monotonic: float = 1000.0) -> dict[str, Any]:
    return {"host": {"name": host}, "clocks": {"monotonic": monotonic, "wall": wall}}


@pytest.mark.parametrize(
    ("header", "begin"),
    [
        (other("here", 1.7e9), 0.0),
        (other("here", 1.7e9 + 5), 0.0),  # whose wall clock was put right in between
        (other("there", 1.7e9 + 5), 5.0),
        (other("here", 1.7e9 + 86_400), 86_400.0),  # booted in between
    ],
)
def test_clocks(tmp_path: Path, header: dict[str, Any], begin: float) -> None:
    begun = record(0.0, "note", text="begun")
    first = write(tmp_path / "a.jsonl", [begun], **other("here", 1.7e9))
    second = write(tmp_path / "b.jsonl", [begun], **header)
    data = made_of(first, second)
    assert [vm["begin"] for vm in data["machines"]] == pytest.approx([0.0, begin])
    assert data["begin"].startswith("2023-11-14T22:13:20")
    is_told = any("only wall clocks place it" in problem for problem in data["machines"][1]["problems"])
    assert is_told == (begin > 0)


def test_machines_of_another_host_stay_together(tmp_path: Path) -> None:
    """Its wall clock was put right between the two."""
    headers = (other("here", 1.7e9), other("there", 1.7e9 + 10), other("there", 1.7e9 + 15))
    for n, header in enumerate(headers):
        write(tmp_path / f"{n}.jsonl", [record(n / 10, "note", text="begun")], **header)
    assert [vm["begin"] for vm in made_of(tmp_path)["machines"]] == pytest.approx([0.0, 10.1, 10.2])
