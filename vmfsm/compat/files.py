"""The files of a machine: its temporary directory, and QEMU's log."""

import os
import shutil
import tempfile
import threading
import weakref
from typing import BinaryIO

_open_logs: set[str] = set()
"""Those that machines of this process are writing."""
_opening = threading.Lock()


# So that the clean-up of finalizers is registered with `atexit` now, and not after what old code registers
# there: what is called first may need the directory.
weakref.finalize(threading, int).detach()


class TempDir:
    """A private directory (0700), made when it is first needed; it does not outlive its owner."""

    def __init__(self, owner: object, base: str) -> None:
        """:raises OSError: as the system says."""
        self.path = tempfile.mkdtemp(prefix="qemu-machine-", dir=base)
        self._finalizer = weakref.finalize(owner, _remove, self.path, os.getpid())

    def remove(self) -> None:
        """:raises OSError: as the system says."""
        self._finalizer.detach()
        if os.path.lexists(self.path):
            shutil.rmtree(self.path)


def _remove(path: str, pid: int) -> None:
    if os.getpid() == pid:  # not in a forked child: it is its parent's
        shutil.rmtree(path, ignore_errors=True)


def open_log(directory: str, name: str) -> tuple[str, BinaryIO]:
    """A file for what QEMU writes, and its path: empty, and no other living machine's of this process.

    :raises OSError: as the system says.
    """
    with _opening:
        path = os.path.join(directory, f"{name}.log")
        number = 2
        while os.path.realpath(path) in _open_logs:
            path = os.path.join(directory, f"{name}.{number}.log")
            number += 1
        file = open(path, "wb")  # noqa: SIM115 - open as long as QEMU lives
        _open_logs.add(os.path.realpath(path))
        return path, file


def release_log(path: str) -> None:
    """The machine that wrote it is done with it."""
    _open_logs.discard(os.path.realpath(path))


def read_log(path: str) -> str:
    """All of it, as text of the locale's encoding; what is none is replaced.

    :raises OSError: as the system says.
    """
    with open(path, encoding="locale", errors="replace") as file:
        return file.read()
