"""The recorder: what is in its files, where they are, and that it is off where nobody asked for it."""

import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from vmfsm_plugins.recorder import Recorder

from tests.endings import MakeGuest, guests, until_guest_is_up
from tests.recordings import files_in, lines_of, path_of, read, written
from tests.waiting import until
from vmfsm import ConfigError, LaunchError, Machine, Record, State, hookimpl, recording
from vmfsm.testing import GUEST_ARGS

Make = Callable[..., Machine]


@pytest.fixture
def guest(qemu: str) -> Iterator[MakeGuest]:
    with guests(qemu) as make:
        yield make


@pytest.fixture
def recorded(guest: MakeGuest, tmp_path: Path) -> Make:
    """Makes guests that are recorded in `tmp_path / "records"`."""

    def make(**options: object) -> Machine:
        return guest(options={"recorder": {"directory": tmp_path / "records", **options}})

    return make


def as_told(records: Iterator[Record]) -> list[tuple[str, float]]:
    return [(record.kind, round(record.at, 6)) for record in records]


def test_it_is_off(guest: MakeGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VMFSM_RECORD", raising=False)
    vm = guest().launch()
    recorder = vm.plugin("recorder")
    assert (recorder.path, recorder.dropped) == (None, 0)
    assert not recorder.enabled
    assert {info.name: info.hooks for info in vm.plugins}["recorder"] == ()
    assert "vmfsm-recorder" not in {thread.name for thread in threading.enumerate()}


def test_all_records_when_the_call_returns(recorded: Make) -> None:
    vm = recorded().launch()
    it = written(vm)
    recorded_by_now = as_told(it.records())
    assert [kind for kind, _ in recorded_by_now].count("transition") == 2
    assert recorded_by_now == as_told(iter(vm.timeline))[: len(recorded_by_now)], "the guest may go on"
    assert it.problems == ("it ends in state running: its harness goes on",)
    until_guest_is_up(vm)
    vm.shutdown()
    assert as_told(it.records()) == as_told(iter(vm.timeline))
    assert not it.problems
    assert vm.plugin("recorder").dropped == 0
    until(lambda: "vmfsm-recorder" not in {thread.name for thread in threading.enumerate()})


def test_the_header(recorded: Make) -> None:
    vm = recorded().launch()
    header = written(vm).header
    assert (header["format"], header["version"], header["piece"]) == (recording.FORMAT, recording.VERSION, 1)
    assert (header["name"], header["launch"]) == (vm.name, 1)
    harness = header["harness"]
    assert isinstance(harness, dict)
    assert harness["pid"] == os.getpid()
    assert "test_the_header" in str(harness["test"])


def test_times(recorded: Make) -> None:
    vm = recorded().launch()
    it = written(vm)
    began = next(it.records())
    assert Path(path_of(vm)).stem.split("-")[-3] == it.time(began.at).strftime("%Y%m%dT%H%M%SZ")


def test_each_launch_has_a_file(recorded: Make, tmp_path: Path) -> None:
    vm = recorded()
    paths = []
    for _ in range(3):
        vm.launch()
        vm.shutdown()
        assert not written(vm).problems
        paths.append(path_of(vm))
    assert [str(path) for path in files_in(tmp_path / "records")] == paths, "in order"
    for number, path in enumerate(paths, 1):
        it = read(path)
        kinds = [record.kind for record in it.records()]
        assert it.header["launch"] == number
        assert kinds.count("transition") == 4
        assert kinds[0] == "transition"
        assert it.problems == ()


def test_it_is_private(recorded: Make, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        vm = recorded().launch()
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(path_of(vm)).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(tmp_path / "records").st_mode) == 0o700


def test_by_the_environment(guest: MakeGuest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VMFSM_RECORD", "here")
    vm = guest().launch()
    assert os.path.dirname(path_of(vm)) == str(tmp_path / "here")
    other = guest(options={"recorder": {"directory": tmp_path / "there"}}).launch()
    assert os.path.dirname(path_of(other)) == str(tmp_path / "there"), "the option wins"
    with pytest.raises(ConfigError):
        guest(block=["recorder"]).plugin("recorder")
    monkeypatch.setenv("VMFSM_RECORD", "")
    assert guest().launch().plugin("recorder").path is None


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"directory": ""}, "directory"),
        ({"directory": "a\0b"}, "directory"),
        ({"directory": 3}, "directory"),
        ({"max_bytes": 0}, "max_bytes"),
        ({"max_bytes": "1"}, "max_bytes"),
        ({"max_bytes": True}, "max_bytes"),
        ({"files": 1}, "files"),
        ({"files": 2.5}, "files"),
        ({"max_bytes": 100_000, "files": 100}, "max_bytes"),
    ],
)
def test_bad_options(qemu: str, options: dict[str, object], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Machine(qemu, GUEST_ARGS, options={"recorder": options})
    assert caught.value.field == f"options['recorder']['{field}']"


def test_a_directory_that_cannot_be(guest: MakeGuest, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    vm = guest(options={"recorder": {"directory": tmp_path / "file" / "records"}})
    with pytest.raises(LaunchError, match=r"'recorder', or VMFSM_RECORD: Not a directory"):
        vm.launch()
    assert vm.state is State.FAILED


def test_a_launch_that_failed(guest: MakeGuest, tmp_path: Path) -> None:
    vm = guest(more=["-device", "no-such-device"], options={"recorder": {"directory": tmp_path}})
    with pytest.raises(LaunchError):
        vm.launch()
    it = written(vm)
    picture = it.snapshot()
    assert (picture["state"], picture["reason"]) == ("failed", "launch-error")
    assert "no-such-device" in str(picture["details"])
    assert it.problems == ()


def test_the_picture_is_that_of_the_machine(recorded: Make) -> None:
    vm = recorded().launch()
    until_guest_is_up(vm)
    vm.shutdown()
    picture = written(vm).snapshot()
    assert (picture["name"], picture["state"], picture["reason"]) == (vm.name, "stopped", "requested")
    history = picture["history"]
    assert isinstance(history, list)
    told = [(row["event"], row["source"], row["dest"]) for row in history if isinstance(row, dict)]
    assert told == [(change.event.value, change.source.value, change.dest.value) for change in vm.history]
    assert picture["command"] == list(vm.command)
    assert (picture["exit_status"], picture["pid"]) == (0, None)
    assert "vmfsm guest ready" in str(picture["details"])


def test_two_machines_of_one_name(qemu: str, tmp_path: Path) -> None:
    machines = [
        Machine(qemu, GUEST_ARGS, name="twin", options={"recorder": {"directory": tmp_path}}) for _ in "ab"
    ]
    for vm in machines:
        with vm:
            vm.launch()
    assert len({path_of(vm) for vm in machines}) == 2
    for path in files_in(tmp_path):
        assert list(lines_of(path))


class Counting(Recorder):
    """Somebody's own."""

    seen = 0

    @hookimpl
    def records(self, machine: Machine, batch: Sequence[Record]) -> None:
        self.seen += len(batch)
        super().records(machine, batch)


def test_one_that_is_derived(guest: MakeGuest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VMFSM_RECORD", raising=False)
    counting, idle = Counting(directory=tmp_path), Counting()
    assert (counting.enabled, idle.enabled) == (True, False)
    for plugin in (counting, idle):
        with guest(plugins=[plugin]) as vm:
            vm.launch()
    assert counting.path is not None
    assert counting.seen > 10
    assert (idle.path, idle.seen) == (None, 0)


def test_values_of_commands_where_they_are_asked_for(qemu: str, tmp_path: Path) -> None:
    options: dict[str, dict[str, object]] = {
        "recorder": {"directory": tmp_path},
        "qmp": {"record_values": True},
    }
    with Machine(qemu, ["-M", "none"], options=options) as vm:
        vm.launch()
        vm.qmp.execute("object-add", qom_type="secret", id="one", data="abc")
        vm.qmp.execute("qom-list", path="/objects")
        vm.qmp.execute("query-qmp-schema")
    records = list(written(vm).records())
    sent = {record.data["command"]: record.data for record in records if record.kind == "qmp-command"}
    got = {record.data["command"]: record.data for record in records if record.kind == "qmp-reply"}
    assert sent["object-add"]["values"] == {"qom-type": "secret", "id": "one", "data": "***"}
    assert sent["qom-list"]["values"] == {"path": "/objects"}
    assert "values" not in sent["query-qmp-schema"]
    assert {"name": "one", "type": "child<secret>"} in got["qom-list"]["return"]  # type: ignore[operator]
    size = got["query-qmp-schema"]["bytes"]
    assert isinstance(size, int)
    assert size > 100_000
    assert "return" not in got["query-qmp-schema"]


@pytest.mark.parametrize("name", ["a.jsonl", "a@b:c+d", "_", "x" * 64, "9-1-20261121T000000Z-1-0001"])
def test_names_of_machines_stay_in_the_directory(qemu: str, tmp_path: Path, name: str) -> None:
    with Machine(qemu, ["-M", "none"], name=name, options={"recorder": {"directory": tmp_path}}) as vm:
        vm.launch()
    it = written(vm)
    assert it.name == name
    assert [Path(file) for file in it.files] == files_in(tmp_path)
