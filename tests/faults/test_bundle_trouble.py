"""Bundles where the disk is full, hangs, or is somebody else's; and QEMU's core."""

import os
import re
import resource
import signal
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from vmfsm_plugins.bundle import cores, folder

from tests.bundles import Seen, bundles, the_bundle
from tests.endings import MakeGuest, stop_process, until_guest_is_up
from tests.faults.conftest import MakeDisk, fill
from tests.hung_files import hung
from tests.waiting import LIMIT, InThread, until
from vmfsm import Machine, State

TIMEOUT = 2.0
SLACK = 20.0
"""Seconds beside a bound: a busy machine's."""


def failing(guest: MakeGuest, directory: Path, **options: Any) -> Machine:
    """One that runs and has failed."""
    given = {"directory": directory, "report": False, "timeout": LIMIT, **options}
    vm = guest(options={"bundle": given}).launch()
    until_guest_is_up(vm)
    vm.note_failure("it fails")
    return vm


# -- the disk -----------------------------------------------------------------------------------------------


def test_a_disk_that_is_full(
    guest: MakeGuest, small_disk: MakeDisk, capfd: pytest.CaptureFixture[str]
) -> None:
    disk = small_disk()
    vm = failing(guest, disk)
    fill(disk)
    vm.shutdown()
    assert (vm.state, vm.exit_status) == (State.STOPPED, 0)
    said = capfd.readouterr().err
    assert "no bundle could be made" in said
    assert "No space left on device" in said
    assert vm.plugin("bundle").path is None
    assert os.listdir(disk) == ["filling"]


def test_a_disk_that_gets_full(guest: MakeGuest, small_disk: MakeDisk) -> None:
    """What has room is there, and whole; what has not is named."""
    disk = small_disk(size=128)
    vm = failing(guest, disk, memory=True)
    vm.console.sendline("flood")
    until(lambda: vm.console.lost + len(vm.console.text) > 150_000)
    vm.qmp.execute("stop")
    for _ in range(100):  # else the snapshot has what was printed last, and may be what takes the room
        vm.note("quiet")
    vm.shutdown()
    it = the_bundle(disk)
    assert "registers.txt" in it.names
    assert "there are" in it.missing["guest's memory"]
    assert "No space left on device" in it.missing["console console"]
    assert "console-console.log" not in it.names


def test_a_file_system_that_hangs(
    guest: MakeGuest, small_disk: MakeDisk, capfd: pytest.CaptureFixture[str]
) -> None:
    disk = small_disk(size=1024)
    vm = failing(guest, disk, timeout=TIMEOUT)
    with hung(disk, whole_mount=True) as it:
        begin = time.monotonic()
        vm.shutdown()
        assert time.monotonic() - begin <= TIMEOUT + SLACK
        assert it.holds
        assert (vm.state, vm.exit_status) == (State.STOPPED, 0)
        assert "no bundle could be made" in capfd.readouterr().err
        asking = InThread(vm.bundle, disk, timeout=TIMEOUT).join(LIMIT)
        assert isinstance(asking.error, OSError)  # as MachineTimeout is
        assert asking.seconds <= TIMEOUT + SLACK
    assert vm.plugin("bundle").path is None


def test_a_file_system_that_hangs_when_it_is_launched(guest: MakeGuest, small_disk: MakeDisk) -> None:
    disk = small_disk(size=1024)
    with hung(disk, whole_mount=True):
        vm = guest(options={"bundle": {"directory": disk, "report": False}}).launch()
        vm.shutdown()
    assert bundles(disk) == []


# -- who else writes there ----------------------------------------------------------------------------------


def test_a_name_that_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "_serials", iter([1, 1, 1]))
    first = folder.make(str(tmp_path), "vm", 0)
    second = folder.make(str(tmp_path), "vm", 0)
    assert second.path.startswith(f"{first.path}-")
    third = Path(first.path)
    third.rename(tmp_path / "away")
    third.symlink_to("/")
    assert folder.make(str(tmp_path), "vm", 0).path.startswith(f"{first.path}-")


def test_links_that_are_planted(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    made = folder.make(str(tmp_path), "vm", 0)
    (Path(made.path) / ".a.part").symlink_to(target)
    with pytest.raises(FileExistsError):
        made.write("a", [b"theirs"])
    (Path(made.path) / "b").symlink_to(target)
    made.write("b", [b"theirs"])
    assert not (Path(made.path) / "b").is_symlink()
    (Path(made.path) / "c").symlink_to(target)
    with pytest.raises(OSError, match="symbolic link"):
        made.adopt("c")
    assert target.read_text() == "mine"


def test_another_directory_in_its_place(tmp_path: Path) -> None:
    made = folder.make(str(tmp_path), "vm", 0)
    Path(made.path).rename(tmp_path / "away")
    Path(made.path).mkdir()
    with pytest.raises(OSError, match="another directory"):
        made.write("a", [b"1"])
    Path(made.path).rmdir()
    Path(made.path).symlink_to(tmp_path / "away")
    with pytest.raises(OSError, match=r"Not a directory|symbolic"):
        made.write("a", [b"1"])
    assert os.listdir(tmp_path / "away") == []


def test_a_long_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "MOST_OF_A_FILE", 100)
    (tmp_path / "log").write_bytes(b"b" * 200 + b"e" * 200)
    made = folder.make(str(tmp_path), "vm", 0)
    assert made.copy(str(tmp_path / "log"), "copy").left_out == 300
    data = (Path(made.path) / "copy").read_bytes()
    assert data == b"b" * 50 + b"\n[300 bytes are left out here]\n" + b"e" * 50


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    made = folder.make(str(tmp_path), "vm", 0)
    for path in (tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(OSError, match="no ordinary file"):
            made.copy(str(path), "copy")


def test_it_is_for_its_owner_alone_whatever_the_umask(guest: MakeGuest, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        failing(guest, tmp_path / "new" / "failed").shutdown()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new" / "failed").stat().st_mode) == 0o700
    the_bundle(tmp_path / "new" / "failed")


def test_a_monitor_that_is_stopped_meanwhile(guest: MakeGuest, tmp_path: Path) -> None:
    """QEMU is killed while it is asked."""
    vm = failing(guest, tmp_path)
    stop_process(vm.pid)
    ending = InThread(vm.shutdown, timeout=LIMIT)
    until(lambda: vm.state is State.QUITTING)
    vm.kill()
    ending.join(LIMIT)
    it = Seen(vm.plugin("bundle").path)
    assert "registers.txt" not in it.names


# -- QEMU's core --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "uses_pid", "made"),
    [
        ("core", False, "core"),
        ("core", True, "core.77"),
        ("core.%p", True, "core.77"),
        ("/var/%e-%P%%.%s", False, "/var/*-77%.*"),
        ("a[b]*%", False, "a[[]b][*]"),
    ],
)
def test_a_pattern_of_cores(pattern: str, uses_pid: bool, made: str) -> None:
    assert cores.as_glob(pattern, 77, uses_pid=uses_pid) == made


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files in place of the system's."""
    (tmp_path / "uses_pid").write_text("0\n")
    monkeypatch.setattr(cores, "_PATTERN", str(tmp_path / "pattern"))
    monkeypatch.setattr(cores, "_USES_PID", str(tmp_path / "uses_pid"))
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY,) * 2)
    return tmp_path


def test_a_core_that_is_a_file(system: Path) -> None:
    (system / "pattern").write_text("core.%e.%p\n")
    assert cores.find(77, str(system), 0) == (None, cores.find(77, str(system), 0).why)
    (system / "core.qemu.77").write_text("of before")
    os.utime(system / "core.qemu.77", (1, 1))
    (system / "core.other.77").symlink_to(system / "pattern")
    assert cores.find(77, str(system), time.time()).path is None
    (system / "core.qemu-system-x86.77").write_text("it")
    assert cores.find(77, str(system), time.time()).path == str(system / "core.qemu-system-x86.77")


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("|/usr/lib/systemd/systemd-coredump %P %u", "coredumpctl dump 77"),
        ("|/usr/share/apport/apport -p%p", r"a program \(apport\)"),
        ("", "is empty"),
        ("core", "there is none at .*/core"),
    ],
)
def test_where_there_is_no_core(system: Path, pattern: str, why: str) -> None:
    (system / "pattern").write_text(f"{pattern}\n")
    core = cores.find(77, str(system), 0)
    assert core.path is None
    assert re.search(why, core.why)


def test_a_limit_for_cores(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (system / "pattern").write_text("core\n")
    monkeypatch.setattr(resource, "getrlimit", lambda which: (0, 0))
    assert "ulimit -c unlimited" in cores.find(77, str(system), 0).why


def test_a_core_is_copied(guest: MakeGuest, system: Path) -> None:
    vm = guest(cwd=system, options={"bundle": {"directory": system / "failed", "report": False}}).launch()
    until_guest_is_up(vm)
    pid = vm.pid
    assert pid is not None
    (system / "pattern").write_text("the-core.%p\n")
    (system / f"the-core.{pid}").write_bytes(b"\x7fELF" + b"0" * 1000)
    os.kill(pid, signal.SIGABRT)
    InThread(vm.wait, LIMIT).join(LIMIT)
    it = the_bundle(system / "failed")
    assert (it.path / "core").read_bytes().startswith(b"\x7fELF")
    assert "gdb qemu-system-x86_64" in it.readme
