"""One run: a `Machine` of its own for each launch, so that nothing of an earlier one can leak into it."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence

from vmfsm import (
    ConfigError,
    LaunchError,
    LaunchPlan,
    Machine,
    MachineTimeout,
    PluginError,
    VMError,
    hookimpl,
)
from vmfsm.exit_guard import ExitGuard
from vmfsm.holding import await_unkept
from vmfsm.plugins import installed

from .errors import QEMUMachineError
from .monitor import Monitor
from .process import QEMUProcess

_OUTPUT = 64 * 1024
"""Bytes of QEMU's output that errors show the end of."""

# Now, so that what old code registers by `atexit` is called first: its machines live until then.
ExitGuard.get()


class _Process:
    """The plugin that has QEMU started as old code expects it."""

    name = "compat"

    def __init__(
        self,
        output: int,
        log_path: str | None,
        sockets: Sequence[str],
        temp_dir: str | None,
        started: "subprocess.Popen[bytes] | None",
        *,
        is_wrapped: bool,
    ) -> None:
        self._is_wrapped = is_wrapped
        self._sockets = [os.path.abspath(path) for path in sockets]
        self._temp_dir = temp_dir
        self._started = started
        self._output = output
        self._log_path = log_path
        self.plan: LaunchPlan | None = None

    @hookimpl
    async def pre_launch(self, plan: LaunchPlan) -> None:
        self.plan = plan
        plan.inherit_fds = True
        plan.is_wrapped = self._is_wrapped
        plan.output = self._output
        plan.on_evidence(self._evidence)
        if self._sockets:  # they are removed also where nobody cleans up: at exit, or when this process dies
            plan.sockets += self._sockets
            plan.defer(self._remove_sockets)
        if self._temp_dir is not None:
            plan.directories.append(self._temp_dir)
        if self._started is not None:
            plan.adopt(self._started)

    def _remove_sockets(self) -> None:
        for path in self._sockets:
            with contextlib.suppress(OSError):  # the clean-up of the machine tells of it
                os.unlink(path)

    def _evidence(self) -> Mapping[str, object]:
        if self._log_path is None:
            return {}
        with open(self._log_path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _OUTPUT))
            return {"output": file.read().decode(errors="replace")}


class Run:
    """From before QEMU is started to when nothing is left of it.

    :param command: all of the command line.
    :param output: the descriptor that becomes QEMU's stdout and stderr.
    :param log_path: the file behind it, if it is one.
    :param monitor: `None`: QEMU has none.
    :param plugins: more of them.
    :param is_wrapped: the command line begins with a wrapper.
    :param sockets: the files that are to be removed at the end.
    :param temp_dir: the directory that is to be removed should this process be killed.
    :param started: QEMU, where it was started already.
    :raises QEMUMachineError: for a command line that can't be one.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        output: int,
        log_path: str | None,
        monitor: Monitor | None,
        plugins: Sequence[object],
        sockets: Sequence[str],
        temp_dir: str | None,
        is_wrapped: bool,
        started: "subprocess.Popen[bytes] | None",
    ) -> None:
        self.process: QEMUProcess | None = None
        self._plugin = _Process(output, log_path, sockets, temp_dir, started, is_wrapped=is_wrapped)
        mine = [self._plugin, *plugins, *([] if monitor is None else [monitor.plugin])]
        # What runs already need not be found.
        binary, *args = command if started is None else [sys.executable]
        try:
            self.machine = Machine(
                binary,
                args,
                name=re.sub(r"[^A-Za-z0-9._+@:-]", "_", name)[:64].lstrip(".+@:-") or "qemu",
                display=None,
                plugins=mine,
                # The recorder adds nothing to the command line; it is off where nobody asks for it.
                block=[plugin for plugin in installed() if plugin != "recorder"],
            )
        except ConfigError as wrong:
            raise QEMUMachineError(str(wrong)) from wrong
        except PluginError as error:  # a signal handler's exception that hit one of our plugins
            raise error.__cause__ or error from None
        ExitGuard.get().spare(self.machine)

    def start(self, timeout: float | None) -> QEMUProcess:
        """Start QEMU; its process, which may have ended by now.

        :raises OSError: as the system says, where there is none.
        :raises LaunchError: when there is none for another reason.
        """
        failure: LaunchError | None = None
        try:
            self.machine.launch(timeout)
        except LaunchError as error:
            failure = error
        plan = self._plugin.plan
        if plan is not None and plan.pid is not None:
            self.process = QEMUProcess(self.machine, plan.pid, self.machine.command)
        late = failure is not None and isinstance(failure.__cause__, MachineTimeout)
        if self.process is None or late:
            assert failure is not None
            raise failure.__cause__ if isinstance(failure.__cause__, OSError) else failure
        return self.process

    def await_unkept(self) -> None:
        """Wait until nobody keeps the machine for a look at it (`Machine.hold`)."""
        if self.machine._launch is not None:
            await_unkept(self.machine, self.machine._launch)

    def kill(self) -> None:
        """Let nothing be left, however far it came."""
        with contextlib.suppress(VMError):
            self.machine.kill()
