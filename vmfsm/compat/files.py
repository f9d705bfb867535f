"""The files of a machine: its temporary directory, and QEMU's log."""

import os
import shutil
import threading
import weakref
from typing import BinaryIO

from vmfsm.caller import insist
from vmfsm.logpaths import open_for_log

_writers: "weakref.WeakValueDictionary[str, object]" = weakref.WeakValueDictionary()
"""The machines of this process, by the files that they write."""
_opening = threading.Lock()


# So that the clean-up of finalizers is registered with `atexit` now, and not after what old code registers
# there: what is called first may need the directory.
weakref.finalize(threading, int).detach()


class TempDir:
    """A private directory (0700), which does not outlive its owner.

    Not made by its constructor: whoever is interrupted while it is made has it already, to remove it.
    """

    def __init__(self, owner: object, base: str) -> None:
        self.path = os.path.join(os.path.abspath(base), f"qemu-machine-{os.urandom(6).hex()}")
        self._finalizer = weakref.finalize(owner, _remove, self.path, os.getpid())

    def make(self) -> None:
        """:raises OSError: as the system says."""
        os.mkdir(self.path, 0o700)

    def remove(self) -> None:
        """:raises OSError: as the system says."""
        if os.path.lexists(self.path):
            shutil.rmtree(self.path)
        self._finalizer.detach()


def _remove(path: str, pid: int) -> None:
    if os.getpid() == pid:  # not in a forked child: it is its parent's
        shutil.rmtree(path, ignore_errors=True)


def open_log(directory: str, name: str, writer: object) -> tuple[str, BinaryIO]:
    """A file for what QEMU writes, and its path: empty, and no other living machine's of this process.

    :param writer: the machine.
    :raises OSError: as the system says.
    """
    with _opening:
        path = os.path.join(directory, f"{name}.log")
        number = 2
        while _writers.get(os.path.realpath(path), writer) is not writer:
            path = os.path.join(directory, f"{name}.{number}.log")
            number += 1
        file = _open(path)
        _writers[os.path.realpath(path)] = writer
        return path, file


def _open(path: str) -> BinaryIO:
    """In a thread of its own: no signal handler's exception can come between a descriptor and its owner."""
    opened: list[BinaryIO | OSError] = []

    def open_it() -> None:
        try:
            file = os.fdopen(open_for_log(path), "wb")
            os.set_blocking(file.fileno(), True)  # it is QEMU's
            opened.append(file)
        except OSError as error:
            opened.append(error)

    opening = threading.Thread(target=open_it, name="vmfsm-log", daemon=True)
    try:
        opening.start()
        opening.join()
    except BaseException as error:
        insist(lambda: opening.join() if opening.is_alive() else None)  # who cleans up is to find the file
        insist(lambda: [file.close() for file in opened if not isinstance(file, OSError)])
        # An exception that hits `start` once the thread has begun is hidden by that of its own clean-up.
        if isinstance(error, KeyError) and error.__context__ is not None:
            raise error.__context__ from None
        raise
    if isinstance(opened[0], OSError):
        raise opened[0]
    return opened[0]


def release_log(path: str) -> None:
    """The machine that wrote it is done with it."""
    _writers.pop(os.path.realpath(path), None)


def read_log(path: str) -> str:
    """All of it, as text of the locale's encoding; what is none is replaced.

    :raises OSError: as the system says.
    """
    with open(path, encoding="locale", errors="replace") as file:
        return file.read()
