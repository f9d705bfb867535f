"""A file that is opened for a machine hangs: its call ends by its deadline, and other machines go on."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hung_files import Hung, hung
from tests.plugins.descriptors import open_in, what
from tests.waiting import InThread, until
from vmfsm import LaunchError, Machine, MachineTimeout, State, VMError, hookimpl, qemu_img

MIB = 1024 * 1024
SHORT = 0.5
"""Seconds of a deadline that is to be over."""

Make = Callable[..., Machine]


@pytest.fixture
def make(qemu: str) -> Iterator[Make]:
    machines: list[Machine] = []

    def make(*args: str, plugins: tuple[object, ...] = ()) -> Machine:
        machine = Machine(qemu, ["-M", "none", "-nodefaults", *args], plugins=plugins, block=("console",))
        machines.append(machine)
        return machine

    yield make
    for machine in machines:
        with contextlib.suppress(VMError):
            machine.kill()


@pytest.fixture
def other(make: Make) -> Machine:
    """A machine that has nothing to do with it."""
    return make().launch()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(bytes(MIB))
    return path


def goes_on(vm: Machine) -> bool:
    return bool(vm.qmp.execute("query-status", timeout=20))


def held(hold: Hung, call: Callable[[float], object], timeout: float = SHORT) -> InThread:
    """`call`, with a timeout, in a thread, where it hangs."""
    calling = InThread(call, timeout)
    until(lambda: hold.holds or (calling.over and not opening()))
    if hold.holds:
        return calling
    assert timeout < 100
    return held(hold, call, 2 * timeout)  # all is so slow that it was over before the file was opened


def opening() -> bool:
    return any(thread.name == "vmfsm-blocking" for thread in threading.enumerate())


def closed_here(path: Path) -> bool:
    return what(path) not in open_in(os.getpid()).values()


def test_at_launch(make: Make, other: Machine, file: Path) -> None:
    vm = make()
    vm.fds.add(file)
    with hung(file.parent) as hold:
        launching = held(hold, vm.launch)
        assert goes_on(other)
        with pytest.raises(LaunchError, match="not up after"):
            launching.result()
        assert vm.state is State.FAILED
        hold.release()
        until(lambda: closed_here(file))
    vm.launch()


class AddsInHook:
    name = "adds"

    def __init__(self, path: Path) -> None:
        self.path = path

    @hookimpl
    async def pre_launch(self, machine: Machine) -> None:
        await machine.fds.aio.add(self.path)


def test_in_an_async_hook(make: Make, other: Machine, file: Path) -> None:
    vm = make(plugins=(AddsInHook(file),))
    with hung(file.parent) as hold:
        launching = held(hold, vm.launch)
        assert goes_on(other)
        with pytest.raises(LaunchError, match="not up after"):
            launching.result()
        hold.release()
        until(lambda: closed_here(file))
    vm.launch()
    assert [len(fdset["fds"]) for fdset in vm.qmp.execute("query-fdsets")] == [1]


@pytest.mark.parametrize(
    "call",
    [
        lambda vm, file, timeout: vm.fds.add(file, timeout=timeout),
        lambda vm, file, timeout: vm.fds.send(file, "name", timeout=timeout),
    ],
    ids=["add", "send"],
)
def test_to_a_running_machine(
    make: Make, other: Machine, file: Path, call: Callable[[Machine, Path, float], object]
) -> None:
    vm = make().launch()
    with hung(file.parent) as hold:
        calling = held(hold, lambda timeout: call(vm, file, timeout))
        assert goes_on(other)
        assert goes_on(vm)
        with pytest.raises(MachineTimeout):
            calling.result()
        vm.shutdown()
        hold.release()
        until(lambda: closed_here(file))


def test_a_migration_from_a_file(make: Make, other: Machine, file: Path) -> None:
    vm = make("-incoming", "defer").launch()
    with hung(file.parent) as hold:
        calling = held(hold, lambda timeout: vm.migration.from_file(file, timeout=timeout))
        assert goes_on(other)
        assert goes_on(vm)
        with pytest.raises(MachineTimeout):
            calling.result()
        hold.release()
        until(lambda: closed_here(file))


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_migration_to_a_file(
    make: Make, other: Machine, file: Path, tmp_path: Path, overwrite: bool
) -> None:
    vm = make().launch()
    new = file if overwrite else tmp_path / "new"
    with hung(tmp_path) as hold:
        calling = held(hold, lambda timeout: vm.migration.to_file(new, overwrite=overwrite, timeout=timeout))
        assert goes_on(other)
        assert goes_on(vm)
        with pytest.raises(MachineTimeout):
            calling.result()
        hold.release()
        until(lambda: os.listdir(tmp_path) == ["file"])
        assert file.read_bytes() == bytes(MIB)


def test_an_external_snapshot(qemu: str, make: Make, other: Machine, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    qemu_img.create(tmp_path / "disk", MIB)
    vm = make("-blockdev", f"driver=qcow2,node-name=disk,file.driver=file,file.filename={tmp_path}/disk")
    vm.launch()
    with hung(tmp_path / "new") as hold:
        files = {"disk": tmp_path / "new" / "over"}
        calling = held(hold, lambda timeout: vm.snapshots.external(files, timeout=timeout))
        assert goes_on(other)
        assert goes_on(vm)
        with pytest.raises(MachineTimeout):
            calling.result()
        vm.kill()
        hold.release()
        until(lambda: os.listdir(tmp_path / "new") == [])
