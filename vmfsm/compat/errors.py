"""What the drop-in raises: the old exceptions, each raised from the one of vmfsm, or the cause itself.

    QEMUMachineError
     +-- QEMUMachineAddDeviceError      never raised, but imported by old code
     +-- VMLaunchFailure                launch() failed; nothing is left of it
     +-- AbnormalShutdown               QEMU had to be killed, or had ended badly
     +-- MisuseError                    (also an AssertionError) a call that makes no sense
     +-- MonitorInterruptedError        (also an ExecInterruptedError) QEMU ended during a command
     +-- MonitorClosedError             (also a StateError) QEMU had ended before the call, or ended during it
     +-- QtestClosedError               (also an AssertionError, RuntimeError, OSError) no qtest connection
     +-- QtestTimeoutError              (also a TimeoutError) QEMU's qtest server did not answer in time

    QMPTimeoutError                     (a QMPError and a TimeoutError) a command or an event did not come
    QMPBadPortError                     (a QMPError) an address whose port is no number

Those of `qemu.qmp` are raised beside: `ConnectError`, `ExecuteError`.
"""

from qemu.qmp import ExecInterruptedError, QMPError, Runstate, StateError


class QEMUMachineError(Exception):
    """Root of what the machine raises."""


class QEMUMachineAddDeviceError(QEMUMachineError):
    """For code that catches it. Nothing raises it."""


class VMLaunchFailure(QEMUMachineError):
    """`launch()` did not bring QEMU up. Why is its `__cause__`.

    :ivar exitcode: QEMU's exit status; `None` where no process was made.
    :ivar command: the command line, its words joined by spaces; empty where it was not composed yet.
    :ivar output: what QEMU wrote to stdout and stderr; `None` where its log was not opened.
    """

    def __init__(self, exitcode: int | None, command: str, output: str | None) -> None:
        super().__init__(exitcode, command, output)
        self.exitcode = exitcode
        self.command = command
        self.output = output

    def __str__(self) -> str:
        cause = self.__cause__
        text = "" if cause is None else str(cause)
        lines = ["" if cause is None else type(cause).__name__ + (f": {text}" if text else "")]
        if self.exitcode is not None:
            lines.append(f"\tExit code: {self.exitcode}")
        lines += [f"\tCommand: {self.command}", f"\tOutput: {self.output}"]
        return "\n".join(lines)


class AbnormalShutdown(QEMUMachineError):
    """QEMU did not go when asked, so that it was killed, or it had ended with a bad status before."""


class MisuseError(QEMUMachineError, AssertionError):
    """The call makes no sense as it is; nothing was done. Old code asserted that."""


class MonitorInterruptedError(QEMUMachineError, ExecInterruptedError):
    """QEMU ended, or its monitor was lost, before it had answered."""


class MonitorClosedError(QEMUMachineError, StateError):
    """There is no QEMU any more that could answer."""

    def __init__(self, message: str) -> None:
        super().__init__(message, Runstate.IDLE, Runstate.RUNNING)


class QMPBadPortError(QMPError):
    """An address whose port is no number."""


class QMPTimeoutError(QMPError, TimeoutError):
    """QEMU did not answer in time, or the event that was waited for did not come. QEMU lives on."""


class QtestClosedError(QEMUMachineError, AssertionError, RuntimeError, ConnectionError):
    """There is no qtest connection, or there is none any more. Old code raised any of these."""


class QtestTimeoutError(QEMUMachineError, TimeoutError):
    """QEMU's qtest server did not answer in time."""
