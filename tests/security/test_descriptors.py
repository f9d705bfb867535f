"""What processes inherit are the descriptors that were named, whatever else the harness has open."""

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import pytest

from tests.plugins.descriptors import open_in, what
from tests.plugins.fake_console import program
from tests.waiting import until
from vmfsm import LaunchPlan, Machine, MachineTimeout, hookimpl

NOTHING = ["-M", "none", "-nodefaults"]
_MANY = 100


@pytest.fixture
def inheritable() -> Iterator[Sequence[IO[bytes]]]:
    """Files that any child would inherit, and a thread that makes and closes more of them all the time."""
    over = threading.Event()

    def make_more() -> None:
        while not over.is_set():
            duplicate = os.dup(files[0].fileno())
            os.set_inheritable(duplicate, True)
            os.close(duplicate)

    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(_MANY)]
        for file in files:
            os.set_inheritable(file.fileno(), True)
        making = threading.Thread(target=make_more)
        making.start()
        stack.callback(making.join)
        stack.callback(over.set)
        yield files


class Names:
    """Has QEMU and a companion inherit one descriptor each."""

    name = "names"

    def __init__(self, to_qemu: int, to_companion: int) -> None:
        self._to_qemu, self._to_companion = to_qemu, to_companion
        self.companion: Callable[[], int | None] = lambda: None

    @hookimpl
    def pre_launch(self, plan: LaunchPlan) -> None:
        plan.pass_fd(self._to_qemu)
        companion = plan.companion(["sleep", "1000"], fds=[self._to_companion])
        self.companion = lambda: companion.pid


def test_of_many_only_the_named_ones(qemu: str, inheritable: Sequence[IO[bytes]]) -> None:
    given, helpers = inheritable[:2]
    names = Names(given.fileno(), helpers.fileno())
    with Machine(qemu, NOTHING, plugins=[names]) as vm:
        vm.launch()
        companion = names.companion()
        assert vm.pid
        assert companion
        ours = {what(file) for file in inheritable}
        in_qemu, in_companion = open_in(vm.pid), open_in(companion)
        assert {fd for fd, it in in_qemu.items() if it in ours} == {given.fileno()}
        assert {fd for fd, it in in_companion.items() if it in ours} == {helpers.fileno()}
        assert set(in_companion) == {0, 1, 2, helpers.fileno()}
        null = what("/dev/null")
        assert in_qemu[0] == in_companion[0] == null, "nobody reads from the harness's terminal"


HARNESS = """
import os, sys
null = os.open("/dev/null", os.O_RDWR)
for _ in range(50):
    os.set_inheritable(os.dup(null), True)
marker = os.open(sys.argv[1], os.O_RDWR)
os.set_inheritable(marker, True)
from vmfsm import Machine
with Machine("qemu-system-x86_64", ["-M", "none"]) as vm:
    vm.launch()
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/comm") as comm, open(f"/proc/{name}/stat") as stat:
                is_ours = stat.read().rpartition(") ")[2].split()[1] == str(os.getpid())
                if is_ours and int(name) != vm.pid:
                    print(*[os.readlink(f"/proc/{name}/fd/{fd}") for fd in os.listdir(f"/proc/{name}/fd")])
                    with open(f"/proc/{name}/environ") as environment:
                        print(environment.read().replace(chr(0), " "))
        except OSError:
            pass
"""


def test_the_watchdog_has_nothing_of_the_harness(qemu: str, tmp_path: Path) -> None:
    """Neither its files nor its environment, in which there may be secrets."""
    marker = tmp_path / "marker"
    marker.touch()
    env = {**os.environ, "TOKEN": "a secret of the harness"}
    said = subprocess.check_output([sys.executable, "-c", HARNESS, marker], env=env, text=True).splitlines()
    assert len(said) == 2, "one process beside QEMU"
    opened, environment = said
    assert str(marker) not in opened
    assert len(opened.split()) < 10
    assert "TOKEN" not in environment


SENDS_DESCRIPTORS = """
import socket
files = [os.open("/dev/null", os.O_RDONLY) for _ in range(10)]
for console in consoles:
    for _ in range(20):
        socket.send_fds(console, [b"have some descriptors\\r\\n"], files)
"""


def test_descriptors_that_a_guest_process_sends_are_not_taken() -> None:
    """A QEMU that was taken over may send some with what it writes (unix(7), `SCM_RIGHTS`)."""
    with Machine("true", wrapper=program(SENDS_DESCRIPTORS), display=None, block=["qmp"]) as vm:
        vm.launch()
        up = len(os.listdir("/proc/self/fd"))
        until(lambda: vm.console.text.count("\n") == 20)
        with pytest.raises(MachineTimeout):
            vm.console.expect("never", timeout=0.1)
        assert len(os.listdir("/proc/self/fd")) < up + 100, "of the 200 that came"
