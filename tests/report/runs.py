"""Recordings of real QEMU for people to look at: tests that pass, fail, move a guest."""

import contextlib
from pathlib import Path

from vmfsm import Machine, VMError
from vmfsm.testing import GUEST_ARGS

QEMU = "qemu-system-x86_64"


def hanging(directory: Path, *, patience: float = 0.4) -> Path:
    """A test that waits in vain for what its guest never says."""
    with contextlib.suppress(VMError), _machine("hang", directory) as vm:
        with vm.trace("boot", firmware="none"):
            vm.launch()
            vm.console.expect("ready")
        with vm.trace("ask"):
            vm.qmp.execute("query-status")
            vm.qmp.execute("query-name")
            vm.note("all is well")
        with vm.trace("say hello"):
            for _ in range(3):
                vm.console.sendline("ping")
                vm.console.expect("pong")
        with vm.trace("log in"):
            vm.console.sendline("hang")
            vm.console.expect("login:", timeout=patience)
    return path_of(vm)


def passing(directory: Path, *, pings: int) -> Path:
    """One that passes, and may take its time."""
    with _machine("pass", directory) as vm:
        with vm.trace("boot"):
            vm.launch()
            vm.console.expect("ready")
        with vm.trace("say hello"):
            for _ in range(pings):
                vm.console.sendline("ping")
                vm.console.expect("pong")
        with vm.trace("end"):
            vm.console.sendline("poweroff")
            vm.wait(timeout=30)
    return path_of(vm)


def migrating(directory: Path) -> list[Path]:
    """A guest that moves, and panics where it is then."""
    source = _machine("source", directory)
    destination = _machine("destination", directory, "-incoming", "defer")
    with contextlib.suppress(VMError), source, destination:
        source.launch()
        source.console.expect("ready")
        destination.launch()
        source.migration.to(destination, timeout=30)
        destination.console.sendline("panic")
        destination.wait(timeout=30)
    return [path_of(source), path_of(destination)]


def _machine(name: str, directory: Path, *args: str) -> Machine:
    options = {"recorder": {"directory": directory}}
    return Machine(QEMU, [*GUEST_ARGS, *args], name=name, options=options)


def path_of(vm: Machine) -> Path:
    return Path(vm.plugin("recorder").path)
