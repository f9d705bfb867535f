"""Snapshots of a Linux guest: what it has in memory and on its disk."""

from pathlib import Path

import pytest

from tests.linux_guest import Boot, Shell
from vmfsm import qemu_img

MODULES = ("virtio_pci", "virtio_blk")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    qemu_img.create(tmp_path / "disk.qcow2", "16M")
    return tmp_path / "disk.qcow2"


@pytest.fixture
def shell(boot: Boot, disk: Path) -> Shell:
    """With the disk as /dev/vda."""
    image = f"driver=qcow2,node-name=disk,file.driver=file,file.filename={disk}"
    return boot("-blockdev", image, "-device", "virtio-blk-pci,drive=disk", modules=MODULES)


def text_on_disk(shell: Shell) -> str:
    return shell.run("dd if=/dev/vda bs=4096 count=1 iflag=direct 2>/dev/null | tr -d '\\0'")


def put_on_disk(shell: Shell, text: str) -> None:
    shell.run(f"printf {text} >/tmp/text && truncate -s 4096 /tmp/text")
    shell.run("dd if=/tmp/text of=/dev/vda bs=4096 conv=fsync 2>/dev/null")


def test_memory_and_disk_come_back(shell: Shell, disk: Path) -> None:
    vm = shell.vm
    shell.run("variable=before; echo before >/tmp/file")
    put_on_disk(shell, "before")
    vm.snapshots.save("clean")
    shell.run("variable=after; echo after >/tmp/file")
    put_on_disk(shell, "after")
    assert (shell.run("echo $variable; cat /tmp/file"), text_on_disk(shell)) == ("after\nafter", "after")

    for _ in range(2):
        vm.snapshots.load("clean")
        assert (shell.run("echo $variable; cat /tmp/file"), text_on_disk(shell)) == (
            "before\nbefore",
            "before",
        )
        shell.run("variable=again")
        put_on_disk(shell, "again")

    vm.qmp.execute("stop")
    vm.snapshots.load("clean")
    assert vm.run_state == "paused"
    vm.qmp.execute("cont")
    assert (shell.run("echo $variable"), text_on_disk(shell)) == ("before", "before")
    [snapshot] = vm.snapshots.list()
    assert snapshot.vm_state_size > 10_000_000
    vm.shutdown()
    assert qemu_img.info(disk).snapshots == ("clean",)


def test_an_external_snapshot(shell: Shell, disk: Path, tmp_path: Path) -> None:
    vm = shell.vm
    put_on_disk(shell, "before-it")
    vm.qmp.execute("stop")
    vm.snapshots.external({"disk": tmp_path / "over.qcow2"})
    base = disk.read_bytes()
    vm.qmp.execute("cont")
    put_on_disk(shell, "after-it")
    assert text_on_disk(shell) == "after-it"
    vm.shutdown()
    assert disk.read_bytes() == base
    assert b"before-it" in base
    assert b"after-it" in (tmp_path / "over.qcow2").read_bytes()
    assert qemu_img.info(tmp_path / "over.qcow2").backing_file == str(disk)
