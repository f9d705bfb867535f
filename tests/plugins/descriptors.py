"""What is open in processes, for tests of descriptors that are passed."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from typing import IO

from vmfsm import Machine

What = tuple[int, int]
"""Device and inode of what a descriptor is open on."""


@contextlib.contextmanager
def some_files(count: int) -> Iterator[list[IO[bytes]]]:
    """Files without names."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(tempfile.TemporaryFile()) for _ in range(count)]


def what(file: "IO[bytes] | int | str | os.PathLike[str]", pid: int | None = None) -> What:
    """What a file is, or a descriptor (of this process, or of another one), or what is at a path."""
    if isinstance(file, int):
        found = os.stat(f"/proc/{pid or os.getpid()}/fd/{file}")
    else:
        found = os.stat(file if isinstance(file, str | os.PathLike) else file.fileno())
    return found.st_dev, found.st_ino


def open_in(pid: int) -> dict[int, What]:
    """What the descriptors of a process are open on."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            found[int(name)] = what(int(name), pid)
    return found


def has_open(vm: Machine, file: "IO[bytes] | int") -> bool:
    """Whether QEMU has a descriptor for this file, or for what this descriptor is open on."""
    assert vm.pid
    return what(file) in open_in(vm.pid).values()


def sets(vm: Machine) -> dict[int, set[tuple[str | None, What]]]:
    """What is in QEMU's sets: `opaque`, and what the descriptor is open on."""
    return {
        fdset["fdset-id"]: {(fd.get("opaque"), what(fd["fd"], vm.pid)) for fd in fdset["fds"]}
        for fdset in vm.qmp.execute("query-fdsets")
    }
