"""Directories whose files hang whoever opens them, as a network file system does whose server is gone."""

import contextlib
import ctypes
import errno
import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

_FAN_CLASS_CONTENT = 0x4
_FAN_CLOEXEC = 0x1
_FAN_MARK_ADD = 0x1
_FAN_MARK_MOUNT = 0x10
_FAN_OPEN_PERM = 0x10000
_FAN_EVENT_ON_CHILD = 0x8000000
_FAN_ONDIR = 0x40000000
_AT_FDCWD = -100


class Hung:
    """The kernel asks us about each open, and gets no answer (`fanotify(7)`, `FAN_OPEN_PERM`)."""

    def __init__(self, directory: Path, *, whole_mount: bool) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.fanotify_init(_FAN_CLASS_CONTENT | _FAN_CLOEXEC, os.O_RDONLY)
        if self._fd < 0 and ctypes.get_errno() == errno.EPERM:
            pytest.skip("fanotify_init(2) is not permitted: it takes CAP_SYS_ADMIN")
        assert self._fd >= 0, os.strerror(ctypes.get_errno())
        events = ctypes.c_uint64(_FAN_OPEN_PERM | (_FAN_ONDIR if whole_mount else _FAN_EVENT_ON_CHILD))
        flags = _FAN_MARK_ADD | (_FAN_MARK_MOUNT if whole_mount else 0)
        marked = libc.fanotify_mark(self._fd, flags, events, _AT_FDCWD, os.fsencode(directory))
        assert marked == 0, os.strerror(ctypes.get_errno())

    @property
    def holds(self) -> bool:
        """Somebody hangs."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(0))

    def release(self) -> None:
        """Let all go on."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


@contextlib.contextmanager
def hung(directory: Path, *, whole_mount: bool = False) -> Iterator[Hung]:
    """What is opened in `directory` hangs, until it is released, at the latest at the end.

    :param whole_mount: and whatever is below it: it is where a file system is mounted.
    """
    it = Hung(directory, whole_mount=whole_mount)
    try:
        yield it
    finally:
        it.release()
