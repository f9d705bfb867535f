"""A file that gets what QEMU writes as it comes."""

import os
import stat
import time
from collections.abc import Callable

from vmfsm import LaunchPlan, open_for_log


def open_log(
    given: "str | os.PathLike[str] | None",
    option: str,
    plan: LaunchPlan,
    name: str,
    failed: Callable[[str], object],
    *,
    timestamps: bool = False,
) -> "LogFile":
    """The file for one launch: the one `given` with `option`, else `name` in the machine's `log_dir`, else
    in its private directory. On the I/O thread only.

    :raises OSError: when it cannot be opened; it says on whose behalf.
    """
    path = plan.log_path(name if given is None else os.path.abspath(given))
    try:
        return LogFile(path, failed, timestamps=timestamps)
    except OSError as error:
        if given is None and plan.log_dir is None:
            raise
        whose = "'log_dir'" if given is None else f"option {option}"
        raise OSError(error.errno, f"{whose}: {error.strerror}", path) from error


class LogFile:
    """Written at once, and given up at the first error. On one thread only.

    A slow reader of a pipe or terminal is never waited for. An ordinary file should be local: it holds
    up the thread for as long as its file system takes, which `O_NONBLOCK` changes nothing about (open(2)).

    What was in the file is removed.

    :param timestamps: begin each line with the time (UTC).
    :param failed: called with what went wrong, once; the file is not written after that.
    :raises OSError: when it cannot be opened. A FIFO without a reader cannot.
    """

    def __init__(self, path: str, failed: Callable[[str], object], *, timestamps: bool = False) -> None:
        self.path = path
        self._failed = failed
        self._timestamps = timestamps
        self._at_line_start = True
        self._file = open(path, "wb", buffering=0, opener=lambda name, _: open_for_log(name))  # noqa: SIM115 - see close
        self.whole = stat.S_ISREG(os.fstat(self._file.fileno()).st_mode)
        """Everything so far can be read from it."""

    def write(self, data: bytes) -> None:
        if self._file.closed or not data:
            return
        if self._timestamps:
            data = self._stamped(data)
        try:
            written = os.write(self._file.fileno(), data)
            while written < len(data):
                written += os.write(self._file.fileno(), data[written:])
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        self._file.close()

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
