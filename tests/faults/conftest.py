"""What the fault lab needs: machines with the tiny guest, small file systems."""

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.endings import MakeGuest, guests

MakeDisk = Callable[..., Path]


@pytest.fixture
def guest(qemu: str) -> Iterator[MakeGuest]:
    """Makes machines with the tiny guest."""
    with guests(qemu) as make:
        yield make


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[MakeDisk]:
    """Makes file systems with room for so many KiB and so many files; skips where none can be mounted."""
    with contextlib.ExitStack() as stack:

        def make(*, size: int = 64, inodes: int = 0) -> Path:
            path = tmp_path / f"disk-{size}-{inodes}"
            path.mkdir()
            options = f"size={size}k" + (f",nr_inodes={inodes}" if inodes else "") + ",mode=0700"
            mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
            done = subprocess.run(mount, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                pytest.skip(f"a small file system cannot be mounted: {done.stderr.strip()}")
            # Lazily: where a test fails, its machines are still to be ended.
            stack.callback(subprocess.run, ["umount", "--lazy", str(path)], check=True)
            return path

        yield make


def fill(disk: Path) -> None:
    """Take all the room that there is."""
    with contextlib.suppress(OSError), open(disk / "filling", "ab", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
