"""Where a fault meets a call that waits: the machines of a cell, and what can be done to them."""

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest

from tests.endings import MakeGuest, NoGood, guests, spoiler
from tests.faults.hanging import Lab
from tests.faults.test_wrappers import inside
from tests.hooked import Async, Journal, Plain
from tests.waiting import InThread, until
from vmfsm import Companion, LaunchPlan, Machine
from vmfsm.iothread import IOThread
from vmfsm.testing import FakeQEMU

if TYPE_CHECKING:
    from .faults import Fault

UP = "ready\r\n"
"""What the guest says when it is up, and a `FakeQEMU` of ours as well."""
HERE = "the point is reached"
"""What a `FakeQEMU` says then."""
FAR = 120.0
"""A deadline that no cell gets to."""


class MatrixLab(Lab):
    """Makes machines that meet one fault; their binary can be exchanged for one without it."""

    def __init__(self, make: MakeGuest, directory: Path, fault: "Fault", binary: Path, qemu: str) -> None:
        super().__init__(make, directory)
        self.fault = fault
        self.machines: list[Machine] = []
        self.companions: list[Companion] = []
        self.victim: Machine | None = None
        """The one whose QEMU is stopped."""
        self.fake: FakeQEMU | None = None
        """What is run as QEMU, if that is none."""
        self._binary = binary
        self._qemu = qemu

    def full_disk(self) -> Path:
        """A file system without room for a file; `make_room` makes some. Skips where none can be mounted."""
        disk = self.directory / "disk"
        disk.mkdir()
        done = _mount("-t", "tmpfs", "-o", "nr_inodes=1,mode=0700", "tmpfs", str(disk))
        if done.returncode != 0:
            pytest.skip(f"a small file system cannot be mounted: {done.stderr.strip()}")
        self.disk = disk
        return disk

    disk: Path | None = None

    def make_room(self) -> None:
        if self.disk is not None:
            assert _mount("-o", "remount,nr_inodes=1000", str(self.disk)).returncode == 0

    def close(self) -> None:
        if self.disk is not None:
            subprocess.run(["umount", "--lazy", str(self.disk)], check=True)

    def run_as_qemu(self, program: str) -> None:
        """What is launched from now on is this."""
        new = self._binary.with_name("new")
        new.symlink_to(shutil.which(program) or program)
        new.replace(self._binary)

    def run_qemu(self) -> None:
        self.run_as_qemu(self._qemu)

    def machine(self, name: str = "vm", *more: str, **parameters: Any) -> Machine:
        vm = super().machine(name, *more, *self.fault.more, **parameters)
        spoiler(vm).planning = lambda plan: self._plan(vm, plan)
        self.machines.append(vm)
        self.victim = self.victim or vm
        return vm

    def _plan(self, vm: Machine, plan: LaunchPlan) -> None:
        if self.fault.wrapper is not None:
            text = self.fault.wrapper.replace("{fifo}", str(self.fifo(vm)))
            plan.wrapper[:] = ["sh", "-c", text, "sh"]
        if self.fault.name == "ends" and self.fault.by.name == "COMPANION":
            self.companions.append(plan.companion(["sleep", "1000"], name="helper"))

    def slow_tool(self) -> Path:
        """Without children, which would outlive it."""
        os.mkfifo(self.directory / "nothing")
        return self.file("tool", f"#!/bin/sh\nread line < {self.directory}/nothing\n", 0o700)

    def fifo(self, vm: Machine | None) -> Path:
        """What a wrapper of the machine reads from until something is written to it."""
        assert vm is not None
        path = self.directory / f"{vm.name}.fifo"
        if not path.exists():
            os.mkfifo(path)
        return path

    def stop(self, vm: Machine) -> None:
        self.victim = vm
        for identity in inside(vm.name):
            os.kill(identity.pid, signal.SIGSTOP)
        until(lambda: all(is_stopped(identity.pid) for identity in inside(vm.name)))


def is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] in "TXZ"
    except OSError:
        return True


@contextlib.contextmanager
def matrix_lab(qemu: str, directory: Path, fault: "Fault") -> Iterator[MatrixLab]:
    binary = directory / "qemu"
    binary.symlink_to(shutil.which(qemu) or qemu)
    with contextlib.ExitStack() as stack:
        machines = contextlib.ExitStack()
        make = machines.enter_context(guests(str(binary)))
        lab = MatrixLab(make, directory, fault, binary, qemu)
        stack.callback(lab.close)
        stack.push(machines)
        yield lab


def _mount(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["mount", *words], capture_output=True, text=True, check=False)


class Hook:
    """What a plugin does in its hook: it waits until it is let go, and may raise then."""

    def __init__(self, *, is_async: bool) -> None:
        self.is_async = is_async
        self.begun = threading.Event()
        self._go = threading.Event()
        self._error: BaseException | None = None
        self._wake: Callable[[], object] = lambda: None

    def wait(self, machine: Machine) -> None:
        self.begun.set()
        assert self._go.wait(FAR)
        if self._error is not None:
            raise self._error

    async def await_(self, machine: Machine) -> None:
        loop, go = asyncio.get_running_loop(), asyncio.Event()
        self._wake = lambda: loop.call_soon_threadsafe(go.set)
        self.begun.set()
        if not self._go.is_set():
            await go.wait()
        if self._error is not None:
            raise self._error

    def plugin(self, hook: str) -> Plain | Async:
        if self.is_async:
            return Async("held", Journal(), **{hook: self.await_})
        return Plain("held", Journal(), **{hook: self.wait})

    def let_go(self, error: BaseException | None = None) -> None:
        """For good: the next launch is not held up."""
        if not self._go.is_set():
            self._error = error
            self._go.set()
            self._wake()
            return
        self._error = None


class Scene:
    """A call at its point. Made before the call; what acts on it is for another thread than the call's.

    :param call: with a number of seconds.
    :param machine: whose call it is; `None`: no machine's.
    :param hook: what the call waits for, if that is a hook.
    """

    def __init__(
        self,
        lab: MatrixLab,
        call: Callable[[float], Any],
        machine: Machine | None,
        reached: Callable[[], object],
        hook: Hook | None = None,
        *,
        hung: bool = False,
    ) -> None:
        self.lab = lab
        self.call = call
        self.machine = machine
        self.reached = reached
        self.hook = hook
        self.hung = hung
        """Its QEMU is stopped."""
        self.over = threading.Event()
        """The call is."""
        self.ending: InThread | None = None
        """Another thread's `kill` or `shutdown`."""
        self.beside: list[InThread] = []
        """Other calls that wait, until the machine is killed at the latest."""
        self._released = threading.Event()
        self._undo: list[Callable[[], object]] = []

    @property
    def victim(self) -> Machine | None:
        """Whose QEMU the fault comes to."""
        return self.lab.victim

    @property
    def pid(self) -> int:
        [pid] = self.victims()[:1]
        return pid

    def victims(self) -> list[int]:
        """The process that is QEMU, or what runs in place of a tool."""
        if self.victim is not None:
            return [] if self.victim.pid is None else [self.victim.pid]
        return [pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if self._is_tool(pid)]

    def _is_tool(self, pid: int) -> bool:
        """A child of ours that runs something in the lab's directory."""
        with contextlib.suppress(OSError):
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            return parent == os.getpid() and str(self.lab.directory).encode() in words
        return False

    # -- what faults do -------------------------------------------------------------------------------------

    def stop(self) -> None:
        for pid in self.victims():
            os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        for pid in self.victims():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        if self.victim is not None:
            for identity in inside(self.victim.name):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(identity.pid, signal.SIGCONT)

    def stop_and_resume(self) -> None:
        self.stop()
        self.resume()

    def kill_elsewhere(self) -> None:
        self._call_elsewhere("kill")

    def shut_down_elsewhere(self) -> None:
        self._call_elsewhere("shutdown")

    def _call_elsewhere(self, name: str) -> None:
        """In time: a QEMU that can't hear is killed after a second, and no other one is."""
        assert self.machine is not None
        is_deaf = self.hung and self.victim is self.machine
        self.ending = InThread(getattr(self.machine, name), timeout=1 if is_deaf else FAR)

    def interrupt(self) -> None:
        """The main thread; again and again, as Python misses one just before it falls asleep."""
        while not (self.over.wait(0.05) or self.interrupted):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    interrupted = False

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        def handle(number: int, frame: FrameType | None) -> None:
            if not (self.interrupted or self.over.is_set()):
                self.interrupted = True
                raise KeyboardInterrupt

        before = signal.signal(signal.SIGINT, handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def hold_up(self) -> None:
        IOThread.get().post(self._released.wait, FAR)

    def let_hook_raise(self) -> None:
        assert self.hook is not None
        self.hook.let_go(NoGood("no good"))

    def take_descriptors(self) -> None:
        """All that this process may have; given back by `release`."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        taken = [os.open("/dev/null", os.O_RDONLY)]
        highest = max(map(int, os.listdir("/proc/self/fd")))
        while taken[-1] < highest:
            taken.append(os.open("/dev/null", os.O_RDONLY))
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken[-1] + 1, hard))

        def give_back() -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in taken:
                os.close(fd)

        self._undo.append(give_back)

    def end_companion(self) -> None:
        for companion in self.lab.companions:
            if companion.pid is not None:
                os.kill(companion.pid, signal.SIGKILL)

    def ask_something_else(self) -> None:
        vm = self.victim
        assert vm is not None
        self.resume()
        until(lambda: HERE in vm.log.text)
        self.beside.append(InThread(vm.qmp.execute_raw, "x-else", timeout=FAR))

    def release(self) -> None:
        """Let everything go that this scene holds."""
        self._released.set()
        while self._undo:
            self._undo.pop()()
        if self.hook is not None:
            self.hook.let_go()
