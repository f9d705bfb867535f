"""Reading recordings: of every ending, of any size, damaged in any way."""

import contextlib
import json
import os
import random
import shutil
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.endings import ENDINGS, LAUNCH_FAILURES, MakeGuest, guests, up
from tests.recordings import written
from tests.test_snapshot import check
from tests.waiting import LIMIT
from vmfsm import ConfigError, Machine, VMError, recording


@pytest.fixture
def guest(qemu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeGuest]:
    """Makes machines with the tiny guest that are recorded."""
    monkeypatch.setenv("VMFSM_RECORD", str(tmp_path / "records"))
    with guests(qemu) as make:
        yield make


def assert_tells(vm: Machine) -> None:
    """The recording has the picture that the machine gave at its end."""
    it = written(vm)
    assert not it.problems
    picture = it.snapshot()
    assert picture.pop("recording") == {"files": list(it.files), "problems": []}
    told: Any = check({**picture, "details": {}})
    seen: Any = vm.snapshot()
    same = ("name", "state", "reason", "launches", "command", "shell", "cwd", "environment", "exit_status")
    for field in (*same, "pid", "paths", "harness", "plugins", "hooks", "held", "waits", "running_hook"):
        assert told[field] == seen[field], field
    for history in (told["history"], seen["history"]):
        for row in history:
            del row["at"], row["seconds"]
    assert told["history"] == seen["history"]


@pytest.mark.parametrize("name", ENDINGS)
def test_each_ending(guest: MakeGuest, name: str) -> None:
    ending = ENDINGS[name]
    vm = up(guest, ending)
    with contextlib.suppress(VMError):
        ending.come(vm)
    with contextlib.suppress(VMError):
        vm.wait(LIMIT)
    assert vm.state is ending.state
    assert_tells(vm)


@pytest.mark.parametrize("name", LAUNCH_FAILURES)
def test_each_launch_that_fails(guest: MakeGuest, name: str) -> None:
    vm = guest()
    LAUNCH_FAILURES[name].come(vm)
    with contextlib.suppress(VMError):
        vm.wait(LIMIT)
    assert_tells(vm)


def test_of_one_that_runs(guest: MakeGuest, tmp_path: Path) -> None:
    """What only a QEMU that is there can tell: its process, its version and where its files are."""
    with guest(log_dir=tmp_path).launch() as vm:
        it = recording.read(vm.plugin("recorder").path)
        told: Any = it.snapshot()
        seen: Any = vm.snapshot()
        for field in ("pid", "paths", "command", "exit_status"):
            assert told[field] == seen[field], field
        assert told["details"]["qmp"]["version"] == seen["details"]["qmp"]["version"]
        started = next(record.data for record in it.records() if record.kind == "started")
        assert (started["pid"], started["binary"]) == (vm.pid, shutil.which(vm.command[0]))


# -- damage -------------------------------------------------------------------------------------------------

HEADER = {
    "format": "vmfsm-recording",
    "version": 1,
    "recording": "vm",
    "piece": 1,
    "before": 0,
    "clocks": {"monotonic": 100.0, "wall": 1_000_000_000.0},
    "name": "vm",
    "launch": 1,
    "command": ["qemu"],
    "harness": {"pid": 1, "command": ["python"], "cwd": "/", "test": None},
}


def line(kind: str, at: float = 101.0, **data: object) -> bytes:
    return json.dumps({"at": at, "kind": kind, "data": data}).encode() + b"\n"


ENDED = line("transition", event="exited", source="quitting", dest="stopped", reason="requested")


def write(path: Path, *lines: bytes, **header: object) -> recording.Recording:
    path.write_bytes(json.dumps({**HEADER, **header}).encode() + b"\n" + b"".join(lines))
    return recording.read(path)


@pytest.mark.parametrize(
    "damaged",
    [
        b"\n",
        b"nothing\n",
        b"[]\n",
        b"\x00" * 4096 + b"\n",
        b"\xff\xfe{}\n",
        b'{"at": "1", "kind": "x", "data": {}}\n',
        b'{"at": NaN, "kind": "x", "data": {}}\n',
        b'{"at": 1e999, "kind": "x", "data": {}}\n',
        b'{"at": 1e14, "kind": "x", "data": {}}\n',
        b'{"at": true, "kind": "x", "data": {}}\n',
        b'{"at": 1, "kind": 2, "data": {}}\n',
        b'{"at": 1, "kind": "x", "data": []}\n',
        b'{"at": ' + b"1" * 5000 + b', "kind": "x", "data": {}}\n',
        b"[" * 100_000 + b"\n",
        b"x" * (3 * 1024 * 1024) + b"\n",
    ],
    ids=range(15),
)
def test_a_damaged_line_is_left_out(tmp_path: Path, damaged: bytes) -> None:
    it = write(tmp_path / "vm.jsonl", line("note", text="one"), damaged, line("note", text="two"), ENDED)
    assert [record.data.get("text") for record in it.records()] == ["one", "two", None]
    assert it.problems == ("vm.jsonl, line 3 is damaged, and left out",)


def test_cut_anywhere(tmp_path: Path) -> None:
    """Whole lines are there, and it is said that one is not."""
    path = tmp_path / "vm.jsonl"
    write(path, line("note", text="one"), ENDED)
    data = path.read_bytes()
    header, note, ended = (len(part) for part in data.splitlines(keepends=True))
    for size in [*range(0, header, 40), *range(header - 2, len(data))]:
        path.write_bytes(data[:size])
        if size < header - 1:
            with pytest.raises(ConfigError, match="no recording"):
                recording.read(path)
            continue
        it = recording.read(path)
        whole = (size >= header + note - 1) + (size >= header + note + ended - 1)
        assert len(list(it.records())) == whole, "the end of the line itself is not needed"
        is_cut = header < size < header + note - 1 or header + note < size < header + note + ended - 1
        assert any("cut off" in problem for problem in it.problems) == is_cut


def test_any_damage(tmp_path: Path) -> None:
    """Whatever is in the file, reading it comes to its end, and the picture is JSON."""
    chance = random.Random(0)
    path = tmp_path / "vm.jsonl"
    write(
        path,
        *(line(kind, seconds=1.0, hook="x", plugin="y") for kind in ("hook-begin", "hook", "wait")),
        ENDED,
    )
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(first, len(data))] = chance.randrange(256)
        path.write_bytes(data)
        json.dumps(recording.read(path).snapshot(), allow_nan=False)


ODD_VALUES: list[object] = [None, True, -1, 1.5, "text", [], {}, [[]], {"a": None}]


@pytest.mark.parametrize("odd", ODD_VALUES, ids=repr)
def test_records_that_are_not_as_documented(tmp_path: Path, odd: object) -> None:
    names = [
        *("event", "source", "dest", "reason", "hook", "plugin", "seconds", "error", "command", "cwd", "pid"),
        *(
            "environment",
            "status",
            "console",
            "text",
            "operation",
            "timeout",
            "thread",
            "caller",
            "by",
            "paths",
        ),
    ]
    kinds = recording.schema()["$defs"]["kinds"]
    lines = [line(kind, 101.0, **dict.fromkeys(names, odd)) for kind in [*kinds, *kinds]]
    it = write(tmp_path / "vm.jsonl", *lines, harness=odd, command=odd, launch=odd, plugins=odd)
    json.dumps(it.snapshot(), allow_nan=False)
    assert it.snapshot()["name"] == "vm"


@pytest.mark.parametrize("field", ["format", "version", "recording", "piece", "before", "clocks", "name"])
@pytest.mark.parametrize("odd", ODD_VALUES, ids=repr)
def test_headers_that_are_not_as_documented(tmp_path: Path, field: str, odd: object) -> None:
    try:
        it = write(tmp_path / "vm.jsonl", ENDED, **{field: odd})
    except ConfigError as error:
        assert error.field == "path"  # noqa: PT017 - it may be good enough
    else:
        json.dumps(it.snapshot(), allow_nan=False)


def test_files_that_are_missing(tmp_path: Path) -> None:
    write(tmp_path / "vm.jsonl", line("note", text="1"), line("note", text="2"))
    write(tmp_path / "vm.jsonl.0004", ENDED, piece=4, before=10)
    write(tmp_path / "vm.jsonl.0005", ENDED, piece=5, before=11)
    write(tmp_path / "vm.jsonl.0006", ENDED, piece=6, before=12, recording="another")
    (tmp_path / "vm.jsonl.0007").mkdir()
    it = recording.read(tmp_path / "vm.jsonl.0005")
    assert [os.path.basename(file) for file in it.files] == ["vm.jsonl", "vm.jsonl.0004", "vm.jsonl.0005"]
    (gap,) = (record for record in it.records() if record.kind == "dropped")
    assert gap.data["records"] == 8
    assert it.problems == ("8 records before vm.jsonl.0004 were removed to make room",)


def test_files_that_go_while_they_are_read(tmp_path: Path) -> None:
    it = write(tmp_path / "vm.jsonl", line("note"))
    os.unlink(tmp_path / "vm.jsonl")
    assert list(it.records()) == []


def test_a_large_one_in_little_memory(tmp_path: Path) -> None:
    text = line("console", console="console", text="x" * 50_000)
    it = write(tmp_path / "vm.jsonl", *[text] * 400, ENDED)  # 20 MB
    tracemalloc.start()
    try:
        assert it.snapshot()["state"] == "stopped"
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 12_000_000, "the last fifty records are in the picture"


def test_much_damage_in_little_memory(tmp_path: Path) -> None:
    lost = [line("dropped", records="x" * 10_000)] * 100
    it = write(tmp_path / "vm.jsonl", *[b"x\n"] * 100_000, *lost, ENDED)
    tracemalloc.start()
    try:
        assert len(it.problems) == 101
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert it.problems[0] == "vm.jsonl, line 2 is damaged, and left out"
    assert it.problems[-1] == "and 100000 more"
    assert most < 6_000_000


def test_of_another_version(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a recording of version 2: only 1 is known here"):
        write(tmp_path / "vm.jsonl", ENDED, version=2)


def test_times(tmp_path: Path) -> None:
    it = write(tmp_path / "vm.jsonl", ENDED)
    assert it.time(101.5).isoformat() == "2001-09-09T01:46:41.500000+00:00"
    assert it.snapshot()["taken"] == "2001-09-09T01:46:41+00:00"
    with pytest.raises(OverflowError):
        it.time(1e14)


def test_a_clock_that_was_set_meanwhile(tmp_path: Path) -> None:
    """Each file says how late it was."""
    it = write(tmp_path / "vm.jsonl", line("note", at=101.0))
    write(
        tmp_path / "vm.jsonl.0002",
        ENDED,
        piece=2,
        before=1,
        clocks={"monotonic": 200.0, "wall": 1_000_003_700},
    )
    it = recording.read(tmp_path / "vm.jsonl")
    assert it.time(50.0).isoformat() == "2001-09-09T01:45:50+00:00"
    assert it.time(101.0).isoformat() == "2001-09-09T01:46:41+00:00"
    assert it.time(201.0).isoformat() == "2001-09-09T02:48:21+00:00"


@pytest.mark.parametrize("end", [1.99e10, -1.99e10])
def test_times_at_their_ends(tmp_path: Path, end: float) -> None:
    clocks = {"monotonic": -end, "wall": end}
    json.dumps(write(tmp_path / "vm.jsonl", line("note", at=end), clocks=clocks).snapshot())
    with pytest.raises(ConfigError):
        write(tmp_path / "vm.jsonl", ENDED, clocks={"monotonic": 2 * end, "wall": end})


def test_what_is_no_recording(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        recording.read(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        recording.read(tmp_path)
    with pytest.raises(ConfigError):
        recording.read("")
    (tmp_path / "empty").touch()
    with pytest.raises(ConfigError, match="no recording"):
        recording.read(tmp_path / "empty")


def test_holds(tmp_path: Path) -> None:
    holds = [
        line("hold", 1.0, by="one", reason=None, keep=True),
        line("hold", 2.0, by="one", reason="why", keep=True),
        line("hold", 3.0, by="two", reason=None, keep=True),
        line("release", 4.0, by="two", seconds=1.0),
    ]
    assert write(tmp_path / "vm.jsonl", *holds).snapshot()["held"] == "by one; why"
    first = line("release", 5.0, by="one", seconds=4.0)
    assert write(tmp_path / "vm.jsonl", *holds, first).snapshot()["held"] == "why"
    second = line("release", 6.0, by="one", seconds=4.0)
    assert write(tmp_path / "vm.jsonl", *holds, first, second, second).snapshot()["held"] is None


def test_waits_and_hooks_in_progress(tmp_path: Path) -> None:
    begun = line("wait-begin", 101.0, operation="expect", timeout=10, thread="main", caller="a.py:1")
    hook = line("hook-begin", 102.0, hook="post_launch", plugin="qmp")
    it = write(tmp_path / "vm.jsonl", begun, hook, line("note", 104.0, text="now"))
    picture = it.snapshot()
    assert picture["running_hook"] == "post_launch of plugin 'qmp'"
    assert picture["waits"] == [
        {
            "operation": "expect",
            "timeout": 10,
            "thread": "main",
            "caller": "a.py:1",
            "seconds": 3.0,
            "remaining": 7.0,
        }
    ]
    ended = line("wait", 105.0, operation="expect", thread="main", caller="a.py:1", seconds=4.0)
    assert write(tmp_path / "vm.jsonl", begun, hook, ended).snapshot()["waits"] == []
