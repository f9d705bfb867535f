"""The command line, byte for byte."""

import os
import re
import shlex

import pytest

from tests.compat.conftest import MakeVM
from vmfsm.compat import QEMUMachine


def fds(vm: QEMUMachine) -> list[str]:
    """The command line, with the numbers of the sockets' descriptors as `N`."""
    return [re.sub(r"^(socket,id=\w+,fd=)\d+$", r"\1N", word) for word in vm._qemu_full_args]


MONITOR = "-chardev socket,id=mon,fd=N -mon chardev=mon,mode=control"


def test_default(make_vm: MakeVM, qemu: str) -> None:
    vm = make_vm()
    vm.launch()
    assert fds(vm) == shlex.split(f"{qemu} -display none -vga none {MONITOR} -M none -nodefaults")
    assert isinstance(vm._qemu_full_args, tuple)
    pid = vm.get_pid()
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        words = file.read().split(b"\0")[:-1]
    assert words[-len(vm._qemu_full_args) + 1 :] == [os.fsencode(word) for word in vm._qemu_full_args[1:]]


def test_everything(make_vm: MakeVM, qemu: str) -> None:
    vm = make_vm("-nodefaults", wrapper=["env", "A=1"])
    with open("/dev/null") as null:
        fd = null.fileno()
        vm.set_machine("isapc")
        vm.set_machine("pc")
        vm.set_console(console_index=5)
        vm.set_console("isa-serial", 1)
        vm.add_monitor_null()
        assert vm.add_fd(fd, 3, "x,y") is vm
        assert os.get_inheritable(fd)
        vm.add_args("-name", "n")
        vm.args.extend(["-m", "16"])
        vm.launch()
    assert fds(vm) == shlex.split(
        f"env A=1 {qemu} -display none -vga none {MONITOR} -machine pc -serial null "
        "-chardev socket,id=console,fd=N -device isa-serial,chardev=console -nodefaults -monitor null "
        f"-add-fd fd={fd},set=3,opaque=x,,y -name n -m 16"
    )
    (fdset,) = vm.cmd("query-fdsets")
    assert fdset["fds"][0]["opaque"] == "x,y"
    assert vm.get_command_arguments("-name") == ["n"]
    assert vm.binary == qemu


def test_serial_console(make_vm: MakeVM, qemu: str) -> None:
    vm = make_vm("-M", "pc")
    vm.set_console(console_index=2)
    vm.launch()
    assert fds(vm)[5:] == shlex.split(
        f"{MONITOR} -serial null -serial null -chardev socket,id=console,fd=N -serial chardev:console -M pc"
    )


def test_no_monitor(make_vm: MakeVM, qemu: str) -> None:
    vm = make_vm()
    vm.set_qmp_monitor(False)
    vm.launch()
    assert list(vm._qemu_full_args) == shlex.split(f"{qemu} -display none -vga none -M none -nodefaults")
    vm.shutdown()
    vm.set_qmp_monitor()
    vm.launch()
    assert "-mon" in vm._qemu_full_args


def test_monitor_at_a_path(make_vm: MakeVM, short_dir: str) -> None:
    path = f"{short_dir}/m,n"
    vm = make_vm(monitor_address=path)
    vm.launch()
    assert vm._qemu_full_args[5:9] == (
        "-chardev",
        f"socket,id=mon,path={short_dir}/m,,n",
        "-mon",
        "chardev=mon,mode=control",
    )
    assert os.path.exists(path)
    vm.shutdown()
    assert not os.path.exists(path)


@pytest.mark.parametrize("port", [0, "free"])
def test_monitor_at_a_port(make_vm: MakeVM, port: int | str) -> None:
    if port == "free":
        vm = make_vm(monitor_address=("localhost", 0))
        vm.launch()
        port = int(vm._qemu_full_args[6].rpartition("=")[2])
        vm.shutdown()
    assert isinstance(port, int)
    vm = make_vm(monitor_address=("localhost", port))
    vm.launch()
    there = int(vm._qemu_full_args[6].rpartition("=")[2])
    assert there > 0
    assert port in {0, there}
    assert vm._qemu_full_args[6] == f"socket,id=mon,host=localhost,port={there}"
    assert vm.cmd("query-status")["running"]


def test_sock_dir(make_vm: MakeVM, short_dir: str) -> None:
    vm = make_vm("-M", "pc", sock_dir=short_dir, name="v")
    vm.set_console()
    vm.launch()
    assert vm._qemu_full_args[6] == f"socket,id=mon,path={short_dir}/v-monitor.sock"
    assert vm._qemu_full_args[10] == f"socket,id=console,path={short_dir}/v-console.sock,server=on,wait=off"
    assert vm.sock_dir == short_dir
    assert vm._sock_pair is None
    vm.shutdown()
    assert os.listdir(short_dir) == []


def test_before_a_launch_and_after_it(make_vm: MakeVM) -> None:
    vm = make_vm()
    vm.set_console()
    before = vm._base_args
    assert before == shlex.split(
        "-display none -vga none -chardev socket,id=mon,path=None -mon chardev=mon,mode=control "
        "-chardev socket,id=console,path=None -serial chardev:console"
    )
    vm.set_machine("pc")
    vm._args[:] = []
    vm.launch()
    vm.shutdown()
    assert vm._base_args == [*before[:8], "-machine", "pc", *before[8:]]
    assert vm._qemu_full_args
