"""A harness that is killed: what it recorded is there, whole lines up to a moment before."""

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

# Does as much as it can.
HARNESS = """
import sys, time
from vmfsm import Machine
from vmfsm.testing import GUEST_ARGS

args = [*GUEST_ARGS, "-nodefaults"]
options = {"recorder": {"directory": sys.argv[1], "max_bytes": 1 << 20, "files": 4}}
with Machine("qemu-system-x86_64", args, name="victim", base_dir=sys.argv[2], options=options) as vm:
    for launch in range(100):
        vm.launch()
        vm.console.expect("ready")
        print("up", flush=True)
        for number in range(50 if launch % 2 else 500):
            vm.qmp.execute("query-status")
        vm.shutdown()
"""


@contextlib.contextmanager
def harness(directory: Path, base: Path) -> Iterator["subprocess.Popen[str]"]:
    base.mkdir(exist_ok=True)
    command = [sys.executable, "-c", HARNESS, str(directory), str(base)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()
    until(lambda: os.listdir(base) == [])  # its watchdog sees to that, and to QEMU


def test_killed_at_any_time(qemu: str, tmp_path: Path) -> None:
    chance = random.Random(0)
    for number in range(3):
        directory = tmp_path / f"records-{number}"
        with harness(directory, tmp_path / "base") as process:
            assert process.stdout is not None
            for _ in range(1 + number % 2):
                assert process.stdout.readline() == "up\n"
            time.sleep(chance.random() * 0.2)
            process.send_signal(signal.SIGKILL)
            process.wait(LIMIT)
            killed = time.monotonic()
        *_, last = files_in(directory)
        it = recording.read(last)
        records = list(it.records())
        cut = [problem for problem in it.problems if "cut off" not in problem]
        assert all("its harness was killed" in problem or "to make room" in problem for problem in cut)
        assert killed - records[-1].at < LIMIT
        for path in files_in(directory)[:-1]:
            assert list(recording.read(path).records())


def test_in_the_middle_of_a_launch(qemu: str, tmp_path: Path) -> None:
    """While it does something all the time."""
    with harness(tmp_path / "records", tmp_path / "base") as process:
        assert process.stdout is not None
        process.stdout.readline()
        until(lambda: any(b"guest ready" in path.read_bytes() for path in files_in(tmp_path / "records")[:1]))
        process.send_signal(signal.SIGKILL)
        process.wait(LIMIT)
    it = recording.read(files_in(tmp_path / "records")[0])
    assert it.problems[-1] == "it ends in state running: its harness was killed"
    picture = it.snapshot()
    assert (picture["state"], picture["exit_status"]) == ("running", None)
    assert "ready" in str(picture["details"])


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


@pytest.mark.parametrize("way", ["exit", "os-exit"])
def test_a_harness_that_just_ends(qemu: str, tmp_path: Path, way: str) -> None:
    """By `sys.exit` machines are ended, and that is recorded; by `os._exit` it is as if killed."""
    body = (
        HARNESS.replace(
            "        for number",
            "        "
            + ("sys.exit()" if way == "exit" else "import os; os._exit(0)")
            + "\n        for number",
        )
        .replace("with Machine(", "vm = Machine(")
        .replace(") as vm:", ")\nif True:")
    )
    (tmp_path / "base").mkdir()
    command = [sys.executable, "-c", body, str(tmp_path / "records"), str(tmp_path / "base")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    it = read(str(files_in(tmp_path / "records")[0]))
    picture = it.snapshot()
    if way == "exit":
        assert (picture["state"], picture["reason"]) == ("stopped", "killed")
        assert not it.problems
    else:
        assert picture["state"] == "running"
    until(lambda: os.listdir(tmp_path / "base") == [])


def test_two_processes_record_into_one_directory(qemu: str, tmp_path: Path) -> None:
    """Machines of the same name, at the same time."""
    with (
        harness(tmp_path / "records", tmp_path / "a") as one,
        harness(tmp_path / "records", tmp_path / "b") as two,
    ):
        for process in (one, two):
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
    pids: set[object] = set()
    for path in files_in(tmp_path / "records"):
        it = recording.read(path)
        records = list(it.records())
        assert [record.kind for record in records].count("spawn") <= 1
        assert records == sorted(records, key=lambda record: record.at)
        assert isinstance(it.header["harness"], dict)
        pids.add(it.header["harness"]["pid"])
    assert pids == {one.pid, two.pid}
