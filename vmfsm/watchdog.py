"""The program of a process that outlives its harness by a moment, to kill and remove what that leaves.

There is one for each process that launches machines; `vmfsm.ownership` starts it. It sleeps until the harness
has ended, however that was. It need not be told of launches: what there is to kill and to remove is in the
registry by then, and in the environment of the processes.
"""

import contextlib
import os
import signal
import threading
import time

from . import proc, registry

# The package itself would import much that is not needed here.
PROGRAM = """
import sys, types
package = types.ModuleType("vmfsm")
package.__path__ = [sys.argv[1]]
sys.modules["vmfsm"] = package
from vmfsm.watchdog import main
main(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5])
"""

NAME = "vmfsm-watchdog"
"""Of its process, so that who ends all of Python's does not end it as well."""


_TRIES = 100
"""How often it is tried to clean up, a tenth of a second apart."""
_SWEEP = 30.0
"""Seconds that a sweep may take longer than the harness lived."""


def main(harness_pid: int, harness_start_time: int, registry_path: str, token: str) -> None:
    """Watch, clean up, and end.

    :param token: the harness's, as of `registry.bury`.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)  # those of a terminal or a service are the harness's
    with contextlib.suppress(OSError), open("/proc/self/comm", "w", encoding="ascii") as file:
        file.write(NAME)
    os.chdir("/")
    sweeping = threading.Thread(target=_sweep, args=(registry_path,), daemon=True)
    harness = proc.Identity(harness_pid, harness_start_time)
    with contextlib.suppress(ProcessLookupError):  # it has ended already; nothing else may pass for that
        pidfd = os.pidfd_open(harness_pid)
        if harness.is_alive:
            # Beside, since it may take long, and this harness may end at any moment.
            _start(sweeping)
            proc.wait_for_end(pidfd)
    for _ in range(_TRIES):
        with contextlib.suppress(OSError):  # the system has no descriptors or memory left, say
            registry.bury(registry_path, harness, token)
            break
        time.sleep(0.1)
    if sweeping.ident is None:
        _start(sweeping)
    if sweeping.ident is not None:
        sweeping.join(_SWEEP)


def _start(thread: threading.Thread) -> None:
    with contextlib.suppress(RuntimeError):  # the system has no thread left
        thread.start()


def _sweep(registry_path: str) -> None:
    """After those who died together with their watchdogs."""
    with contextlib.suppress(OSError):
        registry.sweep(registry_path)
