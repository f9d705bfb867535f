"""A process of ours, QEMU or a companion: found, spawned, signalled, reaped."""

import asyncio
import contextlib
import errno
import os
import select
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from signal import SIGKILL, Signals

REAP = 5.0
"""Seconds to wait for a process that was sent SIGKILL; only one stuck in the kernel takes longer."""
GROUP = 1.0
"""Seconds to wait for what a process left behind in its group to die of its SIGKILL."""


def find_binary(name: str, path: str | None) -> str:
    """The file that running `name` would execute.

    Looked for before anything wraps it: a wrapper's own "not found" would be a status like any other.

    :param path: the search path that counts, as in the variable `PATH`.
    :raises OSError: a fitting one, saying what was searched.
    """
    found = shutil.which(name, path=path)
    if found is not None:
        return os.path.abspath(found)
    if not os.path.dirname(name):
        raise FileNotFoundError(
            errno.ENOENT, f"no executable in the search path {path or os.defpath!r}", name
        )
    if not os.path.exists(name):
        raise FileNotFoundError(errno.ENOENT, "no such file", name)
    if os.path.isdir(name):
        raise IsADirectoryError(errno.EISDIR, "it is a directory", name)
    raise PermissionError(errno.EACCES, "it is not executable", name)


def environment(differences: Mapping[str, str | None]) -> dict[str, str]:
    """The environment of this process with the differences; `None` takes a variable away."""
    changed = {**os.environ, **differences}
    return {name: value for name, value in changed.items() if value is not None}


def differences(env: Mapping[str, str]) -> dict[str, str | None]:
    """What would make `env` of the environment of this process; `None` takes a variable away."""
    ours = dict(os.environ)
    changed: dict[str, str | None] = {name: value for name, value in env.items() if ours.get(name) != value}
    return changed | dict.fromkeys(ours.keys() - env.keys())


def _group_lives(pgid: int) -> bool:
    """Whether a process of this group is alive. Zombies, which some containers never reap, are not."""
    try:
        os.killpg(pgid, 0)
    except ProcessLookupError:
        return False  # as almost always
    except PermissionError:
        pass
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as stat:
            state, _, group = stat.read().rpartition(b") ")[2].split()[:3]
            if int(group) == pgid and state not in b"ZX":
                return True
    # Orphans are children of a host program that is a subreaper, prctl(2): it has to reap them, and can't
    # before the last of their threads has ended.
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-pgid, os.WNOHANG)[0]:
            pass
        return True
    return False


@contextlib.contextmanager
def _inheritable(fds: Sequence[int]) -> Iterator[None]:
    """Have children inherit descriptors that they would not."""
    changed = [fd for fd in fds if not os.get_inheritable(fd)]
    try:
        for fd in changed:
            os.set_inheritable(fd, True)
        yield
    finally:
        for fd in changed:
            with contextlib.suppress(OSError):  # its owner closed it meanwhile
                os.set_inheritable(fd, False)


def _open_pidfd(pid: int) -> int | None:
    """`None` where the system has no such thing, or does not let us.

    :raises OSError: for any other reason.
    """
    try:
        return os.pidfd_open(pid)
    except AttributeError:
        return None
    except OSError as error:
        if error.errno in {errno.ENOSYS, errno.EPERM}:
            return None
        raise


def _leads_group(popen: "subprocess.Popen[bytes]") -> bool:
    try:
        return popen.returncode is None and os.getpgid(popen.pid) == popen.pid
    except ProcessLookupError:
        return False


_TRACED = 0.02
"""Seconds between two looks at a process that has ended and that a debugger has not let go."""


class Process:
    """A child, in a session and process group of its own, unless it was adopted without one.

    Made, watched and reaped on the I/O thread; `signal` may be called from any thread. Its pid stays its own
    until it is reaped, and nothing is ever sent to it after that.
    """

    def __init__(
        self,
        popen: subprocess.Popen[bytes],
        loop: asyncio.AbstractEventLoop,
        on_exit: Callable[[int | None], object],
        *,
        is_adopted: bool = False,
    ) -> None:
        self.pid = popen.pid
        self.sent: set[Signals] = set()
        """The signals that were sent to it while it lived."""
        self._popen = popen
        self._is_adopted = is_adopted
        self._leads_group = not is_adopted or _leads_group(popen)
        self._loop = loop
        self._on_exit = on_exit
        self._reaping = threading.Lock()
        self._reaped = False
        self._pidfd: int | None = None
        try:
            if popen.returncode is not None:
                raise ProcessLookupError
            self._pidfd = _open_pidfd(popen.pid)
        except ProcessLookupError:  # it has ended, and something in the host program has reaped it already
            self._reaped = True
            status = popen.wait() if is_adopted else None
            popen.returncode = status or 0  # else Popen would wait for the pid
            loop.call_soon(on_exit, status)
            return
        if self._pidfd is not None:
            loop.add_reader(self._pidfd, self._reap)
        else:
            # Not on Linux, or not allowed there: a thread, and what is left of the group lives on.
            threading.Thread(target=self._wait, name=f"vmfsm-wait-{self.pid}", daemon=True).start()

    @classmethod
    def spawn(
        cls,
        command: Sequence[str],
        *,
        executable: str,
        env: Mapping[str, str],
        cwd: str | None,
        fds: Sequence[int],
        inherit_fds: bool,
        output: int | None,
        on_exit: Callable[[int | None], object],
    ) -> "Process":
        """Start `command`. On the I/O thread, since a parent-death signal would follow the creating thread.

        :param fds: the only descriptors, beside the standard three, that it inherits (unless `inherit_fds`).
        :param output: a descriptor for its stdout and stderr; the null device for `None`.
        :param on_exit: called once, on the I/O thread, with the exit status: its value, minus the number of
            the signal it died of, or `None` where it could not be had.
        :raises OSError: as the system says.
        """
        with _inheritable(fds if inherit_fds else ()):
            popen = subprocess.Popen(
                command,
                executable=executable,
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if output is None else output,
                stderr=subprocess.STDOUT,
                close_fds=not inherit_fds,
                pass_fds=() if inherit_fds else fds,
                start_new_session=True,
            )
        try:
            return cls(popen, asyncio.get_running_loop(), on_exit)
        except BaseException:  # no descriptor to watch it by, say
            popen.kill()
            popen.wait()
            raise

    @classmethod
    def adopt(cls, popen: "subprocess.Popen[bytes]", *, on_exit: Callable[[int | None], object]) -> "Process":
        """Take over a child that somebody else started, and who may still wait for it, too.

        Where it leads no process group it is signalled alone: its group is somebody else's.
        """
        return cls(popen, asyncio.get_running_loop(), on_exit, is_adopted=True)

    def signal(self, number: Signals) -> bool:
        """Send a signal to the whole process group, unless its leader has ended. From any thread.

        Returns whether it was sent.
        """
        with self._reaping:
            if self._reaped or self._has_ended():
                return False
            self.sent.add(number)
            self._signal_group(number)
            return True

    @property
    def ended(self) -> bool:
        """Whether it has ended, be it reaped or not. From any thread; without a lock, so it never waits."""
        # Reaped while it was looked, too: then the descriptor was closed, and its number may be another's.
        return self._reaped or self._has_ended() or self._reaped

    def _has_ended(self) -> bool:
        if self._pidfd is None:
            return False
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def _signal_group(self, number: Signals) -> None:
        if not self._leads_group:
            self._popen.send_signal(number)  # it looks first whether the pid is still the child's
            return
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            pass
        except PermissionError:
            # Part of the group changed its user; try at least the leader.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)

    def _reap(self) -> None:
        assert self._pidfd is not None
        self._loop.remove_reader(self._pidfd)
        status: int | None = None
        traced = False
        with self._reaping:
            # ECHILD where the host program ignores SIGCHLD: the kernel threw the status away, and with it
            # the guarantee that the group's number is still ours.
            with contextlib.suppress(ChildProcessError):
                traced = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None
                if not traced and self._leads_group:
                    self._signal_group(SIGKILL)  # what it left behind, while its zombie keeps the number
                if not traced and not self._is_adopted:
                    info = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
                    assert info is not None
                    status = info.si_status if info.si_code == os.CLD_EXITED else -info.si_status
            if not traced and self._is_adopted:
                status = self._popen.wait()  # so that who waits for it, too, is told the same
            self._reaped = not traced
        if traced:  # a debugger has it first, for as long as that likes
            self._loop.call_later(_TRACED, self._reap)
            return
        os.close(self._pidfd)
        self._popen.returncode = 0 if status is None else status  # else Popen would wait for the pid again
        self._tell_when_alone(status, time.monotonic() + GROUP)

    def _tell_when_alone(self, status: int | None, latest: float) -> None:
        """Tell of the exit when what it left behind, and was sent SIGKILL, has ended, too.

        A QEMU behind a wrapper that forks is such a one: until it has ended it keeps its locks on images.
        """
        is_left = status is not None and self._leads_group and _group_lives(self.pid)
        if is_left and time.monotonic() < latest:
            self._loop.call_later(0.002, self._tell_when_alone, status, latest)
        else:
            self._on_exit(status)

    def _wait(self) -> None:
        status: int | None = None
        with contextlib.suppress(ChildProcessError):  # as above
            if self._is_adopted:
                status = self._popen.wait()
            else:
                status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        with self._reaping:
            self._reaped = True
            self._popen.returncode = 0 if status is None else status
        self._loop.call_soon_threadsafe(self._on_exit, status)
