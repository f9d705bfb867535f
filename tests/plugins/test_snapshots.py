"""Snapshots of running machines with real disks: with memory in the disks, and by files over them."""

import asyncio
import contextlib
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from vmfsm_plugins.snapshots import Snapshot, SnapshotError

from tests.waiting import LIMIT, SLACK, InThread, until
from vmfsm import (
    ConfigError,
    Machine,
    MachineDied,
    MachineTimeout,
    Reason,
    TransitionError,
    VMError,
    hookimpl,
    qemu_img,
)
from vmfsm.testing import GUEST_ARGS

MIB = 1 << 20


def blockdev(file: Path, node: str = "disk", driver: str = "qcow2") -> list[str]:
    """A disk of a device whose id is the node's name and `-dev`."""
    image = f"driver={driver},node-name={node},file.driver=file,file.filename={file}"
    return ["-blockdev", image, "-device", f"virtio-blk-pci,drive={node},id={node}-dev"]


def drive(file: Path, name: str) -> list[str]:
    return ["-drive", f"if=virtio,id={name},file={file},format=qcow2"]


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    qemu_img.create(tmp_path / "disk.qcow2", "16M")
    return tmp_path / "disk.qcow2"


MakeGuest = Callable[..., Machine]


@pytest.fixture
def guest(qemu: str) -> Iterator[MakeGuest]:
    """Launches the tiny guest with more arguments, and waits until it is up."""
    machines = []

    def launch(*args: str, **parameters: Any) -> Machine:
        vm = Machine(qemu, [*GUEST_ARGS, *args], **parameters)
        machines.append(vm)
        vm.launch().console.expect("ready")
        return vm

    yield launch
    for vm in machines:
        with contextlib.suppress(VMError):
            vm.kill()


def ping(vm: Machine) -> None:
    vm.console.sendline("ping")
    vm.console.expect("pong", timeout=LIMIT)


def write(vm: Machine, pattern: int, device: str = "disk-dev") -> None:
    """What a guest would do: write by the device."""
    command = f'qemu-io -d /machine/peripheral/{device}/virtio-backend "write -P {pattern} 0 64k"'
    assert vm.qmp.execute("human-monitor-command", command_line=command) == ""


def file_holds(image: Path, pattern: int) -> bool:
    """Whether the guest's data are in this very file, not in one below it."""
    return bytes([pattern]) * 65536 in image.read_bytes()


def records(vm: Machine) -> list[tuple[object, object, object]]:
    return [
        (r.data["operation"], r.data["name"], r.data["error"]) for r in vm.timeline if r.kind == "snapshot"
    ]


def jobs(vm: Machine) -> Any:
    return vm.qmp.execute("query-jobs")


# -- memory and disks ---------------------------------------------------------------------------------------


def test_back_to_a_snapshot(guest: MakeGuest, disk: Path) -> None:
    vm = guest(*blockdev(disk))
    assert vm.snapshots.list() == []
    write(vm, 1)
    before = datetime.now(UTC)
    vm.snapshots.save("clean")
    assert vm.run_state == "running"
    write(vm, 2)
    ping(vm)
    text = vm.console.text
    vm.snapshots.load("clean")
    assert vm.run_state == vm.qmp.execute("query-status")["status"] == "running"
    assert vm.console.text.startswith(text)
    ping(vm)

    [snapshot] = vm.snapshots.list()
    assert snapshot == Snapshot("clean", snapshot.vm_state_size, snapshot.when, snapshot.clock, ("disk",))
    assert snapshot.vm_state_size > 100_000
    assert timedelta(seconds=-1) < snapshot.when - before < timedelta(seconds=LIMIT)
    assert 0 < snapshot.clock < LIMIT
    assert jobs(vm) == []
    assert records(vm) == [("save", "clean", None), ("load", "clean", None)]
    assert all(
        isinstance(seconds := r.data["seconds"], float) and 0 < seconds < LIMIT
        for r in vm.timeline
        if r.kind == "snapshot"
    )
    vm.shutdown()
    assert qemu_img.info(disk).snapshots == ("clean",)
    assert file_holds(disk, 1)


def test_a_paused_guest_stays_paused(guest: MakeGuest, disk: Path) -> None:
    vm = guest(*blockdev(disk))
    vm.snapshots.save("running")
    vm.qmp.execute("stop")
    vm.snapshots.load("running")
    vm.snapshots.save("paused")
    assert vm.run_state == vm.qmp.execute("query-status")["status"] == "paused"
    vm.qmp.execute("cont")
    ping(vm)
    vm.snapshots.load("paused")
    assert vm.run_state == vm.qmp.execute("query-status")["status"] == "running"
    ping(vm)


def test_the_users_events_are_left_to_them(guest: MakeGuest, disk: Path) -> None:
    vm = guest(*blockdev(disk))
    here = vm.qmp.mark()
    vm.snapshots.save("x")
    heard = [event["event"] for event in vm.qmp.events() if event["event"] in {"STOP", "RESUME"}]
    assert heard == ["STOP", "RESUME"]
    done = {"data": {"status": "concluded"}}
    assert vm.qmp.wait_event("JOB_STATUS_CHANGE", match=done, since=here, timeout=0)


def test_several_disks_however_they_were_made(guest: MakeGuest, tmp_path: Path) -> None:
    """Also one that no device uses, and one that is only read."""
    names = ("one", "two", "three", "four")
    paths = {name: tmp_path / f"{name}.qcow2" for name in names}
    for path in paths.values():
        qemu_img.create(path, MIB)
    unused = f"driver=qcow2,node-name=three,file.driver=file,file.filename={paths['three']}"
    read = f"driver=qcow2,node-name=four,read-only=on,file.driver=file,file.filename={paths['four']}"
    vm = guest(
        *blockdev(paths["one"], "one"), *drive(paths["two"], "two"), "-blockdev", unused, "-blockdev", read
    )
    vm.snapshots.save("all")
    [snapshot] = vm.snapshots.list()
    assert set(snapshot.disks) == {"one", "two", "three"}
    vm.snapshots.save("some", disks=["one-dev", "two", "one"])
    assert [(s.name, set(s.disks)) for s in vm.snapshots.list()] == [
        ("all", {"one", "two", "three"}),
        ("some", {"one", "two"}),
    ]
    assert [s.name for s in vm.snapshots.list(disks=["three"])] == ["all"]
    with pytest.raises(SnapshotError, match=r"'some': it is not on three \(there are: 'all', 'some'\)"):
        vm.snapshots.load("some")
    assert vm.run_state == vm.qmp.execute("query-status")["status"] == "running"
    vm.snapshots.load("some", disks=["one", "two"])
    vm.snapshots.load("all")
    vm.snapshots.delete("all", disks=["three"])
    assert vm.snapshots.list(disks=["three"]) == []
    vm.snapshots.delete("all")
    assert [s.name for s in vm.snapshots.list()] == ["some"]
    ping(vm)
    vm.shutdown()
    assert [qemu_img.info(paths[name]).snapshots for name in names] == [("some",), ("some",), (), ()]


def test_what_a_name_may_be(guest: MakeGuest, disk: Path) -> None:
    vm = guest(*blockdev(disk))
    names = ["a b", "ä€😀", "--help", "a,b=c", "1.5", "x" * 255, "$(x)`"]
    for name in names:
        vm.snapshots.save(name)
    assert [snapshot.name for snapshot in vm.snapshots.list()] == names
    for name in names:
        vm.snapshots.load(name)
        vm.snapshots.delete(name)
    assert vm.snapshots.list() == []
    for wrong in ("", "a\nb", "a\0b", "\x1b[2J", "x" * 256, "ä" * 128, "\ud800", None, b"x", 1):
        for call in (vm.snapshots.save, vm.snapshots.load, vm.snapshots.delete):
            with pytest.raises(ConfigError) as caught:
                call(wrong)  # type: ignore[arg-type]
            assert caught.value.field == "name"
    with pytest.raises(ConfigError, match="must not be a number"):
        vm.snapshots.save("1")


def test_a_number_never_finds_the_snapshot_with_that_id(guest: MakeGuest, disk: Path) -> None:
    vm = guest(*blockdev(disk))
    vm.snapshots.save("first")
    vm.qmp.execute("human-monitor-command", command_line="savevm 1")  # its id is 2
    assert [s.name for s in vm.snapshots.list()] == ["first", "1"]
    with pytest.raises(SnapshotError, match="'1': on disk that is the id of another snapshot"):
        vm.snapshots.load("1")
    with pytest.raises(SnapshotError, match="no disk holds it"):
        vm.snapshots.delete("2")
    vm.snapshots.delete("1")
    assert [s.name for s in vm.snapshots.list()] == ["first"]
    vm.snapshots.load("first")


def test_a_name_that_is_there_already(guest: MakeGuest, disk: Path) -> None:
    vm = guest(*blockdev(disk))
    vm.snapshots.save("x")
    [before] = vm.snapshots.list()
    with pytest.raises(SnapshotError, match=r"save of snapshot 'x': .*already exists") as caught:
        vm.snapshots.save("x")
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.operation, error.machine) == ("save", vm.name)
    assert "already exists" in error.description
    assert vm.snapshots.list() == [before]
    assert jobs(vm) == []
    assert records(vm)[1] == ("save", "x", error.description)


def test_a_snapshot_that_is_not_there(guest: MakeGuest, disk: Path) -> None:
    """QEMU would stop the guest for a load, and take a delete for done."""
    vm = guest(*blockdev(disk))
    with pytest.raises(SnapshotError, match=r"load of snapshot 'x': it is not on disk \(there are: none\)"):
        vm.snapshots.load("x")
    with pytest.raises(SnapshotError, match="delete of snapshot 'x': no disk holds it"):
        vm.snapshots.delete("x")
    assert vm.qmp.execute("query-status")["status"] == "running"


def test_a_snapshot_without_memory(guest: MakeGuest, disk: Path) -> None:
    vm = guest(*blockdev(disk))
    sync = {"device": "disk", "name": "disk-only"}
    vm.qmp.execute("blockdev-snapshot-internal-sync", sync)
    [snapshot] = vm.snapshots.list()
    assert (snapshot.name, snapshot.vm_state_size) == ("disk-only", 0)
    with pytest.raises(SnapshotError, match="of disks only"):
        vm.snapshots.load("disk-only")
    assert vm.qmp.execute("query-status")["status"] == "running"


def test_a_snapshot_of_another_machine(guest: MakeGuest, disk: Path) -> None:
    """QEMU finds out too late, and the guest stands still; but it is said, and the machine can be used."""
    with guest(*blockdev(disk), "-device", "e1000,id=more") as vm:
        vm.snapshots.save("with more")
    vm = guest(*blockdev(disk))
    with pytest.raises(SnapshotError, match="load of snapshot 'with more': Error -22 while loading VM state"):
        vm.snapshots.load("with more")
    assert vm.run_state == vm.qmp.execute("query-status")["status"] == "restore-vm"
    assert jobs(vm) == []
    vm.snapshots.delete("with more")


def test_a_load_waits_for_the_late_save(guest: MakeGuest, disk: Path) -> None:
    vm = guest(*blockdev(disk))
    unsubscribe = signal_when_created(vm, signal.SIGSTOP)
    with pytest.raises(MachineTimeout):
        vm.snapshots.save("slow", timeout=0.2)
    unsubscribe()
    load = InThread(vm.snapshots.load, "slow")
    assert vm.pid is not None
    os.kill(vm.pid, signal.SIGCONT)
    load.result()
    ping(vm)


def test_somebody_else_dismisses_the_job(guest: MakeGuest, disk: Path) -> None:
    vm = guest(*blockdev(disk))
    dismissals: list[object] = []

    def dismiss(event: Any) -> None:
        if event["event"] == "JOB_STATUS_CHANGE" and event["data"]["status"] == "concluded":
            work = vm.qmp.aio.execute("job-dismiss", id=event["data"]["id"])
            dismissals.append(asyncio.ensure_future(work))

    unsubscribe = vm.qmp.subscribe(dismiss)
    with pytest.raises(SnapshotError, match="dismissed"):
        vm.snapshots.save("x")
    unsubscribe()
    assert [s.name for s in vm.snapshots.list()] == ["x"]


def test_no_disk_for_it(guest: MakeGuest) -> None:
    vm = guest()
    with pytest.raises(ConfigError, match="no disk can hold a snapshot: give the machine a qcow2") as caught:
        vm.snapshots.save("x")
    assert (caught.value.field, caught.value.machine) == ("disks", vm.name)
    assert vm.snapshots.list() == []


def test_a_disk_that_cannot(guest: MakeGuest, disk: Path, tmp_path: Path) -> None:
    qemu_img.create(tmp_path / "raw", MIB, format="raw")
    vm = guest(*blockdev(disk), *blockdev(tmp_path / "raw", "plain", "raw"))
    for call in (vm.snapshots.save, vm.snapshots.load):
        with pytest.raises(
            ConfigError, match=r"'plain' \(raw\) can be written to.*qemu_img.overlay"
        ) as caught:
            call("x")
        assert caught.value.field == "disks"
    with pytest.raises(SnapshotError, match="plain"):
        vm.snapshots.save("x", disks=["disk", "plain"])
    assert vm.qmp.execute("query-status")["status"] == "running"
    vm.snapshots.save("x", disks=["disk"])
    assert [s.disks for s in vm.snapshots.list()] == [("disk",)]
    vm.snapshots.load("x", disks=["disk"])
    vm.snapshots.delete("x")
    assert vm.snapshots.list() == []


def test_an_image_below_a_filter(guest: MakeGuest, disk: Path) -> None:
    image = f"driver=qcow2,node-name=image,file.driver=file,file.filename={disk}"
    vm = guest(
        *("-object", "throttle-group,id=group", "-blockdev", image),
        *("-blockdev", "driver=throttle,node-name=slow,throttle-group=group,file=image"),
        *("-device", "virtio-blk-pci,drive=slow"),
    )
    with pytest.raises(ConfigError, match=r"'slow' \(throttle\)"):
        vm.snapshots.save("x")
    vm.snapshots.save("x", disks=["image"])
    vm.snapshots.load("x", disks=["image"])
    ping(vm)


def test_disks_that_are_wrong(guest: MakeGuest, disk: Path) -> None:
    vm = guest(*blockdev(disk))
    wrong: Any
    for wrong in ("disk", [], [1], [""], b"disk", 7):
        for call in (vm.snapshots.save, vm.snapshots.load, vm.snapshots.delete):
            with pytest.raises(ConfigError) as caught:
                call("x", disks=wrong)
            assert caught.value.field == "disks"
        with pytest.raises(ConfigError):
            vm.snapshots.list(disks=wrong)
    with pytest.raises(
        ConfigError, match=r"no disk 'floppy0' that can be written to \(there are: disk, disk-dev\)"
    ):
        vm.snapshots.save("x", disks=["disk", "floppy0"])


# -- by files -----------------------------------------------------------------------------------------------


def test_external(guest: MakeGuest, tmp_path: Path) -> None:
    for name in ("one", "two"):
        qemu_img.create(tmp_path / name, MIB)
    vm = guest(*blockdev(tmp_path / "one", "one"), *drive(tmp_path / "two", "two"))
    write(vm, 0xA1, "one-dev")
    files: dict[str, Path] = {"one-dev": tmp_path / "one.over", "two": tmp_path / "two:over,x"}
    nodes = vm.snapshots.external(files)
    assert nodes.keys() == files.keys()
    write(vm, 0xA2, "one-dev")
    ping(vm)
    again = vm.snapshots.external({nodes["one-dev"]: tmp_path / "one.over2"})
    write(vm, 0xA3, "one-dev")
    with pytest.raises(ConfigError, match="no disk 'one' that can be written to"):  # it lies below
        vm.snapshots.external({"one": tmp_path / "no"})
    vm.snapshots.save("inside")
    assert set(vm.snapshots.list()[0].disks) == {*again.values(), "two"}
    assert records(vm)[:2] == [("external", None, None)] * 2
    vm.shutdown()

    assert file_holds(tmp_path / "one", 0xA1)
    assert not file_holds(tmp_path / "one", 0xA2)
    assert file_holds(tmp_path / "one.over", 0xA2)
    assert not file_holds(tmp_path / "one.over", 0xA3)
    assert file_holds(tmp_path / "one.over2", 0xA3)
    chain = qemu_img.info(tmp_path / "one.over2", backing_chain=True)
    assert chain.backing is not None
    assert (chain.backing_file, chain.backing_format) == (str(tmp_path / "one.over"), "qcow2")
    assert (chain.backing.backing_file, chain.backing.backing_format) == (str(tmp_path / "one"), "qcow2")
    assert qemu_img.info(files["two"]).backing_file == str(tmp_path / "two")
    assert not (tmp_path / "no").exists()


def test_external_of_a_raw_disk(guest: MakeGuest, tmp_path: Path) -> None:
    """After which internal ones are possible."""
    qemu_img.create(tmp_path / "raw", MIB, format="raw")
    vm = guest(*blockdev(tmp_path / "raw", driver="raw"))
    vm.snapshots.external({"disk": tmp_path / "over"})
    vm.snapshots.save("x")
    write(vm, 0xA1)
    vm.shutdown()
    assert not file_holds(tmp_path / "raw", 0xA1)
    told = qemu_img.info(tmp_path / "over")
    assert (told.backing_format, told.snapshots) == ("raw", ("x",))


def test_external_overwrites_only_what_it_may(guest: MakeGuest, disk: Path, tmp_path: Path) -> None:
    vm = guest(*blockdev(disk))
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "link").symlink_to("precious")
    for name in ("precious", "link", "disk.qcow2"):
        with pytest.raises(ConfigError, match="is there already") as caught:
            vm.snapshots.external({"disk": tmp_path / name})
        assert caught.value.field == "files"
    with pytest.raises(ConfigError, match="is no file"):
        vm.snapshots.external({"disk": tmp_path / "link"}, overwrite=True)
    with pytest.raises(ConfigError, match=r"nowhere.* cannot be made: No such file"):
        vm.snapshots.external({"disk": tmp_path / "nowhere" / "x"})
    assert (tmp_path / "precious").read_text() == "precious"
    with pytest.raises(SnapshotError, match="same filename as the backing file"):
        vm.snapshots.external({"disk": disk}, overwrite=True)
    write(vm, 0xA1)
    vm.snapshots.external({"disk": tmp_path / "precious"}, overwrite=True)
    vm.shutdown()
    assert file_holds(disk, 0xA1)
    assert qemu_img.info(tmp_path / "precious").backing_file == str(disk)


def test_external_is_for_all_or_none(guest: MakeGuest, tmp_path: Path) -> None:
    for name in ("one", "two"):
        qemu_img.create(tmp_path / name, MIB)
    vm = guest(*blockdev(tmp_path / "one", "one"), *blockdev(tmp_path / "two", "two"))
    (tmp_path / "there").touch()
    files = {"one": tmp_path / "one.over", "two": tmp_path / "there"}
    with pytest.raises(ConfigError, match="there is there already"):
        vm.snapshots.external(files)
    with pytest.raises(SnapshotError):  # what the second one is over is locked
        vm.snapshots.external({"one": tmp_path / "one.over", "two": tmp_path / "one"}, overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["one", "there", "two"]
    write(vm, 0xA1, "one-dev")
    vm.shutdown()
    assert file_holds(tmp_path / "one", 0xA1)


def test_external_needs_to_know_where_a_disk_is(guest: MakeGuest, disk: Path, tmp_path: Path) -> None:
    vm = guest(*blockdev(Path(disk.name)), cwd=tmp_path)
    with pytest.raises(ConfigError, match=r"given to QEMU as 'disk\.qcow2'; it must be an absolute path"):
        vm.snapshots.external({"disk": tmp_path / "over"})
    assert os.listdir(tmp_path) == [disk.name]


@pytest.mark.parametrize(
    "files",
    [
        None,
        {},
        ["disk"],
        {"disk": ""},
        {"disk": b"x"},
        {"disk": 1},
        {"disk": "a\0b"},
        {"disk": "\udcff"},
        {1: "x"},
        {"": "x"},
        {"disk": "x", "disk-dev": "y"},
        {"disk": "x", "other": "x"},
        {"other": "x"},
    ],
    ids=repr,
)
def test_files_that_are_wrong(
    guest: MakeGuest, disk: Path, files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(disk.parent)
    vm = guest(*blockdev(disk))
    with pytest.raises(ConfigError) as caught:
        vm.snapshots.external(files)
    assert caught.value.field == "files"
    assert os.listdir() == [disk.name]


# -- deadlines, death, threads ------------------------------------------------------------------------------


def signal_when_created(vm: Machine, number: int) -> Callable[[], None]:
    """Send a signal to QEMU when it has made the job, before it is told anything more."""
    pid = vm.pid
    assert pid is not None

    def hear(event: Any) -> None:
        if event["event"] == "JOB_STATUS_CHANGE" and event["data"]["status"] == "created":
            os.kill(pid, number)

    return vm.qmp.subscribe(hear)


def test_what_was_late_is_finished_and_leaves_nothing_behind(guest: MakeGuest, disk: Path) -> None:
    vm = guest(*blockdev(disk))
    unsubscribe = signal_when_created(vm, signal.SIGSTOP)
    with pytest.raises(MachineTimeout, match="save a snapshot timed out") as caught:
        vm.snapshots.save("slow", timeout=0.5)
    assert caught.value.operation == "save a snapshot"
    unsubscribe()
    with pytest.raises(MachineTimeout):
        vm.snapshots.save("waits for the other one", timeout=0.2)
    assert vm.pid is not None
    os.kill(vm.pid, signal.SIGCONT)
    vm.snapshots.save("later")
    assert jobs(vm) == []
    assert [s.name for s in vm.snapshots.list()] == ["slow", "later"]
    assert [name for _, name, _ in records(vm)] == ["slow", "later"]
    ping(vm)


Call = Callable[[Machine, Path, float], object]
CALLS: dict[str, Call] = {
    "save": lambda vm, path, timeout: vm.snapshots.save("x", timeout=timeout),
    "list": lambda vm, path, timeout: vm.snapshots.list(timeout=timeout),
    "external": lambda vm, path, timeout: vm.snapshots.external({"disk": path}, timeout=timeout),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_qemu_that_is_stopped(guest: MakeGuest, disk: Path, tmp_path: Path, call: Call) -> None:
    vm = guest(*blockdev(disk))
    assert vm.pid is not None
    os.kill(vm.pid, signal.SIGSTOP)
    begin = time.monotonic()
    with pytest.raises(MachineTimeout):
        call(vm, tmp_path / "over", 0.3)
    assert 0.3 <= time.monotonic() - begin < 0.3 + SLACK
    os.kill(vm.pid, signal.SIGCONT)
    vm.snapshots.save("y")
    assert [s.name for s in vm.snapshots.list()] == ["y"], "the other one was not begun"
    assert os.listdir(tmp_path) == [disk.name]


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_qemu_that_dies_while_it_is_asked(guest: MakeGuest, disk: Path, tmp_path: Path, call: Call) -> None:
    vm = guest(*blockdev(disk))
    assert vm.pid is not None
    os.kill(vm.pid, signal.SIGSTOP)
    waiting = InThread(call, vm, tmp_path / "over", LIMIT)
    until(lambda: any(r.data.get("command") == "query-block" for r in vm.timeline))
    os.kill(vm.pid, signal.SIGKILL)
    with pytest.raises(MachineDied) as caught:
        waiting.result()
    assert caught.value.reason is Reason.QEMU_SIGNAL
    assert os.listdir(tmp_path) == [disk.name]


def test_a_qemu_that_dies_of_a_save(guest: MakeGuest, disk: Path) -> None:
    vm = guest(*blockdev(disk))
    unsubscribe = signal_when_created(vm, signal.SIGKILL)
    with pytest.raises(MachineDied) as caught:
        vm.snapshots.save("x")
    unsubscribe()
    assert caught.value.reason is Reason.QEMU_SIGNAL
    assert records(vm) == [("save", "x", "QEMU ended")]
    with pytest.raises(MachineDied):
        vm.snapshots.list()
    vm.launch().console.expect("ready")
    vm.snapshots.save("y")
    vm.snapshots.load("y")
    ping(vm)


def test_shutdown_while_a_late_save_is_followed(guest: MakeGuest, disk: Path) -> None:
    vm = guest(*blockdev(disk))
    signal_when_created(vm, signal.SIGSTOP)
    with pytest.raises(MachineTimeout):
        vm.snapshots.save("slow", timeout=0.2)
    vm.kill()
    assert records(vm) == [("save", "slow", "QEMU ended")]


def test_an_interrupted_save_is_finished(guest: MakeGuest, disk: Path) -> None:
    vm = guest(*blockdev(disk))

    async def main() -> None:
        for number in range(10):
            save = asyncio.create_task(vm.snapshots.aio.save(f"s{number}"))
            await asyncio.sleep(number / 1000)
            save.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await save
        await vm.snapshots.aio.save("last")

    asyncio.run(main())
    assert jobs(vm) == []
    names = [s.name for s in vm.snapshots.list()]
    assert names == [*sorted(names[:-1]), "last"]


def test_when_it_does_not_run(qemu: str, disk: Path) -> None:
    vm = Machine(qemu, [*GUEST_ARGS, *blockdev(disk)])
    with pytest.raises(TransitionError):
        vm.snapshots.save("x")
    with pytest.raises(TransitionError):
        vm.snapshots.list()
    vm.launch()
    vm.shutdown()
    for call in (vm.snapshots.list, lambda: vm.snapshots.external({"disk": "x"})):
        with pytest.raises(MachineDied):
            call()


def test_without_a_monitor(guest: MakeGuest, disk: Path) -> None:
    vm = guest(*blockdev(disk), options={"qmp": {"enabled": False}})
    with pytest.raises(ConfigError, match="monitor"):
        vm.snapshots.save("x")
    with pytest.raises(ConfigError):
        Machine("qemu", block=["snapshots"]).snapshots  # noqa: B018 - it raises


def test_timeouts_are_checked(guest: MakeGuest, disk: Path) -> None:
    vm = guest(*blockdev(disk))
    with pytest.raises(ConfigError):
        vm.snapshots.save("x", timeout=-1)
    vm.snapshots.save("x", timeout=None)


def test_several_threads_at_once(guest: MakeGuest, disk: Path) -> None:
    vm = guest(*blockdev(disk))
    names = [f"s{number}" for number in range(6)]
    calls = [InThread(vm.snapshots.save, name) for name in names]
    for call in calls:
        call.result()
    assert sorted(s.name for s in vm.snapshots.list()) == names
    calls = [InThread(vm.snapshots.load, name) for name in names]
    for call in calls:
        call.result()
    ping(vm)
    assert jobs(vm) == []


def test_the_twins(guest: MakeGuest, disk: Path, tmp_path: Path) -> None:
    class Saves:
        name = "saves"
        needs = ("snapshots",)

        @hookimpl
        async def post_launch(self, machine: Machine) -> None:
            await machine.snapshots.aio.save("at launch")

    vm = guest(*blockdev(disk), plugins=[Saves()])

    async def main() -> None:
        aio = vm.snapshots.aio
        assert [s.name for s in await aio.list()] == ["at launch"]
        await aio.save("mine", timeout=LIMIT)
        await aio.load("mine")
        await aio.delete("mine", disks=["disk"])
        with pytest.raises(SnapshotError):
            await aio.load("mine")
        assert (await aio.external({"disk": tmp_path / "over"})).keys() == {"disk"}

    asyncio.run(main())
    ping(vm)


def test_a_guest_that_prints_all_the_time(guest: MakeGuest, disk: Path) -> None:
    vm = guest(*blockdev(disk))
    vm.snapshots.save("quiet")
    vm.console.sendline("flood")
    until(lambda: len(vm.console.data) > 10_000)
    vm.snapshots.load("quiet")
    ping(vm)
