"""`QEMUMachine`: the life of a machine, with the old methods called when the old ones were."""

import contextlib
import logging
import os
import signal
import socket
import subprocess
from types import TracebackType
from typing import BinaryIO, Self

from qemu.qmp import QMPError

from vmfsm import Deadline, Secrets, VMError
from vmfsm.holding import hold_failure
from vmfsm.redaction import redact_command

from .clean_up import do_all
from .commands import Commands
from .console import Console
from .console_socket import PATIENCE, ConsoleSocket
from .errors import AbnormalShutdown, QEMUMachineAddDeviceError, QEMUMachineError, VMLaunchFailure
from .files import open_log, read_log, release_log
from .limits import seconds
from .monitor import Monitor
from .process import QEMUProcess
from .run import Run
from .transport import Listener, Pair

__all__ = (  # old code imports all of these from here
    "AbnormalShutdown",
    "QEMUMachine",
    "QEMUMachineAddDeviceError",
    "QEMUMachineError",
    "VMLaunchFailure",
)

LOG = logging.getLogger("qemu.machine.machine")

_KILLED = 60.0
"""Seconds for QEMU to end after SIGKILL; only one stuck in the kernel takes longer than milliseconds."""


class QEMUMachine(Commands):
    """A QEMU virtual machine, launched, stopped and launched again any number of times.

    As a context manager it shuts the machine down at the end; it does not launch it.
    """

    _popen: subprocess.Popen[bytes] | QEMUProcess | None = None
    _launched = False
    _launched_by = 0
    _is_clean = True
    _user_killed = False
    _user_terminated = False
    _run: Run | None = None
    _qemu_log_path: str | None = None
    _qemu_log_file: BinaryIO | None = None
    _iolog: str | None = None
    _console_socket: ConsoleSocket | None = None
    _console_file: socket.SocketIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            try:
                if error is not None and self._run is not None:
                    hold_failure(self._run.machine, error)
            finally:
                self.shutdown()
        except Exception as trouble:
            if error is None:
                raise
            error.add_note(f"and with {self._name}: {type(trouble).__name__}: {trouble}")

    # -- what it is -----------------------------------------------------------------------------------------

    def is_running(self) -> bool:
        """Whether QEMU lives."""
        return self._popen is not None and self._popen.poll() is None

    def exitcode(self) -> int | None:
        """QEMU's exit status, or minus the number of a signal; `None` while it lives and before."""
        return None if self._popen is None else self._popen.poll()

    def get_pid(self) -> int | None:
        """QEMU's process id (or that of what wraps it) while it lives."""
        return self._popen.pid if self._popen is not None and self.is_running() else None

    def get_log(self) -> str | None:
        """What QEMU wrote to stdout and stderr, when the run has been cleaned up after; `None` before."""
        return self._iolog

    # -- launch ---------------------------------------------------------------------------------------------

    def launch(self) -> None:
        """Start QEMU and wait until its monitor is there.

        :raises VMLaunchFailure: when that fails, which is also of the kind of what it is raised from; nothing
            is left then.
        :raises QEMUMachineError: when it is launched already; nothing has changed.
        """
        if self._launched:
            raise QEMUMachineError("VM already launched")
        self._popen = self._iolog = None
        self._qemu_full_args = ()
        self._run = None
        self._is_clean = False
        self._quit_issued = self._user_killed = self._user_terminated = False
        try:
            self._launch()
        except BaseException as error:
            LOG.debug("launching failed: %r", error)
            try:
                self._abandon()
            except Exception as trouble:  # noqa: BLE001 - it must not hide why the launch failed
                error.add_note(f"and then: {type(trouble).__name__}: {trouble}")
            if not isinstance(error, Exception):
                raise
            raise VMLaunchFailure.of(
                error, self.exitcode(), self._command_shown, self._output_shown
            ) from error

    def _launch(self) -> None:
        self._pre_launch()
        LOG.debug("VM launch command: %r", self._command_shown)
        self._popen = self._start(None)
        self._launched = True
        self._post_launch()

    def _start(self, started: "subprocess.Popen[bytes] | None") -> QEMUProcess:
        self._run = Run(
            self._name,
            self._qemu_full_args,
            output=1 if self._qemu_log_file is None else self._qemu_log_file.fileno(),
            log_path=self._qemu_log_path,
            monitor=self._monitor,
            plugins=self._run_plugins(),
            sockets=self._remove_files,
            temp_dir=self._temp_dir,
            is_wrapped=bool(self._wrapper),
            started=started,
        )
        return self._run.start(self._qmp_timer)

    def _run_plugins(self) -> list[object]:
        """What else takes part in the run."""
        return [] if self._console is None else self._console.plugins

    def _pre_launch(self) -> None:
        self._drop_attempt()
        self._launched_by = os.getpid()
        self._is_clean = False  # here, too, for a subclass that has its own `launch`
        if self._qmp_set:
            limit = seconds(self.qmp_command_timeout, "qmp_command_timeout")
            self._transport = self._make_transport()
            self._monitor = Monitor(self._name, self._transport, limit)
        if self._console_set:
            path = (
                None if self._sock_dir is None else os.path.join(self._sock_dir, f"{self._name}-console.sock")
            )
            if path is not None:
                os.stat(os.path.dirname(path) or ".")  # says what is missing, which QEMU would only log
                self._remove_files.append(path)
            self._console = Console(path, self._console_log_path, self._base_temp_dir)
        self._qemu_log_path, self._qemu_log_file = open_log(self.log_dir, self._name, self)
        self._iolog = None
        self._qemu_full_args = self._compose()

    def _drop_attempt(self) -> None:
        """Let nothing be left of a launch that a subclass begins again."""
        self._kill()
        self._run = self._popen = None
        self._close_sockets()
        if self._qemu_log_file is not None:
            self._qemu_log_file.close()

    def _make_transport(self) -> Pair | Listener:
        address = self._monitor_address
        if address is None and self._sock_dir is not None:
            address = os.path.join(self._sock_dir, f"{self._name}-monitor.sock")
        if address is None:
            return Pair()
        if isinstance(address, str):
            self._remove_files.append(address)
        try:
            return Listener(address)
        except OSError:
            if isinstance(address, str):
                self._remove_files.remove(address)  # it is somebody else's
            raise

    def _adopt(self) -> None:
        if self._run is None and isinstance(self._popen, subprocess.Popen):
            self._start(self._popen)  # a subclass has its own `_launch`

    def _post_launch(self) -> None:
        self._adopt()
        if isinstance(self._transport, Pair):
            self._transport.ends[0].close()
        if self._monitor is not None:
            self._monitor.accept(self._qmp_timer)
        if self._console is not None:
            assert self._run is not None
            self._console.attach(self._run.machine)

    def _abandon(self) -> None:
        """The launch has failed: let nothing be left of it."""
        self._user_killed = True
        if self._popen is None and self._run is not None:
            self._popen = self._run.process
        try:
            if self._popen is not None:
                self._early_cleanup()
        finally:
            try:
                self._kill()
            finally:
                self._finish()

    def _kill(self) -> None:
        """Let no QEMU live, however far the launch came."""
        if self._run is not None:
            self._run.kill()
        if isinstance(self._popen, subprocess.Popen) and self._popen.poll() is None:  # it was not adopted yet
            self._popen.kill()
            self._popen.wait(_KILLED)

    # -- the end --------------------------------------------------------------------------------------------

    def shutdown(self, hard: bool = False, timeout: float | None = 30, *, has_quit: bool = False) -> None:
        """End QEMU, and clean up. Nothing happens where nothing is launched.

        :param hard: kill it.
        :param timeout: seconds for QEMU to be asked, and to go, until it is killed; `None`: no limit.
        :param has_quit: it was asked already.
        :raises AbnormalShutdown: when it had to be killed, or had ended badly.
        :raises MisuseError: for a `timeout` that is none; QEMU lives on then.

        Whatever else it raises, be it a signal handler's exception, QEMU is gone then.
        """
        if not self._launched or os.getpid() != self._launched_by:
            return  # in a forked child it is its parent's
        seconds(timeout)  # says whether it is one
        LOG.debug("shutdown: hard=%s timeout=%s", hard, timeout)
        try:
            if hard:
                self._user_killed = True
                self._hard_shutdown()
            else:
                if self._run is not None:
                    self._run.await_unkept()
                self._quit_issued |= has_quit
                self._do_shutdown(timeout)
        finally:
            try:
                if self.is_running():
                    self._user_killed = True
                    self._kill()
            finally:
                self._finish()

    def kill(self) -> None:
        """Kill QEMU, and clean up."""
        self.shutdown(hard=True)

    def wait(self, timeout: float | None = 30) -> None:
        """Wait until QEMU has ended by itself, and clean up.

        :raises AbnormalShutdown: when it has not by then, so that it was killed.
        """
        seconds(timeout)
        if self._launched:
            self._quit_issued = True
        self.shutdown(timeout=timeout)

    def _early_cleanup(self) -> None:
        """Stop holding the console, which QEMU might wait for. May be called twice."""
        if self._console_file is not None:
            self._console_file.close()
            self._console_file = None
        if self._console_socket is not None:
            self._console_socket.close()
            self._console_socket = None
        if self._console is not None:
            self._console.close()
            self._console = None

    def _do_shutdown(self, timeout: float | None) -> None:
        """Ask QEMU to go; where that fails, kill it."""
        try:
            self._soft_shutdown(timeout)
        except (subprocess.TimeoutExpired, QMPError, QEMUMachineError, VMError) as error:
            code = self.exitcode()
            if code == 0:
                return  # however it came to that, it ended well
            LOG.debug("graceful shutdown failed: killing", exc_info=True)
            why = _why_not_graceful(code, error)
            self._hard_shutdown()
            raise AbnormalShutdown(f"Could not perform graceful shutdown: {why}") from error

    def _soft_shutdown(self, timeout: float | None) -> None:
        """Ask QEMU to go, unless there is no time for it to, and wait until it has; all within `timeout`."""
        run = self._run
        deadline = Deadline(seconds(timeout)) if run is None else run.machine.deadline(seconds(timeout))
        self._early_cleanup()
        is_asked = self._quit_issued or deadline.expired
        if self._monitor is not None:
            try:
                if not (is_asked or self._monitor.quit_seen):
                    with self._monitor.by(deadline):
                        self.qmp("quit")
            finally:
                self._close_qmp_connection()
        elif not is_asked:
            self._user_terminated = True
            self._subp.terminate()
        try:
            self._subp.wait(deadline.as_timeout())
        except subprocess.TimeoutExpired as late:
            late.timeout = deadline.timeout or 0.0  # all of it, not what was left for this part
            raise

    def _hard_shutdown(self) -> None:
        """Kill QEMU."""
        self._early_cleanup()
        self._subp.kill()
        self._subp.wait(_KILLED)

    @property
    def _subp(self) -> QEMUProcess:
        self._adopt()
        if self._run is None or self._run.process is None:
            raise QEMUMachineError("there is no QEMU")
        return self._run.process

    def _close_qmp_connection(self) -> None:
        """Leave the monitor, if there is one."""
        monitor, self._monitor = self._monitor, None
        if monitor is not None:
            monitor.close()

    def _finish(self) -> None:
        try:
            self._post_shutdown()
        finally:
            self._clean_up()  # where a subclass's raised before it came to ours, or an interrupt came before

    def _post_shutdown(self) -> None:
        """QEMU has ended, or there was none: let nothing be left but the exit status and the log."""
        self._clean_up()

    def _clean_up(self) -> None:
        with self._cleaning:  # another thread may kill QEMU while this one waits for its end
            if self._is_clean:
                return
            do_all(
                self._leave_monitor,
                self._close_sockets,
                self._close_qemu_log_file,
                self._load_io_log,
                self._forget_log,
                self._remove_temp_dir,
                self._remove_sockets,
                self._warn_of_signal,
                self._forget_run,
            )

    def _leave_monitor(self) -> None:
        try:
            self._close_qmp_connection()
        except (QMPError, QEMUMachineError, VMError, OSError) as error:
            LOG.warning("closing the monitor: %s", error)

    def _close_sockets(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._transport = None
        if self._console is not None:
            self._console.close()
            self._console = None

    def _forget_log(self) -> None:
        if self._qemu_log_path is not None:
            release_log(self._qemu_log_path)
            self._qemu_log_path = None

    def _remove_temp_dir(self) -> None:
        try:
            if self._temp is not None:
                self._temp.remove()
            self._temp = self._temp_dir = None
        except OSError:
            self._temp = self._temp_dir = None  # what can't be removed is not used again either
            raise

    def _remove_sockets(self) -> None:
        while self._remove_files:
            self._remove_if_exists(self._remove_files[-1])
            self._remove_files.pop()

    def _warn_of_signal(self) -> None:
        code = self.exitcode()
        # QEMU handles SIGTERM, but not in its first moments.
        ours = {-signal.SIGKILL: self._user_killed, -signal.SIGTERM: self._user_terminated}
        if code is not None and code < 0 and not ours.get(code, False):
            LOG.warning("qemu received signal %i; command: %r", -code, self._command_shown)

    @property
    def _command_shown(self) -> str:
        """The command line without secrets: old code prints it."""
        return " ".join(redact_command(self._qemu_full_args))

    @property
    def _output_shown(self) -> str | None:
        """What QEMU said, without those of its command line, which it quotes."""
        secrets = Secrets()
        secrets.learn_command(self._qemu_full_args)
        return None if self._iolog is None else secrets.redact(self._iolog)

    def _forget_run(self) -> None:
        self._quit_issued = self._user_killed = self._user_terminated = self._launched = False
        self._is_clean = True

    # -- files ----------------------------------------------------------------------------------------------

    def _close_qemu_log_file(self) -> None:
        """Have QEMU write to this process's stdout instead, where it is not started yet."""
        if self._qemu_log_file is not None:
            self._qemu_log_file.close()
            self._qemu_log_file = None

    def _load_io_log(self) -> None:
        """Have `get_log` tell what QEMU has written so far."""
        if self._qemu_log_path is not None:
            self._iolog = read_log(self._qemu_log_path)

    @staticmethod
    def _remove_if_exists(path: str) -> None:
        """:raises OSError: for any other reason than that there is none."""
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)

    # -- the console ----------------------------------------------------------------------------------------

    @property
    def console_socket(self) -> socket.socket:
        """A socket to read the console from, and to write to it; made when it is first used.

        :raises QEMUMachineError: where there is no console.
        """
        if self._console_socket is None:
            if self._console is None:
                raise QEMUMachineError("there is no console: set_console was not called before launch")
            self._console_socket = ConsoleSocket(sock_fd=self._console.connect())
            if self._drain_console:
                self._console_socket.settimeout(PATIENCE)  # as any that drains
        return self._console_socket

    @property
    def console_file(self) -> socket.SocketIO:
        """A binary file, unbuffered, over `console_socket`."""
        if self._console_file is None:
            self._console_file = self.console_socket.makefile("rwb", buffering=0)
        return self._console_file


def _why_not_graceful(code: int | None, error: Exception) -> str:
    """In one line.

    :param code: QEMU's exit status; `None`: it lives.
    """
    if code is not None:
        return f"QEMU had ended with {f'status {code}' if code >= 0 else f'signal {-code}'}"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"QEMU had not ended after {error.timeout:g} s, and was killed"
    reason = " ".join(str(error).split())
    return f"QEMU was killed, after {type(error).__name__}{f': {reason}' if reason else ''}"
