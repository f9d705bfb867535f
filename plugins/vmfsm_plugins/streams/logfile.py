"""A file that gets what QEMU writes as it comes."""

import os
import time
from collections.abc import Callable


def is_path(value: object) -> bool:
    """Whether it has the shape of a path."""
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    return isinstance(path, str) and path != "" and "\0" not in path


def numbered(path: str, launch: int) -> str:
    """Where the `launch`th launch of a machine writes, so that it keeps what the earlier ones wrote.

    `vm.log`, `vm.2.log`, …; always `path` itself where that is no ordinary file, but a device, say.
    """
    path = os.path.abspath(path)
    if launch == 1 or (os.path.exists(path) and not os.path.isfile(path)):
        return path
    root, extension = os.path.splitext(path)
    return f"{root}.{launch}{extension}"


class LogFile:
    """Written at once, never waited for, and given up at its first error. On one thread only.

    A file of the same name from an earlier run is truncated.

    :param timestamps: begin each line with the time (UTC).
    :param failed: called with what went wrong, once; the file is not written after that.
    """

    def __init__(self, path: str, failed: Callable[[str], object], *, timestamps: bool = False) -> None:
        self.path = path
        self.whole = True
        """It holds everything so far."""
        self._failed = failed
        self._timestamps = timestamps
        self._at_line_start = True
        self._fd = -1
        try:
            # O_NONBLOCK is for pipes and terminals: nobody's slow reader may hold up the I/O thread.
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY
            self._fd = os.open(path, flags, 0o666)
        except OSError as error:
            self._give_up(error)

    def write(self, data: bytes) -> None:
        if self._fd < 0 or not data:
            return
        if self._timestamps:
            data = self._stamped(data)
        try:
            written = os.write(self._fd, data)
            while written < len(data):
                written += os.write(self._fd, data[written:])
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _give_up(self, error: OSError) -> None:
        self.whole = False
        self.close()
        self._failed(f"cannot write {self.path}: {error.strerror or error}")

    def _stamped(self, data: bytes) -> bytes:
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z "
        prefix = stamp.encode()
        first = prefix if self._at_line_start else b""
        self._at_line_start = data.endswith(b"\n")
        end = b"\n" if self._at_line_start else b""
        return first + data.removesuffix(b"\n").replace(b"\n", b"\n" + prefix) + end
