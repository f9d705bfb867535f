"""A recorder whose disk is full, gone or hangs: records are lost, and said to be; machines go on."""

import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.bench.flooder import __file__ as flooder_file
from tests.endings import guests
from tests.faults.conftest import MakeDisk, fill, small_disk
from tests.hung_files import hung
from tests.recordings import files_in, lines_of, path_of, read, written
from tests.waiting import LIMIT, until
from vmfsm import ConfigError, Machine, hookimpl, recording
from vmfsm.iothread import IOThread

__all__ = ["small_disk"]

Make = Callable[..., Machine]


class Marks:
    """Records what it is told to."""

    name = "marks"

    @staticmethod
    async def make(machine: Machine, first: int, number: int, data: Mapping[str, object]) -> None:
        for serial in range(first, first + number):
            machine.record("mark", {"serial": serial, **data}, size=100)


def mark(vm: Machine, number: int, *, first: int = 0, **data: object) -> None:
    vm.run(Marks.make(vm, first, number, data), timeout=30, operation="mark")


def serials(vm: Machine) -> list[int]:
    return [
        serial
        for record in recording.read(path_of(vm)).records()
        if record.kind == "mark" and isinstance(serial := record.data["serial"], int)
    ]


def until_written(vm: Machine, serial: int) -> None:
    until(lambda: serials(vm)[-1:] == [serial])


@pytest.fixture
def recorded(qemu: str) -> Iterator[Make]:
    with guests(qemu) as make:

        def recorded(directory: Path, **options: object) -> Machine:
            return make(options={"recorder": {"directory": directory, **options}})

        yield recorded


# -- bounded ------------------------------------------------------------------------------------------------


def test_beginning_and_end_are_kept(qemu: str, tmp_path: Path) -> None:
    options = {"recorder": {"directory": tmp_path, "max_bytes": 65_536, "files": 4}}
    with Machine(qemu, ["-M", "none"], options=options) as vm:
        vm.launch()
        path = path_of(vm)
        for first in range(0, 2_000, 500):
            mark(vm, 500, first=first)
            until_written(vm, first + 499)
            assert len(files_in(tmp_path)) <= 4
    files = files_in(tmp_path)
    assert len(files) == 4
    headers = 4 * max(len(file.read_bytes().splitlines(keepends=True)[0]) for file in files)
    assert sum(file.stat().st_size for file in files) <= 65_536 + headers
    it = read(path)
    assert [Path(file) for file in it.files] == files
    assert it.files[0] == path
    records = list(it.records())
    (gap,) = (index for index, record in enumerate(records) if record.kind == "dropped")
    before = [record.data["serial"] for record in records[:gap] if record.kind == "mark"]
    after = [record.data["serial"] for record in records[gap:] if record.kind == "mark"]
    missing = records[gap].data["records"]
    assert isinstance(missing, int)
    assert before == list(range(len(before)))
    assert after == list(range(2_000 - len(after), 2_000))
    assert len(before) + missing + len(after) == 2_000, "it is known how many are not there"
    assert [problem for problem in it.problems if "removed to make room" in problem] == list(it.problems)
    assert recording.read(it.files[-1]).files == it.files, "whichever of its files one has"
    assert it.snapshot()["state"] == "stopped"


def test_a_record_that_is_too_long(recorded: Make, tmp_path: Path) -> None:
    vm = recorded(tmp_path, max_bytes=64_000, files=2).launch()
    mark(vm, 1, first=1, text="x" * 2_000_000)
    mark(vm, 1, first=2, text="y" * 50_000)
    mark(vm, 1, first=3)
    vm.shutdown()
    it = written(vm)
    marks = {record.data["serial"]: record.data for record in it.records() if record.kind == "mark"}
    assert 3 in marks
    if 1 in marks:
        assert "text" not in marks[1]


def test_a_record_that_is_longer_than_a_line_may_be(recorded: Make, tmp_path: Path) -> None:
    vm = recorded(tmp_path).launch()
    mark(vm, 1, text="x" * 2_000_000, name="short")
    vm.shutdown()
    (found,) = (r.data for r in written(vm).records() if r.kind == "mark")
    left_out = found["left_out"]
    assert isinstance(left_out, int)
    assert left_out > 2_000_000
    assert {**found, "left_out": 0} == {"serial": 0, "name": "short", "left_out": 0}


# -- disks --------------------------------------------------------------------------------------------------


def test_a_disk_that_gets_full(
    recorded: Make, small_disk: MakeDisk, caplog: pytest.LogCaptureFixture
) -> None:
    disk = small_disk(size=64)
    vm = recorded(disk).launch()
    assert path_of(vm)
    fill(disk)
    with caplog.at_level(logging.WARNING, logger="vmfsm.recorder"):
        for first in range(0, 1_000, 100):
            mark(vm, 100, first=first)
        until(lambda: vm.plugin("recorder").dropped > 0)
        mark(vm, 10, first=1_000)
        assert vm.qmp.execute("query-status")["status"] == "running"
    logged = [record.getMessage() for record in caplog.records]
    assert len([line for line in logged if "No space left" in line]) == 1, logged
    os.unlink(disk / "filling")
    mark(vm, 1, first=2_000)
    until_written(vm, 2_000)
    vm.shutdown()
    it = written(vm)
    lost = sum(record.data["records"] for record in it.records() if record.kind == "dropped")  # type: ignore[misc]
    assert lost == vm.plugin("recorder").dropped
    assert lost + len([serial for serial in serials(vm) if serial < 2_000]) >= 1_010
    assert any("were not written: No space left" in problem for problem in it.problems)
    assert it.snapshot()["state"] == "stopped"


def test_a_disk_that_is_full(recorded: Make, small_disk: MakeDisk) -> None:
    disk = small_disk()
    fill(disk)
    vm = recorded(disk).launch()
    assert vm.plugin("recorder").path is None
    vm.shutdown()
    until(lambda: vm.plugin("recorder").dropped > 20)
    assert files_in(disk) == []


def test_a_directory_that_is_removed(recorded: Make, tmp_path: Path) -> None:
    directory = tmp_path / "records"
    vm = recorded(directory).launch()
    assert path_of(vm)
    shutil.rmtree(directory)
    mark(vm, 5)
    vm.shutdown()
    assert vm.state.value == "stopped"
    vm.launch()
    vm.shutdown()
    assert written(vm).snapshot()["state"] == "stopped"


def test_a_file_that_is_removed(recorded: Make, tmp_path: Path) -> None:
    """The rest of it is in another one."""
    vm = recorded(tmp_path).launch()
    assert path_of(vm)
    (first,) = files_in(tmp_path)
    first.unlink()
    mark(vm, 5)
    vm.shutdown()
    second = first.with_name(first.name + ".0002")
    until(lambda: second.exists() and recording.read(second).snapshot()["state"] == "stopped")
    it = read(str(second))
    records = list(it.records())
    assert records[0].kind == "dropped"
    assert [record.data["serial"] for record in records if record.kind == "mark"] == [0, 1, 2, 3, 4]


def test_a_file_that_is_replaced_is_let_alone(recorded: Make, tmp_path: Path) -> None:
    """After the end of a launch it is opened again for what comes then; not for anything else."""
    vm = recorded(tmp_path).launch()
    vm.shutdown()
    path = Path(written(vm).files[0])
    path.unlink()
    other = tmp_path / "other"
    other.write_text("precious")
    path.symlink_to(other)
    mark_later(vm)
    second = tmp_path / f"{path.name}.0002"
    until(lambda: second.exists() and b"mark" in second.read_bytes())
    assert vm.plugin("recorder").dropped == 0
    assert other.read_text() == "precious"


def mark_later(vm: Machine) -> None:
    IOThread.get().post(vm.record, "mark", {"serial": -1})


def test_hanging_files_hold_up_nobody(recorded: Make, tmp_path: Path) -> None:
    """Neither their machine nor the recorder of another."""
    (tmp_path / "hung").mkdir()
    other = recorded(tmp_path / "other")
    with hung(tmp_path / "hung") as hold:
        vm = recorded(tmp_path / "hung").launch()
        until(lambda: hold.holds)
        other.launch()
        mark(other, 10)
        until(lambda: serials(other) == list(range(10)))
        mark(vm, 10)
        assert vm.qmp.execute("query-status")["status"] == "running"
        vm.shutdown()
        other.shutdown()
        assert written(other).snapshot()["state"] == "stopped"
        hold.release()
        assert not written(vm).problems
    assert serials(vm) == list(range(10)), "it was waiting"


def test_what_waits_for_hanging_files_is_bounded(
    recorded: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with hung(tmp_path) as hold, caplog.at_level(logging.WARNING, logger="vmfsm.recorder"):
        vm = recorded(tmp_path).launch()
        until(lambda: hold.holds)
        for first in range(12):
            mark(vm, 1, first=first, text="x" * 1_000_000)
        until(lambda: vm.plugin("recorder").dropped > 0)
        hold.release()
        vm.shutdown()
        it = written(vm)
    (logged,) = caplog.records
    assert "the file system is too slow" in logged.getMessage()
    losses = [record.data for record in it.records() if record.kind == "dropped"]
    assert {loss["error"] for loss in losses} == {"the file system is too slow"}
    assert sum(int(str(loss["records"])) for loss in losses) == vm.plugin("recorder").dropped
    assert serials(vm)[-1] == 11, "the end is kept"


# -- what is in it ------------------------------------------------------------------------------------------


class Odd:
    def __repr__(self) -> str:
        raise RuntimeError("no good")


CIRCLE: list[object] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    "odd",
    [
        b"\xff\0",
        float("nan"),
        float("inf"),
        10**5000,
        "\ud800",
        "\U0001f600",
        {1, 2},
        {(1, 2): 3},
        Odd(),
        CIRCLE,
        Path("/"),
        "\x1b[2J\x9b\u2028\x7f\0",
        {"format": "vmfsm-recording"},
    ],
    ids=lambda odd: type(odd).__name__,
)
def test_odd_data(recorded: Make, tmp_path: Path, odd: object) -> None:
    vm = recorded(tmp_path).launch()
    mark(vm, 1, odd=odd)
    vm.shutdown()
    it = written(vm)
    (found,) = (record.data for record in it.records() if record.kind == "mark")
    if isinstance(odd, str) and odd != "\ud800":
        assert found["odd"] == odd
    assert it.snapshot()["state"] == "stopped"
    assert not it.problems
    assert not (set(range(32)) - {10}) & set(Path(it.files[0]).read_bytes())


def test_a_hostile_guest(recorded: Make, qemu: str, tmp_path: Path) -> None:
    """What it prints is in the recording as it is in the console, and in no other place of it."""
    text = '"}\n{"at":0,"kind":"transition","data":{"dest":"failed"}}\n\x1b]0;x\x07\r\0\x9b2J'
    vm = recorded(tmp_path).launch()
    vm.console.expect("ready")
    vm.console.send(text.encode("utf-8") + b"\xc3\xff\r\n")
    vm.console.sendline("ping")
    vm.console.expect("pong")
    vm.shutdown()
    it = written(vm)
    said = "".join(str(record.data["text"]) for record in it.records() if record.kind == "console")
    assert said == vm.console.text
    assert it.snapshot()["state"] == "stopped"


def test_a_line_of_ten_megabytes(qemu: str, tmp_path: Path) -> None:
    """From something in QEMU's place that is faster than a guest."""
    flooder = [sys.executable, flooder_file, "10000000", "0"]
    options = {"recorder": {"directory": tmp_path, "max_bytes": 1 << 20, "files": 4}}
    with Machine(sys.executable, wrapper=flooder, block=["qmp", "fdpass"], options=options) as vm:
        vm.launch()
        vm.console.expect("ready")
        vm.console.send(b"g")
        vm.wait(LIMIT)
    it = written(vm)
    assert it.snapshot()["state"] == "stopped"
    assert sum(path.stat().st_size for path in files_in(tmp_path)) < (1 << 20) + 40_000


class UntilHeader:
    """Before the command line is whole there is a header."""

    name = "until-header"

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @hookimpl
    def pre_launch(self) -> None:
        until(lambda: any(b"clocks" in file.read_bytes() for file in files_in(self._directory)))


def test_secrets_are_hidden(qemu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "correct-horse-battery"
    object_ = f"secret,id=one,data={secret}"
    args = ["-M", "none", "-object", object_]
    env = {"TOKEN": f"{secret}-2"}
    wrapper = ["env", f"password={secret}-4"]
    options = {"recorder": {"directory": tmp_path}}
    plugins = [UntilHeader(tmp_path)]
    monkeypatch.setenv("PYTEST_CURRENT_TEST", f"test[{secret}-2]")
    with Machine(qemu, args, wrapper=wrapper, env=env, plugins=plugins, options=options) as vm:
        vm.secrets.add(f"{secret}-2")
        vm.launch()
        vm.qmp.execute("object-add", qom_type="secret", id="two", data=f"{secret}-3")
        mark_later(vm)
        vm.shutdown()
        path = Path(written(vm).files[0])
    assert secret not in path.read_text()
    assert list(lines_of(path))


def test_a_forked_child_records_nothing(recorded: Make, tmp_path: Path) -> None:
    vm = recorded(tmp_path / "parent").launch()
    child = os.fork()
    if not child:
        try:
            os._exit(0 if vm.state.value == "running" else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    mark(vm, 3)
    vm.shutdown()
    assert not written(vm).problems
    assert serials(vm) == [0, 1, 2]
    assert len(files_in(tmp_path / "parent")) == 1


def test_json_that_is_no_header_is_no_recording(tmp_path: Path) -> None:
    path = tmp_path / "no.jsonl"
    path.write_text(json.dumps({"format": "vmfsm-recording"}) + "\n")
    with pytest.raises(ConfigError, match="no recording"):
        recording.read(path)
