"""What there is at one moment of the kinds of things that a machine can leave behind.

Each is known by a key that nothing else ever has, as long as the key is kept, and can describe itself for
people. `proc(5)` tells of processes and descriptors: Linux only.
"""

import asyncio
import concurrent.futures
import contextlib
import functools
import os
import re
import shlex
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from vmfsm import registry
from vmfsm.control.server import Server
from vmfsm.deadline import Deadline
from vmfsm.errors import MachineTimeout, printable
from vmfsm.exit_guard import ExitGuard
from vmfsm.iothread import IOThread
from vmfsm.lifecycle import State
from vmfsm.ownership import Ownership
from vmfsm.preparation import private_directories
from vmfsm.redaction import redact_command
from vmfsm.workers import Workers

if TYPE_CHECKING:
    from vmfsm.machine import Machine

Inventory = dict[Hashable, Callable[[], str]]
"""By key, what describes it."""

# The helper process of vmfsm that lives as long as this process: the one place where it is exempted.
PERMANENT_HELPER = re.compile(rb"\bvmfsm\.watchdog\b")

START = 30.0
"""Seconds for the I/O thread to start that helper process."""
ANSWER = 1.0
"""Seconds for the I/O thread to say what its tasks are."""
_MOST_FRAMES = 5
_LONGEST_COMMAND = 2_000
_TICKS = os.sysconf("SC_CLK_TCK")


def bring_up() -> None:
    """Let what stays for as long as this process come into being, so that nobody is blamed for it.

    :raises MachineTimeout: where something holds up the I/O thread.
    """
    io = IOThread.get()
    Workers.get(), ExitGuard.get()
    deadline = Deadline(START)
    began: concurrent.futures.Future[None] = concurrent.futures.Future()

    def begin_to_own() -> None:
        ownership = Ownership.get()
        ownership.own("nothing", "").end()
        ownership.serve()
        began.set_result(None)

    io.post(begin_to_own)
    try:
        began.result(deadline.remaining())
    except TimeoutError:
        held_up = _about_thread(io.thread)
        error = MachineTimeout(f"leakcheck: the I/O thread is held up for {deadline.timeout:g} s: {held_up}")
        error.operation, error.timeout = "leakcheck", deadline.timeout
        raise error from None


def take(
    directories: Iterable[str], mark: bytes = b"", since: int = 0, known: Collection[Hashable] = ()
) -> Inventory:
    """All there is.

    :param directories: where to look for files.
    :param mark: what the environment of processes has that are ours, whosever children they are by now.
    :param since: such processes were not started before this; as of `ticks`.
    :param known: keys of what was there before; what these processes start is their affair.
    """
    return {
        **_machines(),
        **_processes(mark, since, known),
        **_descriptors(),
        **_threads(),
        **_tasks(),
        **_files(directories),
        **_registered(),
    }


def ticks() -> int:
    """The time, as the kernel says when a process was started: clock ticks since the boot."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS)


# -- machines -----------------------------------------------------------------------------------------------


def _machines() -> Inventory:
    """Those of this process that have begun and have not reached a final state."""
    final = {State.STOPPED, State.FAILED}
    begun = [machine for machine in ExitGuard.get().machines if machine.state not in final]
    return {machine: functools.partial(_about_machine, machine) for machine in begun}


def _about_machine(machine: "Machine") -> str:
    pid = f"pid {machine.pid}, " if machine.pid else ""
    seconds = time.monotonic() - machine.since
    return f"machine {machine.name!r} is still {machine.state.value} ({pid}for {seconds:.1f} s)"


# -- processes ----------------------------------------------------------------------------------------------


class _Process(NamedTuple):
    pid: int
    name: str
    state: str
    parent: int
    start_time: int


def _processes(mark: bytes, since: int, known: Collection[Hashable]) -> Inventory:
    """Our descendants, and whoever inherited the mark."""
    ours = os.getpid()
    there = {process.pid: process for process in _all_processes() if process.pid != ours}
    children: dict[int, list[_Process]] = {}
    for process in there.values():
        children.setdefault(process.parent, []).append(process)

    def key(process: _Process) -> Hashable:
        return "process", process.pid, process.start_time

    pending = [child for child in children.get(ours, ()) if not _is_permanent_helper(child)]
    if mark:
        pending += [
            process
            for process in there.values()
            if process.start_time >= since and mark in _read(f"/proc/{process.pid}/environ")
        ]
    found: Inventory = {}
    while pending:
        process = pending.pop()
        if key(process) not in found and key(process) not in known:
            found[key(process)] = functools.partial(_about_process, process)
            pending += children.get(process.pid, ())
    return found


def _all_processes() -> Iterator[_Process]:
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            head, _, tail = _read(f"/proc/{entry}/stat").rpartition(b") ")
            fields = tail.split()
            if len(fields) > 19:  # else it has gone meanwhile
                name = head.partition(b" (")[2].decode(errors="backslashreplace")
                yield _Process(int(entry), name, fields[0].decode(), int(fields[1]), int(fields[19]))


def _is_permanent_helper(process: _Process) -> bool:
    return PERMANENT_HELPER.search(_read(f"/proc/{process.pid}/cmdline")) is not None


def _about_process(process: _Process) -> str:
    pid, age = process.pid, max(0, ticks() - process.start_time) / _TICKS
    whose = "a child" if process.parent == os.getpid() else f"a child of {process.parent}"
    if process.state == "Z":
        return f"process {pid}: {process.name} ({whose}, started {age:.1f} s ago, a zombie that nobody reaps)"
    words = _read(f"/proc/{pid}/cmdline").decode(errors="backslashreplace").split("\0")[:-1]
    command = printable(shlex.join(redact_command(words))).replace("\n", "\\n") or process.name
    if len(command) > _LONGEST_COMMAND:
        command = command[:_LONGEST_COMMAND] + "…"
    return f"process {pid}: {command} ({whose}, started {age:.1f} s ago)"


def _read(path: str) -> bytes:
    """Empty where the process has gone, or is somebody else's."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read()
    return b""


# -- descriptors --------------------------------------------------------------------------------------------


def _descriptors() -> Inventory:
    found: Inventory = {}
    permanent = {Ownership.get().descriptor, *Server.get().descriptors}  # whoever asks is no leak either
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one of this very listing
            fd, target = int(name), os.readlink(f"/proc/self/fd/{name}")
            if fd in permanent:
                continue
            status = os.fstat(fd)
            # Not the target: a file that is renamed or removed is the same. The kernel's own have one inode.
            kind = target if target.startswith("anon_inode:") else ""
            found["fd", fd, status.st_dev, status.st_ino, kind] = functools.partial(
                _about_descriptor, fd, target
            )
    return found


def _about_descriptor(fd: int, target: str) -> str:
    addresses = _addresses(fd) if target.startswith("socket:") else ""
    return f"fd {fd} -> {printable(target)}{addresses}"


def _addresses(fd: int) -> str:
    """Empty where they can't be had: of some kinds of sockets, or as it was closed meanwhile."""
    try:
        duplicate = os.dup(fd)
    except OSError:
        return ""
    try:
        same = socket.socket(fileno=duplicate)
    except OSError:
        os.close(duplicate)
        return ""
    with same:
        family = getattr(same.family, "name", same.family)  # Python has no names for some
        return f" ({family}{_address('', same.getsockname)}{_address('to ', same.getpeername)})"


def _address(before: str, get: Callable[[], Any]) -> str:
    try:
        address = get()
    except OSError:  # it is not connected
        return ""
    return f" {before}{address!r}" if address else ""


# -- threads and tasks --------------------------------------------------------------------------------------


def _threads() -> Inventory:
    return {thread: functools.partial(_about_thread, thread) for thread in threading.enumerate()}


def _about_thread(thread: threading.Thread) -> str:
    daemon = ", a daemon" if thread.daemon else ""
    return f"thread {thread.name!r}{daemon}{_stands_at(thread)}"


def _stands_at(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    places: list[str] = []
    while (
        frame is not None and len(places) < _MOST_FRAMES and not frame.f_code.co_name.startswith("_bootstrap")
    ):
        places.append(f"\n    {_place(frame)}")
        frame = frame.f_back
    return ", which stands at" + "".join(places) if places else ""


def _place(frame: FrameType) -> str:
    return f'File "{frame.f_code.co_filename}", line {frame.f_lineno}, in {frame.f_code.co_name}'


def _tasks() -> Inventory:
    """Those of the I/O thread, or that it does not answer."""
    io = IOThread.get()
    answer: concurrent.futures.Future[Inventory] = concurrent.futures.Future()

    def say() -> None:
        tasks = asyncio.all_tasks(io.loop) - Server.get().tasks
        answer.set_result({task: functools.partial(_about_task, task) for task in tasks})

    if io.inside():
        say()
    else:
        io.post(say)
    try:
        return answer.result(ANSWER)
    except TimeoutError:
        return {"I/O thread": lambda: f"the I/O thread, held up: {_about_thread(io.thread)}"}


def _about_task(task: "asyncio.Task[Any]") -> str:
    coroutine: Any = task.get_coro()
    name = getattr(coroutine, "__qualname__", repr(coroutine))
    places: list[str] = []
    while getattr(coroutine, "cr_frame", None) is not None:
        places.insert(0, f"\n    {_place(coroutine.cr_frame)}")
        coroutine = coroutine.cr_await
    stands_at = ", which stands at" + "".join(places[:_MOST_FRAMES]) if places else ""
    return f"task {task.get_name()!r} of the I/O thread, {name}{stands_at}"


# -- files --------------------------------------------------------------------------------------------------


def _files(directories: Iterable[str]) -> Inventory:
    """What is in these directories, and the private directories of machines, wherever they are."""
    paths = {path for path in tuple(private_directories) if os.path.lexists(path)}
    for directory in directories:
        with contextlib.suppress(FileNotFoundError):  # it was somebody's who has removed it
            paths.update(os.path.join(directory, name) for name in os.listdir(directory))
    return {("file", path): functools.partial(_about_file, path) for path in paths}


def _about_file(path: str) -> str:
    kind = "file"
    with contextlib.suppress(OSError):
        mode = os.lstat(path).st_mode
        kind = "directory" if stat.S_ISDIR(mode) else "socket" if stat.S_ISSOCK(mode) else kind
    return f"{kind} {printable(path)}"


def _registered() -> Inventory:
    """Entries of this process in the registry, unless all they stand for has gone meanwhile."""
    try:
        entries = registry.machines()
    except OSError:  # there is none that can be used
        return {}
    ours = [
        entry for entry in entries if entry.harness.pid == os.getpid() and os.path.lexists(entry.directory)
    ]
    return {("entry", entry.mark): functools.partial(_about_entry, entry) for entry in ours}


def _about_entry(entry: registry.Entry) -> str:
    return f"registry entry of machine {entry.name!r} (pid {entry.pid})"
