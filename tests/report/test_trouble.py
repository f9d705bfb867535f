"""How a report shows what went wrong: by whom, until when, and which line."""

from pathlib import Path
from typing import Any

import pytest

from tests.report.recorded import record, write
from vmfsm import report


def told(tmp_path: Path, *records: Any) -> dict[str, Any]:
    """The machine of a recording with these."""
    data: Any = report.data([str(write(tmp_path / "made.jsonl", records))])
    machine: dict[str, Any] = data["machines"][0]
    return machine


def items(machine: dict[str, Any], lane: str) -> list[dict[str, Any]]:
    return next(one["items"] for one in machine["lanes"] if one["id"] == lane)


@pytest.mark.parametrize("has_ended", [True, False])
def test_a_command_that_was_never_answered(tmp_path: Path, has_ended: bool) -> None:
    end = [record(5, "exit", status=-9, sent=["SIGKILL"])] if has_ended else []
    machine = told(
        tmp_path,
        record(0, "qmp-command", command="query-status", id=1),
        record(1, "qmp-reply", command="query-status", id=1),
        record(2, "qmp-command", command="query-block", id=2),
        *end,
        record(6, "note", text="later"),
    )
    answered, item = items(machine, "qmp")
    assert (answered["label"], answered["tone"], answered["end"]) == ("query-status", "neutral", 1)
    assert (item["label"], item["tone"]) == ("query-block: no answer", "bad")
    assert item["end"] == (5 if has_ended else None)


@pytest.mark.parametrize(("sent", "by"), [(["SIGTERM", "SIGKILL"], "sent by vmfsm"), ([], "not by vmfsm")])
def test_whose_signal_it_was(tmp_path: Path, sent: list[str], by: str) -> None:
    machine = told(
        tmp_path,
        record(0, "stop", way="qmp"),
        *(record(number, "stop", way=way) for number, way in enumerate(sent, 1)),
        record(4, "exit", status=-9, sent=sent),
    )
    assert machine["exit"] == f"QEMU died of SIGKILL ({by})"
    asked, *signals, exited = [item["label"] for item in items(machine, "process")]
    assert asked == "vmfsm asks QEMU to quit"
    assert signals == [f"vmfsm sends {way}" for way in sent]
    assert exited == machine["exit"]


@pytest.mark.parametrize(
    ("names", "titles"),
    [
        (["console"], ["Console"]),
        (["net"], ["Console net"]),
        (["console", "net"], ["Console console", "Console net"]),
    ],
)
def test_titles_of_consoles(tmp_path: Path, names: list[str], titles: list[str]) -> None:
    machine = told(tmp_path, *(record(0, "console", console=name, text="hello\n") for name in names))
    assert [log["title"] for log in machine["logs"]] == titles


def test_a_step_that_never_ended_because_all_failed(tmp_path: Path) -> None:
    step = record(1, "step-begin", step="work", thread="MainThread")
    failed = told(tmp_path, step, record(2, "failure", error="no good", by="with"))
    assert [item["tone"] for item in items(failed, "steps")] == ["bad"]
    assert [item["tone"] for item in items(told(tmp_path, step), "steps")] == ["busy"]


def test_a_clue_has_the_time_of_the_line_that_it_quotes(tmp_path: Path) -> None:
    """Lines come in pieces, and many at once: the time of a line is when it began."""
    wait = {"operation": "expect('x')", "thread": "MainThread", "caller": "t.py:1"}
    machine = told(
        tmp_path,
        record(0, "transition", dest="running", source="launching", event="launched"),
        record(1, "wait-begin", timeout=5, **wait),
        record(2, "console", console="console", text="first\nsecond\nlast, b"),
        record(3, "console", console="console", text="ut one\n\n"),
        record(6, "wait", seconds=5, outcome="timeout", error="MachineTimeout: no x", **wait),
        record(6.1, "failure", error="MachineTimeout: no x", by="with"),
    )
    clue = next(clue for clue in machine["diagnosis"]["clues"] if clue["log"] == "console:console")
    lines = next(log["lines"] for log in machine["logs"] if log["id"] == "console:console")
    assert "last, but one" in clue["text"]
    assert lines[clue["line"]] == [clue["at"], "last, but one"] == [2, "last, but one"]
