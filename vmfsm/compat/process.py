"""QEMU's process, in the shape of a `subprocess.Popen`."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence

from vmfsm import GuestPanicked, Machine, MachineTimeout, TransitionError, VMError

from .limits import seconds

_REAPED = 5.0
"""Seconds for a process that has ended to have been reaped; only a debugger holds that up."""


class QEMUProcess:
    """What `_popen` is, during a run and after it. All is done by the machine, which reaps it."""

    stdin = stdout = stderr = None

    def __init__(self, machine: Machine, pid: int, args: Sequence[str]) -> None:
        self._machine = machine
        self.pid = pid
        self.args = tuple(args)

    def __repr__(self) -> str:
        return f"<QEMUProcess pid={self.pid} returncode={self.returncode}>"

    @property
    def returncode(self) -> int | None:
        """Its exit status, or minus the number of a signal; `None` as long as it lives."""
        return self.poll()

    def poll(self) -> int | None:
        """The same."""
        if self._machine.pid is not None:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(_REAPED)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        :raises subprocess.TimeoutExpired: when it lives on.
        """
        deadline = self._machine.deadline(seconds(timeout))
        while True:
            try:
                self._machine.wait(deadline.as_timeout())
            except MachineTimeout as late:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0) from late
            except GuestPanicked:
                if self._machine.pid is not None:
                    continue  # what the guest does is no end of QEMU
            except TransitionError:
                raise  # in a forked child it is its parent's
            except VMError:
                pass  # how it ended is for others to judge
            if self._machine.pid is not None:  # stuck in the kernel, though it was sent SIGKILL
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            return self._machine.exit_status or 0

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it lives; to itself only, not to a group."""
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(self.pid)
            try:
                if self._machine.pid == self.pid:  # only now is it sure whose it is
                    signal.pidfd_send_signal(pidfd, number)
            finally:
                os.close(pidfd)

    def terminate(self) -> None:
        """Send SIGTERM, by which QEMU ends well, once it handles it."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it and all that is in its process group, and wait for the end of that."""
        with contextlib.suppress(VMError):
            self._machine.kill()
