"""Companions that people have: swtpm, virtiofsd, QEMU's storage daemon; and a Linux guest that sees them."""

import glob
import inspect
import os
import re
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.linux_guest import BOOT, Linux, Shell
from tests.waiting import LIMIT, InThread, is_alive
from vmfsm import (
    AbnormalExit,
    Companion,
    GuestPanicked,
    LaunchError,
    LaunchPlan,
    Machine,
    Reason,
    State,
    escape,
    hookimpl,
)
from vmfsm.testing import GUEST_ARGS


class SoftwareTPM:
    """A TPM 2.0, emulated by swtpm; what it stores lasts as long as the directory `state`."""

    name = "tpm"

    def __init__(self, *, state: str, device: str = "tpm-tis") -> None:
        self.state = state
        self.device = device

    @hookimpl
    def pre_launch(self, plan: LaunchPlan) -> None:
        ours, theirs = socket.socketpair()
        control = f"type=unixio,clientfd={theirs.fileno()}"
        argv = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self.state}", "--ctrl", control]
        self.companion = plan.companion(argv, fds=[theirs])
        plan.args += ["-chardev", f"socket,id=tpm,fd={plan.give(ours)}"]
        plan.args += ["-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", f"{self.device},tpmdev=tpm0"]


class SharedDirectory:
    """A directory of the host, for the guest to `mount -t virtiofs TAG`. It needs shared memory."""

    name = "shared-directory"

    def __init__(self, path: str, *, tag: str = "share") -> None:
        self.path = path
        self.tag = tag

    @hookimpl
    def pre_launch(self, plan: LaunchPlan) -> None:
        address = os.path.join(plan.directory, "virtiofsd.sock")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(address)
        listener.listen()
        argv = ["virtiofsd", "-o", f"source={self.path}", f"--fd={listener.fileno()}"]
        path = f"{os.environ['PATH']}:/usr/libexec:/usr/lib/qemu"  # where distributions have it
        self.companion = plan.companion(argv, env={"PATH": path}, fds=[listener])
        plan.args += ["-chardev", f"socket,id=virtiofsd,path={escape(address)}"]
        plan.args += ["-device", f"vhost-user-fs-pci,chardev=virtiofsd,tag={self.tag}"]


class StorageDaemon:
    """A disk that another process serves (vhost-user-blk). It needs shared memory."""

    name = "storage-daemon"

    def __init__(self, image: str) -> None:
        self.image = image

    @hookimpl
    def pre_launch(self, plan: LaunchPlan) -> None:
        address = os.path.join(plan.directory, "disk.sock")
        image = f"file,node-name=image,filename={escape(self.image)}"
        export = f"vhost-user-blk,id=disk,node-name=image,addr.type=unix,addr.path={escape(address)}"
        argv = ["qemu-storage-daemon", "--blockdev", image, "--export", f"{export},writable=on"]
        self.companion = plan.companion(argv, ready=address)
        plan.args += ["-chardev", f"socket,id=disk,path={escape(address)}"]
        plan.args += ["-device", "vhost-user-blk-pci,chardev=disk"]


@pytest.fixture
def directory(swtpm: None, virtiofsd: None, tmp_path: Path) -> Path:
    """Where there is something to share, a disk image, and a place for what the TPM stores."""
    if shutil.which("qemu-storage-daemon") is None:
        pytest.skip("qemu-storage-daemon is not in PATH")
    for name in ("tpm", "share"):
        (tmp_path / name).mkdir()
    (tmp_path / "share" / "from-host").write_text("hello, guest\n")
    (tmp_path / "disk.img").write_bytes(b"hello, disk\n".ljust(1 << 20, b"\0"))
    return tmp_path


Plugins = tuple[SoftwareTPM, SharedDirectory, StorageDaemon]


def plugins(directory: Path) -> Plugins:
    return (
        SoftwareTPM(state=str(directory / "tpm")),
        SharedDirectory(str(directory / "share")),
        StorageDaemon(str(directory / "disk.img")),
    )


def shared_memory(size: str) -> tuple[str, ...]:
    return ("-object", f"memory-backend-memfd,id=memory,size={size},share=on")


@pytest.fixture
def tiny(qemu: str, directory: Path) -> Iterator[Machine]:
    """The tiny guest with all of them, launched. It ignores them, as QEMU does not."""
    args = (*GUEST_ARGS, *shared_memory("16M"), "-machine", "memory-backend=memory")
    vm = Machine(qemu, args, plugins=plugins(directory), name="tiny", log_dir=directory)
    vm.launch()
    yield vm
    vm.kill()


def companions(vm: Machine) -> list[Companion]:
    return [vm.plugin(name).companion for name in ("shared-directory", "storage-daemon", "tpm")]


def assert_nothing_left(vm: Machine, pids: list[int | None]) -> None:
    assert [companion.pid for companion in companions(vm)] == [None, None, None]
    assert [pid for pid in pids if pid is None or is_alive(pid)] == []
    assert glob.glob("vmfsm-????????", root_dir=tempfile.gettempdir()) == [], "private directories"


def test_a_linux_guest_sees_them(linux: Linux, directory: Path) -> None:
    given = plugins(directory)
    given[0].device = "tpm-crb"  # the other one is in all other tests here
    vm = linux(
        *shared_memory("256M"),
        machine="pc,memory-backend=memory",
        modules=("virtio_pci", "virtiofs", "virtio_blk"),
        plugins=given,
    )
    shell = Shell(vm.launch()).await_prompt()

    assert shell.run("cat /sys/class/tpm/tpm0/tpm_version_major") == "2"
    measured = shell.run("cat /sys/class/tpm/tpm0/pcr-sha256/0")  # by the firmware
    assert re.fullmatch("[0-9A-F]{64}", measured)
    assert set(measured) != {"0"}

    shell.run("mount -t virtiofs share /mnt")
    assert shell.run("cat /mnt/from-host") == "hello, guest"
    shell.run("echo 'hello, host' >/mnt/from-guest")
    assert (directory / "share" / "from-guest").read_text() == "hello, host\n"

    assert shell.run("head -n 1 /dev/vda") == "hello, disk"
    shell.run("echo 'the guest was here' >/dev/vda; sync")
    assert (directory / "disk.img").read_bytes().startswith(b"the guest was here\n")

    pids = [companion.pid for companion in companions(vm)]
    vm.console.sendline("poweroff -f")
    vm.wait(timeout=BOOT)
    assert (vm.state, vm.reason) == (State.STOPPED, Reason.GUEST_SHUTDOWN), "no verdict on who goes with QEMU"
    assert_nothing_left(vm, pids)


def end_by_shutdown(vm: Machine) -> None:
    vm.shutdown()


def end_by_kill(vm: Machine) -> None:
    vm.kill()


def end_by_guest(vm: Machine) -> None:
    vm.console.sendline("poweroff")
    vm.wait(timeout=LIMIT)


def end_by_signal(vm: Machine) -> None:
    assert vm.pid is not None
    os.kill(vm.pid, signal.SIGKILL)
    with pytest.raises(AbnormalExit):
        vm.wait(timeout=LIMIT)


@pytest.mark.parametrize("end", [end_by_shutdown, end_by_kill, end_by_guest, end_by_signal])
def test_they_end_with_the_machine_and_are_there_again(tiny: Machine, end: Callable[[Machine], None]) -> None:
    for launch in range(2):
        if launch:
            tiny.launch()
        tiny.console.expect("ready")
        assert tiny.qmp.execute("query-tpm")[0]["model"] == "tpm-tis"
        pids = [companion.pid for companion in companions(tiny)]
        end(tiny)
        assert_nothing_left(tiny, pids)


@pytest.mark.parametrize("name", ["tpm", "shared-directory", "storage-daemon"])
def test_the_death_of_one_is_noticed(tiny: Machine, name: str) -> None:
    tiny.console.expect("ready")
    companion = tiny.plugin(name).companion
    waiting = InThread(tiny.console.expect, "never said")
    os.kill(companion.pid, signal.SIGKILL)
    with pytest.raises(GuestPanicked) as caught:
        waiting.result()
    assert caught.value.verdict is not None
    assert caught.value.verdict.kind == "companion-ended"
    assert caught.value.verdict.what["companion"] == companion.name
    assert companion.name in str(caught.value)
    pids = [companion.pid for companion in companions(tiny) if companion.pid is not None]
    assert len(pids) == 2
    tiny.kill()
    assert_nothing_left(tiny, [*pids])


@pytest.mark.parametrize("position", [1, 2])  # swtpm leaves that to QEMU
def test_its_words_are_told_where_it_cannot_start(qemu: str, directory: Path, position: int) -> None:
    plugin = plugins(directory / "nowhere")[position]
    with pytest.raises(LaunchError) as caught:
        Machine(qemu, GUEST_ARGS, plugins=[plugin]).launch()
    told = "\n".join([str(caught.value), *caught.value.__notes__])
    assert plugin.companion.exit_status == 1
    assert f"companion {plugin.companion.name!r} of plugin {plugin.name!r} ended with status 1" in told
    assert "No such file or directory" in told


def test_logs_are_kept(tiny: Machine, directory: Path) -> None:
    tiny.shutdown()
    for companion in companions(tiny):
        assert Path(companion.log) == directory / f"tiny-{companion.name}.log"
        assert Path(companion.log).is_file()


@pytest.mark.parametrize(
    ("plugin", "page"),
    [(SoftwareTPM, "tpm"), (SharedDirectory, "shared-directory"), (StorageDaemon, "companions")],
)
def test_the_documentation_shows_these_very_plugins(plugin: type, page: str) -> None:
    text = (Path(__file__).parent.parent / "docs" / "howto" / f"{page}.md").read_text(encoding="utf-8")
    assert inspect.getsource(plugin) in text
