"""No machine outlives a harness that ends by itself: by its end, `sys.exit`, or an exception nobody caught.

`atexit` alone is too late: it runs after all other threads were joined, and one that waits for a machine
would never be. So a thread of ours waits for the main thread's end.
"""

import atexit
import os
import threading
from typing import TYPE_CHECKING

from .errors import VMError

if TYPE_CHECKING:
    from .machine import Machine

_live: "set[Machine]" = set()
_watching: threading.Thread | None = None
_start_lock = threading.Lock()


def watch() -> None:
    """Begin to wait for the end, once per process."""
    global _watching
    if _watching is None:
        with _start_lock:
            if _watching is None:
                _watching = threading.Thread(target=_await_main_thread, name="vmfsm-exit", daemon=True)
                _watching.start()
                atexit.register(_kill_all)


def add(machine: "Machine") -> None:
    """This machine may have a QEMU from now on."""
    _live.add(machine)


def discard(machine: "Machine") -> None:
    """Nothing of this machine is left."""
    _live.discard(machine)


def _await_main_thread() -> None:
    threading.main_thread().join()
    _kill_all()


def _kill_all() -> None:
    for machine in tuple(_live):
        try:
            machine.kill()
        except VMError as error:
            _report(machine, error)


def _report(machine: "Machine", error: VMError) -> None:
    # The logging module may have been shut down already.
    os.write(2, f"{machine.name}: at exit: {error}\n".encode(errors="backslashreplace"))


def _forget_in_child() -> None:
    global _watching, _start_lock
    _live.clear()
    _watching = None
    _start_lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_in_child)
