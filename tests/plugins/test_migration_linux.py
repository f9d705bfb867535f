"""Linux guests that move between machines, with their disks, their memory, and what they are at."""

import os
import signal
from pathlib import Path

import pytest

from tests.linux_guest import BOOT, Boot, Linux, Shell
from tests.waiting import InThread, until
from vmfsm import Machine, MachineDied, MachineTimeout, qemu_img

# Named, since QEMU's `pc` is another one in each version.
TYPE = "pc-i440fx-7.2"
MODULES = ("virtio_pci", "virtio_blk")
INCOMING = ("-incoming", "defer")
CANCELLED = {"cancelled", "failed"}


def disk(path: Path, kind: str) -> tuple[str, ...]:
    return "-drive", f"file={path},format={kind},if=virtio"


def destination(linux: Linux, *args: str) -> Machine:
    return linux(*args, *INCOMING, machine=TYPE, modules=MODULES, expected_exits=(0, 1)).launch()


def write(shell: Shell, what: str, sector: int, disk: str = "vda") -> None:
    shell.run(f"echo {what} | dd of=/dev/{disk} bs=512 seek={sector} conv=sync,fsync 2>/dev/null")


def read(shell: Shell, sector: int, disk: str = "vda") -> str:
    return shell.run(f"dd if=/dev/{disk} bs=512 skip={sector} count=1 2>/dev/null | tr -d '\\0'")


def move_slowly(source: Machine, destination: Machine) -> None:
    """Begin what takes minutes; from 1 MB/s QEMU makes at most ten passes a second, each too late."""
    source.qmp.execute("migrate-set-parameters", max_bandwidth=1_000_000)
    source.migration.start(destination)


def test_a_guest_with_disks(boot: Boot, linux: Linux, tmp_path: Path) -> None:
    raw, qcow2 = tmp_path / "raw", tmp_path / "qcow2"
    qemu_img.create(raw, "16M", format="raw")
    qemu_img.create(qcow2, "16M")
    disks = *disk(raw, "raw"), *disk(qcow2, "qcow2")
    shell = boot(*disks, machine=TYPE, modules=MODULES)
    shell.run("before=kept; echo of memory >/tmp/file; (while sleep 0.1; do echo >>/tmp/beats; done) &")
    for name in ("vda", "vdb"):
        write(shell, f"written there to {name}", 1, name)

    other = destination(linux, *disks)
    progress = shell.vm.migration.to(other, timeout=BOOT)
    assert progress.transferred > 10_000_000
    moved = Shell(other)
    assert moved.run("echo $before; cat /tmp/file") == "kept\nof memory"
    beats = int(moved.run("wc -l </tmp/beats"))
    until(lambda: int(moved.run("wc -l </tmp/beats")) > beats)
    for name in ("vda", "vdb"):
        assert read(moved, 1, name) == f"written there to {name}"
        write(moved, f"written here to {name}", 2, name)
    shell.vm.shutdown()
    for name in ("vda", "vdb"):
        assert read(moved, 2, name) == f"written here to {name}"
    other.shutdown()

    content = raw.read_bytes()
    assert content[512:1024].rstrip(b"\0") == b"written there to vda\n"
    assert content[1024:1536].rstrip(b"\0") == b"written here to vda\n"


def test_saved_and_loaded(boot: Boot, linux: Linux, tmp_path: Path) -> None:
    base, state = tmp_path / "base", tmp_path / "state"
    qemu_img.create(base, "16M")
    shell = boot(*disk(base, "qcow2"), machine=TYPE, modules=MODULES)
    shell.run("before=kept")
    write(shell, "of then", 1)
    shell.vm.migration.to_file(state, timeout=BOOT)
    shell.vm.shutdown()
    for name in ("one", "another"):
        overlay = tmp_path / name
        qemu_img.overlay(overlay, base)
        vm = destination(linux, *disk(overlay, "qcow2"))
        vm.migration.from_file(state, timeout=BOOT)
        loaded = Shell(vm)
        assert loaded.run("echo $before") == "kept"
        assert read(loaded, 1) == "of then"
        write(loaded, f"of {name}", 1)
        assert read(loaded, 1) == f"of {name}"
        vm.shutdown()


def test_midway(boot: Boot, linux: Linux) -> None:
    """One guest, and all that may come between: progress, deadlines, cancels, deaths; then it moves."""
    shell = boot(machine=TYPE, modules=MODULES)
    source = shell.vm
    shell.run(
        "before=kept; (while dd if=/dev/urandom of=/tmp/busy bs=1M count=4 2>/dev/null; do sleep 0.1; done) &"
    )
    before = len(os.listdir(f"/proc/{source.pid}/fd"))

    cancelled = destination(linux)
    move_slowly(source, cancelled)
    first = source.migration.progress()
    assert (first.status, first.error) == ("active", "")
    assert first.total > 256 * 1024 * 1024
    until(lambda: source.migration.progress().transferred > max(500_000, first.transferred))
    later = source.migration.progress()
    assert 0 < later.remaining <= later.total
    assert first.seconds < later.seconds
    assert 0 < later.rate < 20_000_000
    until(lambda: sum(record.kind == "migration" for record in source.timeline) >= 3)
    assert shell.run("echo $before") == "kept", "it goes on meanwhile"
    assert source.migration.cancel(timeout=BOOT).status in CANCELLED
    assert shell.run("echo $before") == "kept"

    with pytest.raises(MachineTimeout):
        source.migration.to(destination(linux), timeout=1)
    assert source.run_state == "running"

    stopped = destination(linux)
    move_slowly(source, stopped)
    os.kill(stopped.pid or 0, signal.SIGSTOP)
    with pytest.raises(MachineTimeout):
        source.migration.wait(timeout=0.5)
    assert source.migration.cancel(timeout=BOOT).status in CANCELLED
    stopped.kill()

    dead = destination(linux)
    move_slowly(source, dead)
    waiting = InThread(source.migration.wait)
    os.kill(dead.pid or 0, signal.SIGKILL)
    with pytest.raises(MachineDied) as died:
        waiting.result()
    assert died.value.machine == dead.name
    assert source.run_state == "running"
    assert shell.run("echo $before") == "kept"
    until(lambda: len(os.listdir(f"/proc/{source.pid}/fd")) <= before)

    source.qmp.execute("migrate-set-parameters", max_bandwidth=1 << 30, downtime_limit=5_000)
    last = destination(linux)
    source.migration.to(last, timeout=BOOT)
    assert Shell(last).run("echo $before") == "kept"
    until(lambda: len(os.listdir(f"/proc/{source.pid}/fd")) <= before)

    source = last
    bereft = destination(linux)
    ends_with_its_migration = bereft.qmp.version < (9, 1, 0)
    move_slowly(source, bereft)
    waiting = InThread(source.migration.wait)
    os.kill(source.pid or 0, signal.SIGKILL)
    with pytest.raises(MachineDied) as died:
        waiting.result()
    assert died.value.machine == source.name
    if ends_with_its_migration:
        bereft.wait(timeout=BOOT)
        assert bereft.exit_status == 1
    else:
        until(lambda: bereft.migration.progress().status == "failed")
