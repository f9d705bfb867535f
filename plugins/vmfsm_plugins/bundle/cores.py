"""QEMU's core: whether the system has made one of this process, and where (core(5))."""

import glob
import os
import re
import resource
import signal
import stat
from typing import NamedTuple

_PATTERN = "/proc/sys/kernel/core_pattern"
_USES_PID = "/proc/sys/kernel/core_uses_pid"
_CORE = frozenset(
    {
        *(signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGQUIT, signal.SIGSEGV),
        *(signal.SIGSYS, signal.SIGTRAP, signal.SIGXCPU, signal.SIGXFSZ),
    }
)
"""Signals that make one (signal(7))."""
_CLOCKS_APART = 2.0
"""Seconds by which the clocks of two file systems may be."""


class Core(NamedTuple):
    """Where it is, or why it is not here."""

    path: str | None
    why: str


def makes_one(status: int | None) -> bool:
    """Whether a process that ended with this status has crashed."""
    return status is not None and -status in _CORE


def find(pid: int | None, cwd: str | None, since: float) -> Core:
    """That of process `pid`, which has crashed. Asks the system, and may block.

    :param cwd: the process's directory.
    :param since: when it was started, in seconds since 1970.
    """
    try:
        with open(_PATTERN, encoding="utf-8", errors="surrogateescape") as file:
            pattern = file.read().rstrip("\n")
        with open(_USES_PID, encoding="ascii") as file:
            uses_pid = file.read().strip() == "1"
    except OSError as error:
        return Core(None, f"where the system puts cores can't be read: {error}")
    if pattern.startswith("|"):
        return Core(None, _of_helper(pattern[1:].strip(), pid))
    limit = resource.getrlimit(resource.RLIMIT_CORE)[0]
    if limit == 0:
        return Core(
            None, "the limit for cores (RLIMIT_CORE) is 0; 'ulimit -c unlimited' before the tests lifts it"
        )
    if not pattern and not uses_pid:
        return Core(None, f"the system makes none: {_PATTERN} is empty")
    if pid is None or cwd is None:
        return Core(None, "it is not known which process QEMU was")
    where = os.path.join(cwd, as_glob(pattern, pid, uses_pid=uses_pid))
    newest = max(_candidates(where, since), default=None)
    if newest is not None:
        return Core(newest[1], "")
    hint = f", of at most {limit} bytes" if limit != resource.RLIM_INFINITY else ""
    return Core(None, f"there is none at {where} (core_pattern is {pattern!r}{hint})")


def as_glob(pattern: str, pid: int, *, uses_pid: bool) -> str:
    """What core(5) makes of a pattern, with a `*` for what is not known here."""

    def put(match: "re.Match[str]") -> str:
        match match[1]:
            case "%":
                return "%"
            case "p" | "P":
                return str(pid)
            case "":
                return ""
            case _:
                return "*"

    parts = re.split("(%.?)", pattern)
    made = "".join(
        re.sub("%(.?)", put, part) if part.startswith("%") else glob.escape(part) for part in parts
    )
    has_pid = re.search("%[pP]", pattern.replace("%%", ""))
    return made if has_pid or not uses_pid else f"{made}.{pid}"


def _candidates(where: str, since: float) -> list[tuple[float, str]]:
    found = []
    for path in glob.glob(where):
        try:
            state = os.lstat(path)
        except OSError:
            continue
        is_ours = stat.S_ISREG(state.st_mode) and state.st_uid == os.geteuid()
        if is_ours and state.st_mtime >= since - _CLOCKS_APART:
            found.append((state.st_mtime, path))
    return found


def _of_helper(command: str, pid: int | None) -> str:
    program = os.path.basename(command.partition(" ")[0])
    why = f"the system hands cores to a program ({program})"
    if program == "systemd-coredump" and pid is not None:
        return f"{why}; 'coredumpctl dump {pid} --output=core' has it, if that took it"
    return f"{why}, which knows where they are"
