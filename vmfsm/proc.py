"""What the system says of processes: `proc(5)`, `pid_namespaces(7)`, `pidfd_open(2)`.

A pid alone names a process only while that lives; with its start time and the boot it does for good. Nothing
is imported but the standard library: the watchdog starts fast.
"""

import contextlib
import functools
import os
import select
import signal
from collections.abc import Iterator
from typing import NamedTuple

_HOSTS_USERS = 0xEFFFFFFD
"""The number of the first user namespace is a constant, `PROC_USER_INIT_INO` of Linux."""
_PF_EXITING, _PF_KTHREAD = 0x00000004, 0x00200000
"""Of Linux, among the flags of a thread."""


class Identity(NamedTuple):
    """A process, told from every other one of this boot and pid namespace."""

    pid: int
    start_time: int
    """In clock ticks since the boot."""

    @property
    def is_alive(self) -> bool:
        """It has not ended; a zombie has, once all its threads have.

        :raises OSError: where that can't be had just now: no descriptor is free, say.
        """
        stat = _stat(self.pid)
        return stat is not None and stat.start_time == self.start_time and stat.is_alive

    @property
    def is_over(self) -> bool:
        """It has ended, or does nothing any more but that.

        The kernel closes the files of who is killed, and so its sockets, before it tells that it has ended,
        and how long before is up to the load. All of its threads have their flag by then.

        :raises OSError: as of `is_alive`.
        """
        try:
            threads = os.listdir(f"/proc/{self.pid}/task") if self.is_alive else ()
        except FileNotFoundError:
            return True
        stats = [_stat(self.pid, f"task/{thread}/stat") for thread in threads]
        return all(stat is None or stat.flags & _PF_EXITING for stat in stats)

    def kill(self) -> bool:
        """Send SIGKILL to this process and no other one; whether it was alive."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except OSError:
            return False
        try:
            if not self.is_alive:  # asked only now: the descriptor holds on to whoever has the pid
                return False
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            return True
        except OSError:
            return False
        finally:
            os.close(pidfd)


def identify(pid: int) -> Identity | None:
    """The process that has this pid now, be it a zombie.

    :raises OSError: as of `Identity.is_alive`.
    """
    stat = _stat(pid)
    return None if stat is None else Identity(pid, stat.start_time)


def boot_id() -> str:
    """Another one after each boot."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def pid_namespace() -> int:
    """In which pids mean what they mean here; containers have others.

    :raises OSError: where `/proc` is missing, or tells of another one, so that nobody is found by pid.
    """
    if os.readlink("/proc/self") != str(os.getpid()):
        raise OSError("/proc is that of another pid namespace")
    return os.stat("/proc/self/ns/pid").st_ino


def user_namespace() -> int | None:
    """In which users' numbers mean what they mean here; `None` for the host's own."""
    number = os.stat("/proc/self/ns/user").st_ino
    return None if number == _HOSTS_USERS else number


class Process:
    """A process that lives, as `proc(5)` shows it."""

    def __init__(self, identity: Identity, session: int, *, is_kernels: bool) -> None:
        self.identity = identity
        self.session = session
        self._is_kernels = is_kernels

    @functools.cached_property
    def _environ(self) -> bytes:
        return _read(self.identity.pid, "environ")

    def environment(self, name: str) -> str | None:
        """What the variable was when it was started; `None` where there was none, or it can't be had."""
        start = f"{name}=".encode()
        for variable in self._environ.split(b"\0"):
            if variable.startswith(start):
                return variable.removeprefix(start).decode("utf-8", "surrogateescape")
        return None

    @property
    def is_executing(self) -> bool:
        """It is between two programs, execve(2): for a moment nobody sees the environment it will have."""
        return not (self._is_kernels or self._environ or _read(self.identity.pid, "cmdline"))


def living() -> Iterator[Process]:
    """All processes that live.

    :raises OSError: as of `Identity.is_alive`.
    """
    for name in os.listdir("/proc"):
        stat = _stat(int(name)) if name.isdecimal() else None
        if stat is not None and stat.is_alive:
            identity = Identity(int(name), stat.start_time)
            yield Process(identity, stat.session, is_kernels=bool(stat.flags & _PF_KTHREAD))


def wait_for_end(pidfd: int) -> None:
    """Until the process has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll()


def parent(pid: int) -> int:
    """The process that it is a child of; 0 where there is none that can be seen, or it has gone."""
    stat = _stat(pid)
    return 0 if stat is None else stat.parent


class _Stat(NamedTuple):
    state: str
    parent: int
    session: int
    flags: int
    threads: int
    start_time: int

    @property
    def is_alive(self) -> bool:
        return self.state not in "ZX" or self.threads > 1  # its first thread may end before the others


def _stat(pid: int, name: str = "stat") -> _Stat | None:
    fields = _read(pid, name).rpartition(b") ")[2].split()
    if len(fields) < 20:
        return None
    return _Stat(fields[0].decode(), *(int(fields[number]) for number in (1, 3, 6, 17, 19)))


def _read(pid: int, name: str) -> bytes:
    # Empty only for one that has gone, or is somebody else's: who can't look must not take it for dead.
    gone = contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError)
    with gone, open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
        parts = []
        while part := file.read(65536):
            parts.append(part)
        return b"".join(parts)
    return b""
