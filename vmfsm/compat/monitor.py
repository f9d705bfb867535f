"""What `_qmp` is: QEMU's monitor, in the shape of the old `QEMUMonitorProtocol`."""

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any, Self

from qemu.qmp import ConnectError, ExecuteError, Message, QMPError
from qemu.qmp.models import ErrorResponse
from vmfsm_plugins.qmp import HandedQMP, QMPConnectionError
from vmfsm_plugins.qmp.events import Event, Wanted
from vmfsm_plugins.qmp.request import Request, make_request

from vmfsm import ConfigError, Deadline, MachineDied, MachineTimeout, TransitionError, VMError, check_fd
from vmfsm.errors import printable
from vmfsm.redaction import redact_message

from .errors import (
    MisuseError,
    MonitorClosedError,
    MonitorInterruptedError,
    QEMUMachineError,
    QMPBadPortError,
    QMPTimeoutError,
)
from .limits import seconds
from .transport import Listener, Pair

Wait = bool | float | None

_TAKES_FD = frozenset({"getfd", "add-fd"})


class Monitor:
    """The monitor of one launch. From any thread.

    Commands wait for `timeout` seconds at most, or as long as `settimeout` says.

    :param name: for the logger, `qemu.qmp.protocol.…`, that is told of commands and replies at DEBUG.
    :param transport: where QEMU is met.
    :param timeout: `None`: without limit, as long as QEMU lives.
    """

    def __init__(self, name: str, transport: Pair | Listener, timeout: float | None) -> None:
        self._name = name
        self._log = logging.getLogger(f"qemu.qmp.protocol.{name}")
        self.transport = transport
        self.plugin = HandedQMP(transport)
        """For the machine."""
        self.quit_seen = False
        """QEMU has agreed to go."""
        self._timeout = seconds(timeout)
        self._limit = Deadline(None)
        self._was_interrupted = False
        self._fd: int | None = None

    # -- the connection -------------------------------------------------------------------------------------

    def accept(self, timeout: float | None = 15.0) -> Mapping[str, Any]:
        """Meet QEMU, and negotiate; its greeting.

        :raises ConnectError: when QEMU ends, or does not speak QMP.
        :raises QMPTimeoutError: when it does not come.
        """
        try:
            self.plugin.connect(seconds(timeout))
        except MachineTimeout as late:
            raise QMPTimeoutError(str(late)) from late
        except (MachineDied, TransitionError) as died:
            raise ConnectError("Failed to establish session", EOFError()) from died
        except VMError as error:
            raise ConnectError("Failed to establish session", error) from error
        return self.plugin.greeting

    def connect(self, negotiate: bool = True) -> Mapping[str, Any] | None:
        """As `accept`."""
        greeting = self.accept()
        return greeting if negotiate else None

    def close(self) -> None:
        """Leave the monitor. QEMU lives on."""
        self._drop_fd()
        with contextlib.suppress(MachineDied, TransitionError):
            self.plugin.hang_up()

    @staticmethod
    def parse_address(address: str) -> str | tuple[str, int]:
        """`host:port` as a tuple; what has no colon, or more than one, is a path.

        :raises QMPBadPortError: for a port that is no number.
        """
        host, *port = address.split(":")
        if len(port) != 1:
            return address
        try:
            return host, int(port[0])
        except ValueError:
            raise QMPBadPortError(f"no port: {port[0]!r}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- commands -------------------------------------------------------------------------------------------

    def cmd_raw(self, name: str, args: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Execute a command; the whole reply, `{"return": …}` or `{"error": …}`.

        :raises MonitorInterruptedError: when QEMU ends, or hangs up, before it has answered.
        :raises MonitorClosedError: when it had before.
        :raises QMPTimeoutError: when it does not answer; a later answer is nobody else's.
        """
        return self._exchange(_made(name, args))

    def cmd_obj(self, qmp_cmd: Mapping[str, Any]) -> dict[str, Any]:
        """As `cmd_raw`, for a message: with `execute` or `exec-oob`, and perhaps `arguments` and `id`."""
        key = "exec-oob" if "exec-oob" in qmp_cmd else "execute"
        reply = self._exchange(_made(qmp_cmd.get(key, ""), qmp_cmd.get("arguments"), key=key))
        return {**reply, "id": qmp_cmd["id"]} if "id" in qmp_cmd else reply

    def cmd(self, name: str, /, **kwds: Any) -> Any:
        """As `cmd_raw`; the value of the reply's `return`.

        :raises ExecuteError: when QEMU answers with an error.
        """
        return self.value_of(name, kwds)

    command = cmd

    def value_of(self, name: str, args: Mapping[str, Any] | None) -> Any:
        """The same, with the arguments as they are."""
        request = _made(name, args)
        reply = self._exchange(request)
        if "return" in reply:
            return reply["return"]
        # All of it is shown by the error's `repr`, and QEMU's words by its `str`.
        error = {**reply["error"], "desc": printable(reply["error"]["desc"])}
        sent = Message(redact_message(request.data).encode())
        received = Message({**reply, "error": error, "id": request.number})
        raise ExecuteError(ErrorResponse(received), sent, received)

    def send_fd_scm(self, fd: int) -> None:
        """Have QEMU given a copy of a descriptor with the next `getfd` or `add-fd`; the last one counts.

        :raises QMPError: where the monitor is TCP.
        :raises MisuseError: for what is no open descriptor.
        """
        if not self.is_scm_available():
            raise QMPError("descriptors can't pass over TCP")
        try:
            copy = os.dup(check_fd(fd))
        except ConfigError as wrong:
            raise MisuseError(str(wrong)) from wrong
        self._drop_fd()
        self._fd = copy

    def is_scm_available(self) -> bool:
        """Whether descriptors can pass."""
        return not isinstance(self.transport.address, tuple)

    def get_sock_fd(self) -> int:
        """The descriptor of the connection.

        :raises MonitorClosedError: where there is none.
        """
        try:
            return self.plugin.fileno()
        except TransitionError as never:
            raise MonitorClosedError(str(never)) from never

    def _drop_fd(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def settimeout(self, timeout: float | None) -> None:
        """Seconds for each command from now on; `None`: no limit."""
        self._timeout = seconds(timeout)

    @contextlib.contextmanager
    def by(self, deadline: Deadline) -> Iterator[None]:
        """Have commands end by `deadline`, too."""
        before, self._limit = self._limit, deadline
        try:
            yield
        finally:
            self._limit = before

    def _exchange(self, request: Request) -> dict[str, Any]:
        fd = self._fd if request.command in _TAKES_FD else None
        limit = min(self.plugin.deadline(self._timeout), self._limit, key=_left)
        if self._log.isEnabledFor(logging.DEBUG):
            self._log.debug("--> %s", self.plugin.without_secrets(redact_message(request.data)))
        try:
            reply = self.plugin.exchange(request, fd=fd, timeout=limit.as_timeout())
        except MachineTimeout as late:
            raise self._late(late, limit) from late
        except (MachineDied, QMPConnectionError) as lost:
            raise self._lost(lost) from lost
        except TransitionError as never:
            raise MonitorClosedError(str(never)) from never
        finally:
            if fd is not None:
                self._drop_fd()
        if self._log.isEnabledFor(logging.DEBUG):
            self._log.debug("<-- %s", self.plugin.without_secrets(reply))
        self.quit_seen |= request.command == "quit" and "return" in reply
        return reply

    def _lost(self, error: VMError) -> QEMUMachineError:
        """The first time it is the call that was interrupted; from then on there is no monitor."""
        was_interrupted, self._was_interrupted = self._was_interrupted, True
        return (MonitorClosedError if was_interrupted else MonitorInterruptedError)(str(error))

    def _late(self, late: MachineTimeout, limit: Deadline) -> QMPTimeoutError:
        """With all the seconds that were given, not those that were left when the wait began."""
        return QMPTimeoutError(f"{self._name}: {late.operation} timed out after {limit.timeout or 0.0:g} s")

    # -- events ---------------------------------------------------------------------------------------------

    def pull_event(self, wait: Wait = False) -> Event | None:
        """The oldest event that nobody was given yet.

        :param wait: seconds to wait for one, `True`: as long as QEMU lives; `False` or 0: not at all.
        :raises QMPTimeoutError: when none comes.
        :raises MonitorClosedError: when QEMU has ended, or ends meanwhile.
        """
        return self.event(None, wait)

    def get_events(self, wait: Wait = False) -> list[Event]:
        """All events that nobody was given yet, oldest first; where there are none, waits for one."""
        events = self.plugin.ring.take_all()
        if not events and wait:
            first = self.event(None, wait)
            assert first is not None
            events = [first, *self.plugin.ring.take_all()]
        return events

    def clear_events(self) -> None:
        """Forget all events so far."""
        self.plugin.ring.take_all()

    def event(self, wanted: Wanted | None, wait: Wait) -> Event | None:
        """The oldest event that is wanted and that nobody was given yet; see `pull_event`."""
        event = self.plugin.ring.take(wanted)
        if event is not None or not wait:
            return event
        limit = self.plugin.deadline(None if wait is True else seconds(wait))
        try:
            return self.plugin.next_event(wanted, limit.as_timeout())
        except MachineTimeout as late:
            raise self._late(late, limit) from late
        except (MachineDied, TransitionError) as over:
            raise MonitorClosedError(str(over)) from over


def _left(deadline: Deadline) -> float:
    remaining = deadline.remaining()
    return float("inf") if remaining is None else remaining


def _made(name: object, args: object, *, key: str = "execute") -> Request:
    """:raises MisuseError: for what is no command, or no JSON."""
    try:
        return make_request(name, args, key=key)  # type: ignore[arg-type]  # it is checked there
    except ConfigError as wrong:
        raise MisuseError(str(wrong)) from wrong
