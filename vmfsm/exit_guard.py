"""No machine outlives a harness that ends by itself: by its end, `sys.exit`, or an exception nobody caught.

`atexit` alone is too late: it runs after all other threads were joined, and one that waits for a machine
would never be. So a thread of ours waits for the main thread's end. The threads of pools
(`concurrent.futures`) are joined earlier still, before the main thread counts as ended.
"""

import atexit
import contextlib
import importlib
import os
import threading
import weakref
from typing import TYPE_CHECKING

from .errors import printable
from .observers import tell_all
from .perprocess import per_process

if TYPE_CHECKING:
    from .machine import Machine


class ExitGuard:
    """Knows the machines that may have a QEMU, and kills them when the interpreter exits."""

    def __init__(self) -> None:
        self._machines: set[Machine] = set()
        self._spared: weakref.WeakSet[Machine] = weakref.WeakSet()
        self._pid = os.getpid()
        importlib.import_module("concurrent.futures.thread")  # takes its place first: last come, first called
        threading.Thread(target=self._await_main_thread, name="vmfsm-exit", daemon=True).start()
        atexit.register(self._kill_all, of_all=True)
        self._come_before_pools()

    @classmethod
    def get(cls) -> "ExitGuard":
        return per_process(cls)

    def add(self, machine: "Machine") -> None:
        """This machine may have a QEMU from now on."""
        self._machines.add(machine)

    def discard(self, machine: "Machine") -> None:
        """Nothing of this machine is left."""
        self._machines.discard(machine)

    def spare(self, machine: "Machine") -> None:
        """Let it live until functions that were registered by `atexit` after this guard have been called.

        For code that ends its machines there; what waits for one in another thread keeps the interpreter.
        """
        self._spared.add(machine)

    @property
    def machines(self) -> "tuple[Machine, ...]":
        """Those that may have a QEMU, or something else that is not cleaned up. From any thread."""
        return tuple(self._machines)

    def _come_before_pools(self) -> None:
        # Private to Python; where it is missing, who waits in a pool keeps the interpreter waiting.
        register = getattr(threading, "_register_atexit", None)
        if register is not None:
            with contextlib.suppress(RuntimeError):  # the exit has begun
                register(self._kill_all)

    def _await_main_thread(self) -> None:
        threading.main_thread().join()
        self._kill_all()

    def _kill_all(self, *, of_all: bool = False) -> None:
        if os.getpid() != self._pid:
            return  # a forked child exits; the machines are its parent's
        for machine in self.machines:
            machine._holds.close()  # else who ends one might wait for ever
        machines = [machine for machine in self.machines if of_all or machine not in self._spared]
        for machine in machines:
            machine._kill_now()
        for machine in machines:
            try:
                machine.shutdown(timeout=10)  # SIGKILL is sent; it tells also of clean-up that is over
            except BaseException as error:  # noqa: BLE001 - a hook's `sys.exit`, say: the others still come
                # Not through logging, which may have been shut down already.
                said = printable(str(error))
                os.write(2, f"{machine.name}: at exit: {said}\n".encode(errors="backslashreplace"))
        tell_all()
