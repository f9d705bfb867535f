"""A monitor whose sockets are somebody else's, who also says when to connect."""

from typing import Any

from vmfsm import Deadline, LaunchPlan, Machine, MachineDied, hookimpl

from .events import Event, EventRing, Wanted, describe_wanted
from .plugin import QMP
from .request import Request
from .session import Session
from .transport import Connector


class HandedQMP(QMP):
    """`machine.qmp` over connections that are handed to it, for a command line that somebody else writes.

    It adds nothing to QEMU's command line and does not connect at launch: `connect` does. The machine is
    `running` without it; until then its calls are `TransitionError`s. One object serves one launch.

    :param connector: makes the connection when it is asked, and says where others may connect.
    """

    def __init__(self, connector: Connector) -> None:
        super().__init__(boot_loop=None)
        self._connector = connector

    @hookimpl
    async def pre_launch(self, machine: Machine, plan: LaunchPlan) -> None:
        self._begin(machine, plan, self._connector)

    @hookimpl
    async def post_launch(self, machine: Machine) -> None:
        """It is connected when told."""

    def deadline(self, timeout: float | None) -> Deadline:
        """One of the machine's, as far as there is one."""
        return Deadline(timeout) if self._machine is None else self._machine.deadline(timeout)

    @property
    def ring(self) -> EventRing:
        """The events of the launch.

        :raises TransitionError: before that.
        """
        return self._last_session("ring").ring

    def connect(self, timeout: float | None = 30) -> None:
        """Have the connector connect, and negotiate.

        :raises QMPConnectionError: when QEMU hangs up, or does not speak QMP.
        """
        self._run(Session.connect, timeout, "connect")

    def exchange(self, request: Request, *, fd: int | None = None, timeout: float | None) -> dict[str, Any]:
        """As `execute_raw` and `execute_with_fd`, for a command that is made already: the whole reply."""
        return self._run(lambda session: session.execute_raw(request, fd), timeout, request.operation)

    def without_secrets(self, value: Any) -> Any:
        """A text, or JSON, as it may be shown."""
        return value if self._machine is None else self._machine.secrets.redact_all(value)

    def next_event(self, wanted: Wanted | None, timeout: float | None) -> Event:
        """Wait for the first event that is wanted and that nobody was given yet, whatever the guest does.

        :param wanted: `None`: whatever it is.
        """
        ring = self.ring
        operation = "wait for an event" if wanted is None else describe_wanted(wanted)
        deadline = self.deadline(timeout)
        while True:
            died: MachineDied | None = None
            try:
                self._run(lambda _: ring.arrival(wanted), deadline.as_timeout(), operation)
            except MachineDied as error:
                died = error
            # Here, where no exception of a signal handler can come between: what it hits loses no event.
            event = ring.take(wanted)
            if event is not None:
                return event
            try:
                if died is not None:
                    raise died
            finally:
                del died  # else it and this frame know each other, and keep alive what the callers hold

    def fileno(self) -> int:
        """The descriptor of the connection, for a program that is to send another one over it.

        :raises TransitionError: as long as there is none.
        """
        return self._last_session("fileno").connected("fileno").fileno()

    def hang_up(self, timeout: float | None = 30) -> None:
        """Close the connection; QEMU lives on."""
        self._run(Session.close, timeout, "hang_up")
