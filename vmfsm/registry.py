"""The machines of this user on this host, of all programs: which live, and which were left by the dead.

    from vmfsm import registry

    for machine in registry.machines():
        print(machine.status.value, machine.name, machine.pid)
    registry.clean_up()

Each program that launches machines has a file here, with a line when a launch begins, when QEMU is started,
and when nothing of the launch is left. So what outlives its program is found: by that program's watchdog, by
the next one that uses vmfsm, or by `clean_up`. A process is known by pid and start time, in its boot and pid
namespace, so nobody else's is ever taken for it. Linux only; elsewhere the registry is empty.
"""

import contextlib
import enum
import errno
import fcntl
import itertools
import json
import math
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from . import proc

__all__ = ["Entry", "Harness", "Status", "clean_up", "machines"]

MARK = "VMFSM_LAUNCH"
"""The environment variable by which the processes of a launch are known, and what they have started."""

_SUFFIX = ".1.jsonl"
"""Of files, with the version of their format."""
_SOCKET = ".sock"
"""Of the socket at which that program can be asked."""
_NEW = ".new"
"""Of one that is being written anew, in addition."""
_LARGEST = 64 * 1024
"""Bytes of a file, after which it is written anew."""
_MOST = 16 * 1024 * 1024
"""Bytes of a file that are read: what thousands of machines come to, when it is about to be written anew."""
_PATIENCE = 4.0
"""Seconds until a process that SIGKILL does not end is given up: the kernel or another user holds it."""
_PAUSE = 0.02
_LOCK_TRIES = 50
"""A millisecond apart."""
_QUIET = 3
"""After so many rounds in a row in which there was none, none is left: not even one that was being forked."""


class Status(enum.Enum):
    """What a registered launch is."""

    LIVE = "live"
    """The program that launched it lives."""
    ORPHANED = "orphaned"
    """That program has died, and processes of the launch live."""
    STALE = "stale"
    """That program has died, and only files are left."""
    FOREIGN = "foreign"
    """It is of another pid namespace (a container, say), host or user; it can't be known from here."""


class Harness(NamedTuple):
    """The program that launched it."""

    pid: int
    start_time: int
    """As of `proc(5)`: clock ticks since the boot."""
    command: tuple[str, ...]


class Entry(NamedTuple):
    """A registered launch."""

    status: Status
    name: str
    """The machine's."""
    pid: int | None
    """QEMU's (or its wrapper's); `None` before that was started."""
    start_time: int | None
    """QEMU's, as of `proc(5)`: clock ticks since the boot."""
    companions: tuple[tuple[int, int], ...]
    """Pid and start time of each that was started."""
    harness: Harness
    uid: int
    boot_id: str
    """Of the host, when it was launched."""
    pid_namespace: int
    since: float
    """When it was launched: seconds since the epoch."""
    directory: str
    """The machine's private directory."""
    sockets: tuple[str, ...]
    """Sockets outside of that."""
    directories: tuple[str, ...]
    """Directories beside it."""
    mark: str
    """The value of `VMFSM_LAUNCH` in its processes' environment."""
    file: str
    """What this was read from."""


def directory() -> str:
    """Where the registry is: in `XDG_RUNTIME_DIR`, or else with the user's number in the temporary directory.

    Made where it is missing, for this user only (0700). A runtime directory that is another user's, as `su`
    leaves it in the environment, is none, nor is a relative path.

    :raises OSError: where it can't be made, or is somebody else's, or open to others.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    is_valid = os.path.isabs(runtime) and os.path.isdir(runtime)
    if is_valid and os.stat(runtime).st_uid == os.geteuid():
        path = os.path.join(runtime, "vmfsm")
    else:
        namespace = proc.user_namespace()  # the root of a container is not the one of the host
        suffix = "" if namespace is None else f"-{namespace}"
        path = os.path.join(tempfile.gettempdir(), f"vmfsm-registry-{os.geteuid()}{suffix}")
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise PermissionError(f"the registry is not a directory that is this user's alone: {path}")
    return path


def machines() -> list[Entry]:
    """The registered launches, oldest first. Never waits.

    :raises OSError: as of `clean_up`.
    """
    if sys.platform != "linux":
        return []
    entries = [entry for file in _files(directory()) for entry in _read(file)]
    return sorted(entries, key=lambda entry: entry.since)


def clean_up() -> list[Entry]:
    """Kill and remove what dead programs of this user have left; what that was.

    Waits until it is gone, some tenths of a second where there were processes, and four seconds for one that
    can't be killed (it is another user's, say); that stays registered, with its files. From any thread, and
    beside others who do the same. What lives is not touched.

    :raises OSError: as of `directory`; or `/proc` is missing, or that of another pid namespace.
    """
    return sweep(directory()) if sys.platform == "linux" else []


def sweep(path: str) -> list[Entry]:
    """`clean_up` in the registry at `path`."""
    # First which are over, then what is in them: a program that dies meanwhile is for the next time.
    over = [file for file in _files(path) if _is_over(file)]
    left = {file: _read(file) for file in over}
    if not _kill([entry for entries in left.values() for entry in entries]):
        left = {file: entries for file, entries in left.items() if not any(map(_is_orphan, entries))}
    for file, entries in left.items():
        _remove(file, entries)
    return [entry for entries in left.values() for entry in entries]


def bury(path: str, harness: proc.Identity, token: str) -> None:
    """The same after one program, which has ended. For its watchdog.

    :param path: the registry.
    :param token: of the program's `Ledger`, and what the marks of its launches begin with, also of those that
        could not be registered.
    """
    file = _file(path, proc.boot_id(), proc.pid_namespace(), harness, token)
    entries = _read(file)
    is_forking = _is_locked(file)  # by a child that was forked, and has not executed its program yet
    is_done = _kill(entries, prefix=f"{token}-")
    if is_forking:
        _await_unlocked(file)
        is_done = _kill(entries, prefix=f"{token}-")
    if is_done:
        _remove(file, entries)


def kill_marked(mark: str) -> None:
    """Kill what there is of one launch of this process, of which nothing is to live any more.

    Waits until it is gone; mostly there is nothing.
    """
    killed: set[int] = set()
    search = _Search(lambda process: process.environment(MARK) == mark)
    latest = time.monotonic() + _PATIENCE
    while time.monotonic() < latest:
        found = search.processes()
        for process in found:
            process.kill()
        killed = {pid for pid in killed | {process.pid for process in found} if _is_unreaped(pid)}
        if not found and not killed and not search.unknown:
            return
        time.sleep(_PAUSE)


def _is_unreaped(pid: int) -> bool:
    """Whether it is a child of this process (a subreaper then, prctl(2)) that can't be reaped yet."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == 0
    except ChildProcessError:
        return False


def _remove(file: str, entries: list[Entry]) -> None:
    """The files of dead launches, and last the one that tells of them."""
    for entry in entries:
        for path in entry.sockets:
            with contextlib.suppress(OSError):
                if os.path.isabs(path) and stat.S_ISSOCK(os.lstat(path).st_mode):
                    os.unlink(path)
        for path in entry.directories:
            if _is_private(path):
                shutil.rmtree(path, ignore_errors=True)
        if os.path.isabs(entry.directory) and os.path.basename(entry.directory).startswith("vmfsm-"):
            shutil.rmtree(entry.directory, ignore_errors=True)
    _unlink(file + _NEW)
    _unlink(socket_of(file))
    _unlink(file)


def _is_private(path: str) -> bool:
    """Whether it may be a machine's: a directory that is this user's alone, and not their home around it."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    home = os.path.realpath(os.path.expanduser("~"))
    return (
        os.path.isabs(path)
        and stat.S_ISDIR(found.st_mode)
        and found.st_uid == os.geteuid()
        and not found.st_mode & 0o077
        and os.path.commonpath([home, os.path.realpath(path)]) != os.path.realpath(path)
    )


def _unlink(file: str) -> None:
    with contextlib.suppress(OSError):  # it is gone, or somebody has put there what is no file
        os.unlink(file)


class Ledger:
    """The file of this process. On one thread.

    Appended to, since that costs a launch less than a file of its own to make and to remove.

    :param path: the registry.
    :param token: this program's own: one that executes another program goes on with its pid and start time.
    :raises OSError: as the system says.
    """

    def __init__(self, path: str, harness: Harness, token: str) -> None:
        boot_id, namespace = proc.boot_id(), proc.pid_namespace()
        self._program = {
            "harness": harness,
            "uid": os.geteuid(),
            "boot_id": boot_id,
            "pid_namespace": namespace,
        }
        self._path = _file(path, boot_id, namespace, proc.Identity(*harness[:2]), token)
        self.socket = socket_of(self._path)
        """Where this program can be asked, if it answers."""
        self.descriptor = _open_locked(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._size = 0
        self._present: dict[str, dict[str, Any]] = {}

    def begin(self, mark: str, **fields: Any) -> None:
        """A launch begins. :raises OSError: as the system says; nothing is written then, as below."""
        self._set(mark, {**self._program, "mark": mark, "since": time.time(), **_NOTHING_YET, **fields})

    def update(self, mark: str, **fields: Any) -> None:
        """More is known of it."""
        self._set(mark, self._present[mark] | fields)

    def end(self, mark: str) -> None:
        """Nothing of it is left."""
        self._present.pop(mark, None)
        if not self._present:
            os.ftruncate(self.descriptor, 0)
            self._size = 0
        else:
            self._append({"mark": mark})

    def _set(self, mark: str, fields: dict[str, Any]) -> None:
        self._present[mark] = fields
        self._append(fields)

    def _append(self, fields: dict[str, Any]) -> None:
        if self._size > _LARGEST:
            self._write_anew()
        # A line that a full disk has cut is no part of this one.
        line = b"\n" + json.dumps(fields).encode() + b"\n"
        self._size += os.write(self.descriptor, line)

    def _write_anew(self) -> None:
        """With those that there are, whole or not at all."""
        new = self._path + _NEW
        lines = b"".join(json.dumps(fields).encode() + b"\n" for fields in self._present.values())
        fd = _open_locked(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        try:
            if os.write(fd, lines) < len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), new)
            os.rename(new, self._path)
            os.dup2(fd, self.descriptor, inheritable=False)
        except OSError:
            _unlink(new)
            raise
        finally:
            os.close(fd)
        self._size = 0  # it may have grown by as much again before the next time


_NOTHING_YET: dict[str, Any] = {
    "pid": None,
    "start_time": None,
    "companions": (),
    "sockets": (),
    "directories": (),
}


def _file(path: str, boot_id: str, pid_namespace: int, harness: proc.Identity, token: str) -> str:
    """The name says whose it is, whatever is in it."""
    name = f"{boot_id}_{pid_namespace}_{harness.pid}_{harness.start_time}_{token}{_SUFFIX}"
    return os.path.join(path, name)


def socket_of(file: str) -> str:
    """Where the program that writes this file can be asked (`vmfsm.control`), if it answers at all."""
    directory, name = os.path.split(file)
    pid, _, token = name.removesuffix(_SUFFIX).split("_")[-3:]
    return os.path.join(directory, f"{pid}-{token}{_SOCKET}")


def sockets() -> list[tuple[proc.Identity, str]]:
    """The programs of this user that live here and have used machines, each with where it can be asked.

    :raises OSError: as of `clean_up`.
    """
    if sys.platform != "linux":
        return []
    here = proc.boot_id(), proc.pid_namespace()
    programs = [(_program(file), file) for file in _files(directory())]
    return [
        (program[2], socket_of(file))
        for program, file in programs
        if program is not None and program[:2] == here and not program[2].is_over
    ]


def _files(path: str) -> Iterator[str]:
    return (os.path.join(path, name) for name in os.listdir(path) if name.endswith(_SUFFIX))


def _is_over(file: str) -> bool:
    """Whether the program that has written it is known to have ended."""
    program = _program(file)
    if program is None:
        return False  # somebody else's
    boot_id, namespace, harness = program
    if boot_id != proc.boot_id():
        return not _is_locked(file)
    return namespace == proc.pid_namespace() and not harness.is_alive


def _program(file: str) -> tuple[str, int, proc.Identity] | None:
    """Boot, pid namespace and process of the program that writes it, which its name says."""
    try:
        boot_id, *numbers, _ = os.path.basename(file).removesuffix(_SUFFIX).split("_")
        namespace, pid, start_time = map(int, numbers)
    except ValueError:
        return None
    return boot_id, namespace, proc.Identity(pid, start_time)


def _open_locked(file: str, flags: int) -> int:
    """Locked as long as it is open: who has another boot id (a host, some containers) sees that we live."""
    fd = os.open(file, flags, 0o600)
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # somebody looks just now whether it is
            time.sleep(0.001)
        except OSError:  # not all file systems have locks
            break
        else:
            break
    return fd


def _is_locked(file: str) -> bool:
    """Whether its program lives somewhere, or that can't be known."""
    try:
        fd = os.open(file, os.O_RDWR | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def _await_unlocked(file: str) -> None:
    """For a while: a child that does not mean to execute anything has the lock for as long as it lives."""
    latest = time.monotonic() + _PATIENCE
    while time.monotonic() < latest and _is_locked(file):
        time.sleep(_PAUSE)


def _read(file: str) -> list[Entry]:
    """Its entries. Lines that are none (the last one may be half written) are left out."""
    present: dict[str, Entry] = {}
    for line in _content(file).split(b"\n"):
        # A line of nothing but brackets is deeper than Python reads.
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
            fields = json.loads(line.decode("utf-8", "surrogateescape"))
            present.pop(fields["mark"], None)
            if len(fields) > 1:
                entry = _entry(fields, file)
                present[entry.mark] = entry
    return [entry._replace(status=_status(entry)) for entry in present.values()]


def _content(file: str) -> bytes:
    """What is in it, as far as a program would write; nothing where it is no ordinary file."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)  # it may be a FIFO, or lead anywhere
    except OSError:
        return b""
    with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
        stack.callback(os.close, fd)
        if stat.S_ISREG(os.fstat(fd).st_mode):
            with open(fd, "rb", closefd=False) as lines:
                return lines.read(_MOST)
    return b""


def _entry(fields: dict[str, Any], file: str) -> Entry:
    """:raises ValueError, KeyError, TypeError: for what is none."""
    pid, start_time, command = fields.pop("harness")
    companions, sockets, directories = map(fields.pop, ("companions", "sockets", "directories"))
    if not all(isinstance(several, list) for several in (command, companions, sockets, directories)):
        raise TypeError  # a path, taken for several, would begin with the one of all directories
    entry = Entry(
        Status.FOREIGN,
        harness=Harness(pid, start_time, tuple(command)),
        companions=tuple((pid, start_time) for pid, start_time in companions),
        sockets=tuple(sockets),
        directories=tuple(directories),
        file=file,
        **fields,
    )
    numbers = [pid, start_time, entry.uid, entry.pid_namespace, *itertools.chain(*entry.companions)]
    numbers += [number for number in (entry.pid, entry.start_time) if number is not None]
    texts = [entry.mark, entry.boot_id, *entry.harness.command]
    paths = [entry.name, entry.directory, *entry.sockets, *entry.directories]
    if not (
        all(type(number) is int for number in numbers)
        and all(isinstance(text, str) for text in texts + paths)
        and not any(b"\0" in os.fsencode(path) for path in paths)  # which raises for half a character
        and isinstance(entry.since, int | float)
        and 0 <= entry.since < math.inf
    ):
        raise ValueError
    return entry


def _status(entry: Entry) -> Status:
    if entry.uid != os.geteuid():
        return Status.FOREIGN
    if entry.boot_id != proc.boot_id():
        return Status.FOREIGN if _is_locked(entry.file) else Status.STALE
    if entry.pid_namespace != proc.pid_namespace():
        return Status.FOREIGN
    if not proc.Identity(*entry.harness[:2]).is_over:
        return Status.LIVE
    return Status.ORPHANED if _search([entry], _sessions([entry])).processes() else Status.STALE


def _is_orphan(entry: Entry) -> bool:
    return _status(entry) is Status.ORPHANED


def _sessions(entries: list[Entry]) -> dict[int, proc.Identity]:
    """Those of QEMUs and companions that are theirs still: whose leaders are there, be it as zombies.

    (An adopted QEMU may lead none.)

    A session without one may be another's, whose leader was given the same number later.
    """
    leaders = [
        proc.Identity(entry.pid, entry.start_time) for entry in entries if entry.pid and entry.start_time
    ]
    leaders += [proc.Identity(*companion) for entry in entries for companion in entry.companions]
    return {leader.pid: leader for leader in leaders if proc.identify(leader.pid) == leader}


class _Search:
    """For living processes, again and again.

    :param is_one: whether it is looked for.
    """

    def __init__(self, is_one: Callable[[proc.Process], bool]) -> None:
        self.unknown: set[proc.Identity] | None = None
        """Those that could not be told from others yet, since they were executing a program all the time."""
        self._is_one = is_one

    def processes(self) -> set[proc.Identity]:
        """Those that there are now."""
        found, executing = set(), set()
        for process in proc.living():
            if self._is_one(process):
                found.add(process.identity)
            elif process.is_executing:
                executing.add(process.identity)
        self.unknown = executing if self.unknown is None else self.unknown & executing
        return found


def _search(entries: list[Entry], sessions: dict[int, proc.Identity], prefix: str | None = None) -> _Search:
    """For the processes of these: by their environment, and by their sessions."""
    marks = {entry.mark for entry in entries}

    def is_one(process: proc.Process) -> bool:
        if sessions.get(process.identity.pid) == process.identity:
            return True  # also where it is in a session of somebody else's
        leader = sessions.get(process.session)
        # As long as one of a session lives, the kernel gives its number to no other process.
        if leader is not None and proc.identify(leader.pid) in {None, leader}:
            return True
        mark = process.environment(MARK)
        return mark is not None and (mark in marks or (prefix is not None and mark.startswith(prefix)))

    return _Search(is_one)


def _kill(entries: list[Entry], prefix: str | None = None) -> bool:
    """Kill what there is of these, and of marks that begin so; whether nothing is left."""
    entries = [entry for entry in entries if entry.boot_id == proc.boot_id()]
    if not entries and prefix is None:
        return True
    quiet = 0
    search = _search(entries, _sessions(entries), prefix)  # before the sessions' leaders are killed
    latest = time.monotonic() + _PATIENCE
    while time.monotonic() < latest:
        found = search.processes()
        quiet = 0 if found or search.unknown else quiet + 1
        if quiet == _QUIET:
            return True
        for process in found:
            process.kill()
        time.sleep(_PAUSE)
    return not found
