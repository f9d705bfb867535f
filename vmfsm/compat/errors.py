"""What the drop-in raises: the old exceptions, each raised from the one of vmfsm, or the cause itself.

    QEMUMachineError
     +-- QEMUMachineAddDeviceError      never raised, but imported by old code
     +-- VMLaunchFailure                (also what it was raised from) launch() failed; nothing is left of it
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

from vmfsm.errors import printable


class QEMUMachineError(Exception):
    """Root of what the machine raises."""


class QEMUMachineAddDeviceError(QEMUMachineError):
    """For code that catches it. Nothing raises it."""


class VMLaunchFailure(QEMUMachineError):
    """`launch()` did not bring QEMU up. Why is its `__cause__`.

    It is also of its cause's kind, so that code from when that was raised as it was catches it, too:
    `ConnectError`, `OSError`, `TimeoutError`, a signal handler's own.

    :ivar exitcode: QEMU's exit status; `None` where no process was made.
    :ivar command: the command line, its words joined by spaces; empty where it was not composed yet.
    :ivar output: what QEMU wrote to stdout and stderr; `None` where its log was not opened.
    """

    def __init__(self, exitcode: int | None, command: str, output: str | None) -> None:
        self.args = (exitcode, command, output)
        self.exitcode = exitcode
        self.command = command
        self.output = output

    @classmethod
    def of(
        cls, cause: Exception, exitcode: int | None, command: str, output: str | None
    ) -> "VMLaunchFailure":
        """One that is of the cause's kind, too, and has what the cause has."""
        try:
            kind = _of_kind(type(cause))
            failure = kind.__new__(kind)
            for name in ("errno", "strerror", "filename", "filename2"):  # of `OSError`, in no `__dict__`
                if getattr(cause, name, None) is not None:
                    setattr(failure, name, getattr(cause, name))
            failure.__dict__.update({**cause.__dict__, "__notes__": []})
            VMLaunchFailure.__init__(failure, exitcode, command, output)
        except (TypeError, AttributeError):  # a class of which there can be no other objects than its own
            failure = VMLaunchFailure(exitcode, command, output)
        return failure

    def __reduce__(self) -> tuple[object, ...]:
        return VMLaunchFailure, (self.exitcode, self.command, self.output)

    def __str__(self) -> str:
        cause = self.__cause__
        text = "" if cause is None else str(cause)
        lines = ["" if cause is None else type(cause).__name__ + (f": {text}" if text else "")]
        if self.exitcode is not None:
            lines.append(f"\tExit code: {self.exitcode}")
        lines += [f"\tCommand: {self.command}", f"\tOutput: {self.output}"]
        return printable("\n".join(lines))


def _of_kind(cause: type[Exception]) -> type[VMLaunchFailure]:
    if issubclass(VMLaunchFailure, cause):
        return VMLaunchFailure
    return type(VMLaunchFailure.__name__, (VMLaunchFailure, cause), {"__module__": __name__})


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
