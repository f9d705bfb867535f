"""A Linux guest with a shell on its serial console: what it is made of, fixtures that boot it, and `Shell`.

    def test_the_disk(boot: Boot) -> None:
        shell = boot("-drive", "file=disk.img,if=virtio,format=raw", modules=("virtio_pci", "virtio_blk"))
        assert shell.run("cat /sys/block/vda/size") == "2048"
        shell.vm.shutdown()

Emulated (TCG) it boots in about three seconds; give it no more modules than the test is about.
"""

import contextlib
import gzip
import itertools
import lzma
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import pytest
from vmfsm_plugins.console import Console

from tests.waiting import LIMIT
from vmfsm import Machine, VMError

BOOT = 4 * LIMIT
"""Seconds that an emulated processor may take to boot Linux."""

PROMPT = "vmfsm-guest# "

MODULES = (
    *("button", "evdev"),  # the power button
    *("virtio_pci", "virtio_blk", "virtio_net", "virtio_scsi", "virtio_console", "virtio_rng"),
    *("virtio_balloon", "virtio_mem", "virtiofs", "vmw_vsock_virtio_transport"),
    *("tpm_tis", "tpm_crb", "sd_mod", "isofs", "qemu_fw_cfg", "pvpanic_mmio"),
)
"""What `boot(modules=...)` and the guest's `modprobe` can load; what they depend on is there, too."""

# All applets are links to busybox. Linux hands parameters that it does not know to init, as its environment.
# It announces the power button to whoever has opened its input device, in records of 24 bytes.
INIT = f"""#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
modules=$(echo "$vmfsm_modules" | tr , ' ')
if [ "$modules" ] && [ -d /lib/modules ] && ! modprobe -a $modules; then
    echo "this kernel has not all of the modules $modules"
    exec poweroff -f
fi
button=$(grep -A 5 'Name="Power Button"' /proc/bus/input/devices | grep -o 'event[0-9]*')
if [ "$button" ]; then
    exec 3</dev/input/$button
    (dd bs=24 count=1 <&3 >/dev/null 2>&1 && echo "the button was pressed" && poweroff -f) &
fi
echo "the shell is up"
export PS1="{PROMPT}"
exec setsid cttyhack sh
"""

# Of the kernel's messages only those of its end; and no self-tests, which take longer than all its drivers.
KERNEL_PARAMETERS = "console=ttyS0 quiet loglevel=1 panic=-1 cryptomgr.notests no_timer_check"


class Shell:
    """Runs commands in the shell of such a guest, one at a time."""

    _numbers = itertools.count(1)

    def __init__(self, vm: Machine, console: Console | None = None) -> None:
        self.vm = vm
        self._console = vm.console if console is None else console

    def await_prompt(self, timeout: float = BOOT) -> "Shell":
        self._console.expect(rf"^{re.escape(PROMPT)}", timeout=timeout)
        return self

    def run(self, command: str, *, status: int | None = 0, timeout: float = BOOT) -> str:
        """What the command (shell syntax, any number of lines below 1000 characters) writes, without the
        last line ends.

        It runs in the shell itself, so that `cd`, variables and jobs last.

        :param status: what it must exit with; None for anything.
        """
        deadline = time.monotonic() + timeout
        assert all(len(line) < 1000 for line in command.split("\n")), "the shell's editor cuts lines at 1024"
        number = next(self._numbers)
        # The shell runs nothing before it has read the brace, so echo and prompts come before the first mark;
        # and neither echo holds a mark, because of the quotes.
        self._console.sendline(
            f"{{ echo b''egin-{number}; {command}\n}}; echo e''nd-{number} $?", timeout=timeout
        )
        self._console.expect(rf"begin-{number}\r?\n", timeout=deadline - time.monotonic())
        left = max(0, deadline - time.monotonic())
        end = self._console.expect(rf"end-{number} ([0-9]+)\r?\n", timeout=left)
        assert isinstance(end.before, str)
        output = end.before.replace("\r\n", "\n").rstrip("\n")
        assert status is None or int(end.match[1]) == status, (
            f"{command!r} ended with {end.match[1]}: {output}"
        )
        return output


T_co = TypeVar("T_co", covariant=True)


class _Make(Protocol[T_co]):
    def __call__(
        self,
        *args: str,
        modules: Sequence[str] = (),
        append: str = "",
        machine: str = "pc",
        memory: int = 256,
        **parameters: object,
    ) -> T_co:
        """
        :param modules: to be loaded before there is a shell; those that are built in are no trouble.
        :param append: kernel parameters.
        :param machine: QEMU's machine type and its options.
        :param memory: MiB.
        :param parameters: the other ones of `Machine`.
        """


Linux = _Make[Machine]
"""Makes a machine with this guest, which is not launched yet; the fixture kills it."""
Boot = _Make[Shell]
"""Launches such a machine, and returns its shell."""


@pytest.fixture(scope="session")
def kernel() -> Path:
    name = os.environ.get("VMFSM_TEST_KERNEL")
    if not name:
        pytest.skip("VMFSM_TEST_KERNEL names no Linux kernel (`make test` gets one)")
    kernel = Path(name).resolve()
    if not kernel.is_file():
        pytest.skip(f"VMFSM_TEST_KERNEL is no file: {name}")
    return kernel


@pytest.fixture(scope="session")
def initramfs(kernel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An initial file system: a static busybox, modules, and an init."""
    busybox, cpio = shutil.which("busybox"), shutil.which("cpio")
    if busybox is None or cpio is None:
        pytest.skip("needs busybox (static) and cpio")
    if subprocess.run(["ldd", busybox], check=False, capture_output=True).returncode == 0:
        pytest.skip(f"{busybox} is not static (Debian: package busybox-static)")
    root = tmp_path_factory.mktemp("initramfs")
    for directory in ("bin", "dev", "mnt", "proc", "sys", "tmp"):
        (root / directory).mkdir()
    shutil.copy(busybox, root / "bin" / "busybox")
    applets = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "init").write_text(INIT)
    (root / "init").chmod(0o755)
    # Beside the kernel's /boot, if it came with modules: lib/modules/VERSION.
    tree = kernel.parent.parent / "lib" / "modules" / kernel.name.removeprefix("vmlinuz-")
    if tree.is_dir():
        _copy_modules(tree, root / "lib" / "modules" / tree.name)
    image = root.with_suffix(".cpio")
    names = "\n".join(str(path.relative_to(root)) for path in sorted((root, *root.rglob("*"))))
    with image.open("wb") as archive:
        subprocess.run(
            [cpio, "--create", "--format=newc", "--quiet"],
            cwd=root,
            input=names.encode(),
            stdout=archive,
            check=True,
            timeout=LIMIT,
        )
    return image


@pytest.fixture
def linux(qemu: str, kernel: Path, initramfs: Path) -> Iterator[Linux]:
    machines = []

    def make(
        *args: str,
        modules: Sequence[str] = (),
        append: str = "",
        machine: str = "pc",
        memory: int = 256,
        **parameters: object,
    ) -> Machine:
        words = (KERNEL_PARAMETERS, f"vmfsm_modules={','.join(modules)}", append)
        boots = ("-kernel", str(kernel), "-initrd", str(initramfs), "-append", " ".join(words).strip())
        args = ("-nodefaults", "-machine", machine, "-m", str(memory), "-no-reboot", *boots, *args)
        machines.append(Machine(qemu, args, **parameters))  # type: ignore[arg-type]  # whatever they are
        return machines[-1]

    yield make
    for vm in machines:
        with contextlib.suppress(VMError):
            vm.kill()


@pytest.fixture
def boot(linux: Linux) -> Boot:
    def boot(*args: str, **parameters: object) -> Shell:
        vm = linux(*args, **parameters)  # type: ignore[arg-type]  # its parameters
        return Shell(vm.launch()).await_prompt()

    return boot


def _copy_modules(tree: Path, target: Path) -> None:
    """Copy `MODULES` and what they depend on, with what modprobe wants to know (`modules.dep(5)`)."""
    target.mkdir(parents=True)
    paths = {_name(path): path for path in sorted(tree.rglob("*.ko*"))}
    needs: dict[str, list[str]] = {}
    todo = [name for name in MODULES if name in paths]  # the others are built in, or not to be had
    while todo:
        name = todo.pop()
        if name not in needs:
            module = _uncompressed(paths[name])
            (target / f"{name}.ko").write_bytes(module)
            # The field of the ELF section .modinfo; kmod's depmod(8) makes modules.dep of it.
            depends = re.search(rb"\0depends=([^\0]*)\0", module)
            needs[name] = _names(depends[1].decode()) if depends else []
            todo += needs[name]
    lines = [f"{name}.ko: {' '.join(f'{need}.ko' for need in _in_order(name, needs))}\n" for name in needs]
    (target / "modules.dep").write_text("".join(lines))
    if (tree / "modules.builtin").exists():
        shutil.copy(tree / "modules.builtin", target)


def _in_order(name: str, needs: dict[str, list[str]]) -> list[str]:
    """All that a module needs, directly or not, and after each what that needs in turn."""
    found: list[str] = []
    for need in needs[name]:
        for indirect in (need, *_in_order(need, needs)):
            if indirect in found:
                found.remove(indirect)
            found.append(indirect)
    return found


def _name(module: Path) -> str:
    return module.name.partition(".")[0].replace("-", "_")


def _names(depends: str) -> list[str]:
    return [name.replace("-", "_") for name in depends.split(",") if name]


def _uncompressed(module: Path) -> bytes:
    data = module.read_bytes()
    match module.suffix:
        case ".xz":
            return lzma.decompress(data)
        case ".gz":
            return gzip.decompress(data)
        case ".zst":
            return subprocess.run(["zstd", "-dcq"], input=data, check=True, capture_output=True).stdout
    return data
