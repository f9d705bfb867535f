"""What a test may not leave behind: processes, descriptors, threads, tasks, temporary files."""

import asyncio
import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from typing import NamedTuple

from vmfsm.exit_guard import ExitGuard
from vmfsm.iothread import IOThread
from vmfsm.workers import Workers

# What ends a little after the call that ended it has returned, and so is waited for: descriptors that the
# loop of the I/O thread closes in its next turn, tasks that were cancelled, threads that are at their last
# statement, and grandchildren, which the kernel reaps when it has killed them.
PATIENCE = 5.0

MARK = "VMFSM_TEST_PROCESS"
"""An environment variable by which processes are found that are nobody's children any more."""


class Leak(AssertionError):
    """Something was left behind; the message says what."""


class Present(NamedTuple):
    """What there is, each kind with a description for people."""

    processes: Mapping[int, str]
    descriptors: Mapping[tuple[int, str], str]
    threads: Mapping[int, str]
    tasks: Mapping[int, str]
    files: Mapping[str, str]

    def beyond(self, before: "Present") -> list[str]:
        found = []
        for what, now, then in zip(("process", "fd", "thread", "task", "file"), self, before, strict=True):
            assert isinstance(now, Mapping)
            assert isinstance(then, Mapping)
            found += [f"{what}: {now[key]}" for key in now.keys() - then.keys()]
        return found


def begin() -> None:
    """Let what stands for as long as the process come into being, so that no test is blamed for it."""
    IOThread.get(), Workers.get(), ExitGuard.get()
    os.environ[MARK] = str(os.getpid())


def look() -> Present:
    return Present(_processes(), _descriptors(), _threads(), _tasks(), _files())


@contextlib.contextmanager
def nothing_left(patience: float | None = None) -> Iterator[None]:
    """:raises Leak: where the block leaves behind what was not there before it."""
    before = look()
    yield
    deadline = time.monotonic() + (PATIENCE if patience is None else patience)
    while leaks := look().beyond(before):
        if time.monotonic() > deadline:
            raise Leak("left behind:\n" + "\n".join(f"  {leak}" for leak in leaks))
        time.sleep(0.01)


def _processes() -> dict[int, str]:
    """Our children, and whoever inherited our mark."""
    mark = f"{MARK}={os.getpid()}".encode()
    found = {}
    for name in os.listdir("/proc"):
        if name.isdecimal() and name != str(os.getpid()):
            with contextlib.suppress(OSError):  # it is gone meanwhile, or somebody else's
                stat = _read(name, "stat").rpartition(b") ")[2].split()
                if stat[1] == b"%d" % os.getpid() or mark in _read(name, "environ").split(b"\0"):
                    words = _read(name, "cmdline").replace(b"\0", b" ").decode(errors="replace").strip()
                    found[int(name)] = f"{name} {'(zombie)' if stat[0] == b'Z' else words}"
    return found


def _read(pid: str, file: str) -> bytes:
    with open(f"/proc/{pid}/{file}", "rb", buffering=0) as opened:
        return opened.read()


def _descriptors() -> dict[tuple[int, str], str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one of this very listing
            target = os.readlink(f"/proc/self/fd/{name}")
            found[int(name), target] = f"{name} -> {target}"
    return found


def _threads() -> dict[int, str]:
    return {id(thread): thread.name for thread in threading.enumerate()}


def _tasks() -> dict[int, str]:
    """Those of the I/O thread."""
    io = IOThread.get()
    answer: Future[dict[int, str]] = Future()
    io.post(lambda: answer.set_result({id(task): repr(task) for task in asyncio.all_tasks(io.loop)}))
    return answer.result(30)


def _files() -> dict[str, str]:
    directory = tempfile.gettempdir()
    return {name: os.path.join(directory, name) for name in os.listdir(directory)}
