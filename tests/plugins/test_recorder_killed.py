"""A harness that is killed, or just ends: what it recorded is there, in order, up to a moment before."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.recordings import files_in, path_of, read
from tests.waiting import LIMIT, until
from vmfsm import Machine, recording

MAKE = """
import os, sys
from vmfsm import Machine

options = {"recorder": {"directory": sys.argv[1], "max_bytes": 65_536, "files": 4}}
vm = Machine("qemu-system-x86_64", ["-M", "none"], name="victim", base_dir=sys.argv[2], options=options)
"""

# As a recording it is a moment behind.
UNTIL_RUNNING = """
from vmfsm import recording
vm.launch()
while not (path := vm.plugin("recorder").path) or recording.read(path).snapshot()["state"] != "running":
    pass
"""

# Does as much as it can.
BUSY = (
    MAKE
    + """
for launch in range(1000):
    vm.launch()
    for serial in range(500):
        vm.note("busy", serial=serial, more="x" * 300)
        if serial % 50 == 25:
            vm.qmp.execute("query-status")
            print("up", flush=True)
    vm.shutdown()
"""
)


def command(program: str, directory: Path, base: Path) -> list[str]:
    base.mkdir(exist_ok=True)
    return [sys.executable, "-c", program, str(directory), str(base)]


@contextlib.contextmanager
def busy(directory: Path, base: Path) -> Iterator["subprocess.Popen[str]"]:
    """A harness that has something in its recording, and is killed at the end."""
    with subprocess.Popen(command(BUSY, directory, base), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            until(lambda: whole(directory))
            yield process
        finally:
            process.kill()
    until(lambda: os.listdir(base) == [])  # its watchdog sees to that, and to QEMU


def whole(directory: Path) -> list[Path]:
    """The recordings that have a header."""
    return [path for path in directory.glob("*.jsonl") if b"\n" in path.read_bytes()]


def recordings_in(directory: Path, *, harnesses: int) -> list[recording.Recording]:
    """Each of them, but one of each harness that was killed while it wrote the header."""
    paths = whole(directory)
    assert len(list(directory.glob("*.jsonl"))) - len(paths) <= harnesses
    return [recording.read(path) for path in sorted(paths)]


def assert_has_no_gaps(it: recording.Recording) -> None:
    """But the one of which it says so; and no line but the last is cut."""
    records = list(it.records())
    serials = []
    missing = 0
    for record in records:
        if record.kind == "note":
            serials.append(record.data["serial"])
        elif record.kind == "dropped":
            assert record.data["error"] == "removed to make room"
            assert not missing, "one gap"
            missing = len(serials)
    end = serials[missing:]
    assert serials[:missing] == list(range(missing))
    first = end[0] if missing and end else 0
    assert isinstance(first, int)
    assert end == list(range(first, first + len(end)))
    rest = [
        problem
        for problem in it.problems
        if not problem.endswith((": its harness was killed", "to make room"))
    ]
    assert [
        problem for problem in rest if not problem.endswith("is cut off: that is where writing ended")
    ] == []
    assert len(rest) <= 1


def test_killed_at_any_time(qemu: str, tmp_path: Path) -> None:
    chance = random.Random()
    for number in range(2):
        directory = tmp_path / f"records-{number}"
        with busy(directory, tmp_path / "base") as process:
            time.sleep(chance.random() * 0.3)
            process.send_signal(signal.SIGKILL)
            process.wait(LIMIT)
        its = recordings_in(directory, harnesses=1)
        assert its
        for it in its:
            assert_has_no_gaps(it)
        for it in its[:-2]:
            assert it.snapshot()["state"] == "stopped"


def test_two_processes_record_into_one_directory(qemu: str, tmp_path: Path) -> None:
    """Machines of the same name, at the same time."""
    with busy(tmp_path / "records", tmp_path / "a") as one, busy(tmp_path / "records", tmp_path / "b") as two:
        pass
    pids: set[object] = set()
    for it in recordings_in(tmp_path / "records", harnesses=2):
        assert_has_no_gaps(it)
        assert isinstance(it.header["harness"], dict)
        pids.add(it.header["harness"]["pid"])
    assert pids == {one.pid, two.pid}


def test_nothing_is_kept_back(qemu: str, tmp_path: Path) -> None:
    """A record is in the file at once, though nothing comes after it."""
    with Machine(qemu, ["-M", "none"], options={"recorder": {"directory": tmp_path}}) as vm:
        vm.launch()
        path = path_of(vm)
        for number in range(2, 8):
            vm.qmp.execute("query-status")
            until(lambda: replies_in(path) >= number)  # noqa: B023 - called here and now
            assert replies_in(path) == number


def replies_in(path: str) -> int:
    return sum(record.kind == "qmp-reply" for record in recording.read(path).records())


@pytest.mark.parametrize(
    ("end", "state", "reason", "said"),
    [
        ("vm.launch(); vm.note('last words')", "stopped", "killed", True),
        ("vm.launch(); vm.shutdown(); vm.note('last words')", "stopped", "requested", True),
        (UNTIL_RUNNING + "os._exit(0)", "running", None, False),
    ],
    ids=["running", "after-shutdown", "os-exit"],
)
def test_a_harness_that_just_ends(
    qemu: str, tmp_path: Path, end: str, state: str, reason: str | None, said: bool
) -> None:
    """Machines are ended, and all of it is recorded; by `os._exit` it is as if killed."""
    program = command(MAKE + end, tmp_path / "records", tmp_path / "base")
    done = subprocess.run(program, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    it = read(str(files_in(tmp_path / "records")[0]))
    picture = it.snapshot()
    assert (picture["state"], picture["reason"]) == (state, reason)
    assert ("last words" in [record.data.get("text") for record in it.records()]) == said
    assert bool(it.problems) == (state == "running")
    until(lambda: os.listdir(tmp_path / "base") == [])
