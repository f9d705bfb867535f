"""The page that shows what is in a bundle, made by the command line in a process of its own."""

import contextlib
import importlib.util
import os
import subprocess
import sys
import threading
import time

NAME = "report.html"
_AT_ONCE = threading.BoundedSemaphore(max(1, (os.cpu_count() or 1)))
"""Many machines may fail at once."""
_NEEDS = ("click", "jinja2")
_MOST_SAID = 500


class ReportFailed(Exception):
    """There is none, for this reason."""


def can_be_made() -> bool:
    """The extra `cli` is installed."""
    return all(importlib.util.find_spec(module) is not None for module in _NEEDS)


def make(bundle: str, seconds: float) -> int:
    """Have it in the bundle; its size. Waits for so many seconds at most.

    :raises ReportFailed: when there is none.
    """
    deadline = time.monotonic() + seconds
    late = ReportFailed(f"it was not made within {seconds:.1f} s")
    if not _AT_ONCE.acquire(timeout=max(0.0, seconds)):
        raise late
    try:
        path = os.path.join(bundle, NAME)
        if not sys.executable:
            raise ReportFailed("where Python is, this program does not know")
        # -P: the current directory may have anything in it that is named as a module is.
        command = [sys.executable, "-P", "-m", "vmfsm", "report", bundle, "-o", path]
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=max(0.0, deadline - time.monotonic()),
            check=False,
        )
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()[-_MOST_SAID:]
            raise ReportFailed(f"vmfsm report failed: {said}")
        os.chmod(path, 0o600)
        return os.path.getsize(path)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(OSError):  # it may have been there already: it is either there or missing
            os.unlink(path)
        raise late from None
    except OSError as error:
        raise ReportFailed(str(error)) from error
    finally:
        _AT_ONCE.release()
