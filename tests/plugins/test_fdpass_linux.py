"""End to end: a Linux guest uses what QEMU has only descriptors of."""

import os
import socket
import tempfile
from collections.abc import Iterator
from typing import IO

import pytest
from vmfsm_plugins.qmp import QMPCommandError

from tests.linux_guest import BOOT, Linux, Shell
from vmfsm import LaunchPlan, hookimpl

MIB = 1024 * 1024
RAW = "driver=raw,node-name=disk,file.driver=file,file.filename=/dev/fdset/0"


@pytest.fixture
def images() -> Iterator[list[IO[bytes]]]:
    """Disk images without names."""
    with tempfile.TemporaryFile() as first, tempfile.TemporaryFile() as second:
        for number, image in enumerate((first, second)):
            image.truncate(MIB)
            image.write(b"written by the host, %d\n" % number)
            image.flush()
        yield [first, second]


def test_disks_that_have_no_path(linux: Linux, images: list[IO[bytes]]) -> None:
    vm = linux(
        *("-blockdev", RAW, "-device", "virtio-blk-pci,drive=disk"), modules=("virtio_pci", "virtio_blk")
    )
    vm.fds.add(images[0].fileno())
    vm.launch()
    shell = Shell(vm).await_prompt()
    use_disk(shell, "vda", 0, images[0])

    name = vm.fds.add(images[1].fileno())
    vm.qmp.execute("blockdev-add", driver="file", node_name="hot", filename=name)
    vm.qmp.execute("device_add", driver="virtio-blk-pci", id="hot-disk", drive="hot")
    shell.run("until [ -b /dev/vdb ]; do sleep 0.1; done")
    use_disk(shell, "vdb", 1, images[1])
    vm.shutdown()


def use_disk(shell: Shell, disk: str, number: int, image: IO[bytes]) -> None:
    assert shell.run(f"head -n 1 /dev/{disk}") == f"written by the host, {number}"
    shell.run(f"echo 'written by the guest' | dd of=/dev/{disk} bs=512 seek=3 conv=sync,fsync")
    assert os.pread(image.fileno(), 21, 3 * 512) == b"written by the guest\n"


def test_a_set_with_a_descriptor_for_each_way(linux: Linux, images: list[IO[bytes]]) -> None:
    """QEMU takes the one that fits, so that the second disk is writable where the first is not."""
    reader = os.open(f"/proc/self/fd/{images[0].fileno()}", os.O_RDONLY)
    read_only = f"{RAW},read-only=on,file.read-only=on"
    vm = linux(
        *("-blockdev", read_only, "-device", "virtio-blk-pci,drive=disk"),
        modules=("virtio_pci", "virtio_blk"),
    )
    vm.fds.add(reader, fdset=0)
    vm.launch()
    os.close(reader)
    shell = Shell(vm).await_prompt()
    assert shell.run("head -n 1 /dev/vda; cat /sys/block/vda/ro") == "written by the host, 0\n1"

    with pytest.raises(QMPCommandError):  # there is none for writing yet
        vm.qmp.execute("blockdev-add", driver="file", node_name="rw", filename="/dev/fdset/0", locking="off")
    assert vm.fds.add(images[0].fileno(), fdset=0) == "/dev/fdset/0"
    vm.qmp.execute("blockdev-add", driver="file", node_name="rw", filename="/dev/fdset/0", locking="off")
    vm.qmp.execute("device_add", driver="virtio-blk-pci", id="rw-disk", drive="rw")
    shell.run("until [ -b /dev/vdb ]; do sleep 0.1; done")
    use_disk(shell, "vdb", 0, images[0])
    vm.shutdown()


class Cables:
    """The machine's network cards are at one end of a cable each."""

    name = "cables"
    backends = ("socket,id=net0,fd=", "stream,id=net1,addr.type=fd,addr.str=")

    def __init__(self, *ends: socket.socket) -> None:
        self.ends = ends

    @hookimpl
    def pre_launch(self, plan: LaunchPlan) -> None:
        for number, (backend, end) in enumerate(zip(self.backends, self.ends, strict=True)):
            plan.args += ["-netdev", f"{backend}{plan.give(end)}"]
            plan.args += ["-device", f"virtio-net-pci,netdev=net{number},romfile="]


def test_two_machines_on_cables(linux: Linux) -> None:
    of_first, of_second = zip(*(socket.socketpair() for _ in range(3)), strict=True)
    modules = ("virtio_pci", "virtio_net")
    machines = [linux(modules=modules, plugins=[Cables(*ends[:2])]) for ends in (of_first, of_second)]
    for vm in machines:
        vm.launch()
    shells = [Shell(vm).await_prompt() for vm in machines]
    talk(shells, 0)
    talk(shells, 1)

    # The third is plugged in while they run, and known to QEMU by a name.
    for vm, end in zip(machines, (of_first[2], of_second[2]), strict=True):
        with end:
            vm.fds.send(end.fileno(), "cable")
        vm.qmp.execute("netdev_add", type="socket", id="net2", fd="cable")
        vm.qmp.execute("device_add", driver="virtio-net-pci", id="nic2", netdev="net2", romfile="")
    talk(shells, 2)
    for vm in machines:
        vm.shutdown()


def talk(shells: list[Shell], number: int) -> None:
    """Have the two ping each other by their cards of this number, and send a text."""
    for host, shell in enumerate(shells, start=1):
        shell.run(f"until [ -e /sys/class/net/eth{number} ]; do sleep 0.1; done")
        shell.run(f"ip addr add 10.0.{number}.{host}/24 dev eth{number}; ip link set eth{number} up")
    for shell, other in zip(shells, (2, 1), strict=True):
        assert " 0% packet loss" in shell.run(f"ping -c 1 -W 20 10.0.{number}.{other}")
    shells[0].run(f"nc -l -p 5000 > /tmp/got{number} &")
    shells[1].run(f"until echo 'by cable {number}' | nc 10.0.{number}.1 5000; do sleep 0.1; done")
    assert shells[0].run(f"wait; cat /tmp/got{number}", timeout=BOOT).endswith(f"by cable {number}")
