"""Short-lived machines that find out what a QEMU can do."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from . import plugins
from .deadline import Deadline
from .errors import AbnormalExit, LaunchError, MachineDied, MachineTimeout, VMError
from .machine import Machine

FAREWELL = 10.0
"""Seconds for a QEMU that was asked something to end; mostly it takes some milliseconds."""


class Ran(NamedTuple):
    """What became of a QEMU that ended by itself."""

    status: int
    output: str


class Asking:
    """One binary being asked by as many machines as it takes, all of them by one deadline.

    Third-party plugins take no part in it. Everything here waits, and may be called from any thread but the
    I/O thread, except `cancel`, which never waits.
    """

    def __init__(self, binary: str, env: Mapping[str, str | None], deadline: Deadline) -> None:
        self.binary = binary
        self.deadline = deadline
        self._env = env
        self._cancelled = False
        self._machines: set[Machine] = set()

    def cancel(self) -> None:
        """End what is going on and start nothing more: whoever asks gets an error."""
        self._cancelled = True
        for machine in tuple(self._machines):
            machine._kill_now()

    def check(self) -> None:
        """:raises VMError: when it was cancelled or the deadline is over."""
        if self.deadline.expired:
            error = MachineTimeout(f"asking {self.binary} timed out after {self.deadline.timeout:g} s")
            error.operation, error.timeout = "capabilities", self.deadline.timeout
            raise error
        if self._cancelled:
            raise MachineDied(f"asking {self.binary} was cancelled")

    def run(self, name: str, args: Sequence[str]) -> Ran:
        """Run QEMU with arguments that make it end by itself.

        :raises VMError: when it cannot be run, or does not end.
        """
        machine = self._machine(name, args, keep=("logs",), display=None)
        with self._entered(machine):
            try:
                machine.launch(self.deadline.as_timeout())
                self.check()
                machine.wait(self.deadline.as_timeout())
            except AbnormalExit:
                pass
            except LaunchError:
                if machine.exit_status is None:
                    raise  # there was no process
            self.check()
            if machine.exit_status is None:
                raise LaunchError("exit statuses cannot be had where this process ignores SIGCHLD")
            return Ran(machine.exit_status, machine.log.text)

    @contextlib.contextmanager
    def monitored(
        self,
        name: str,
        args: Sequence[str],
        limit: Deadline,
        *,
        given: Sequence[object] = (),
        wrapper: Sequence[str] = (),
    ) -> Iterator[Machine]:
        """A machine that was launched, with its monitor. It is gone after the block.

        :raises VMError: what `launch` raises.
        """
        machine = self._machine(name, args, keep=("logs", "qmp"), given=given, wrapper=wrapper)
        with self._entered(machine):
            machine.launch(limit.as_timeout())
            self.check()
            yield machine

    def _machine(
        self,
        name: str,
        args: Sequence[str],
        *,
        keep: Sequence[str],
        display: str | None = "none",
        given: Sequence[object] = (),
        wrapper: Sequence[str] = (),
    ) -> Machine:
        machine = Machine(
            self.binary,
            args,
            name=name,
            wrapper=wrapper,
            env=self._env,
            display=display,
            plugins=given,
            block=[plugin for plugin in plugins.installed() if plugin not in keep],
        )
        if self.deadline.clock is not None:
            machine._clock = self.deadline.clock  # while who asks is held, no time passes here either
        return machine

    @contextlib.contextmanager
    def _entered(self, machine: Machine) -> Iterator[None]:
        self._machines.add(machine)
        try:
            self.check()
            yield
        finally:
            self._machines.discard(machine)
            with contextlib.suppress(VMError):  # it has said what it was asked, or failed to
                machine.kill(FAREWELL)
