"""The monitor: QMP commands and events, over a socket made at launch."""

import asyncio
import copy
import json
import logging
import os
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, ClassVar, TypeVar

from qemu.qmp import QMPClient

from vmfsm import (
    ConfigError,
    LaunchPlan,
    Machine,
    MachineDied,
    MachineTimeout,
    TransitionError,
    check_fd,
    hookimpl,
)
from vmfsm_plugins.subscribers import Subscribers

from .aio import AsyncQMP
from .boot_loop import BOOT_LOOP
from .events import Event, Mark, Wanted, check_wanted, describe_wanted
from .gdbstub import gdbstub
from .options import check_address, check_boot_loop, check_timeout
from .request import Request, make_request
from .session import Session, Waiting
from .transport import Address, Connector, Transport

T = TypeVar("T")
_LOGGER = logging.getLogger("vmfsm.qmp")

_EVIDENCE = 20
"""How many events are shown with errors."""


class QMP:
    """`machine.qmp`: QEMU's monitor.

    :param address: where QEMU listens for `reconnect` and for others: the path of a Unix socket, or host and
        port (0: a free one, see `address`); without it, in the private directory. The first connection is a
        socket pair in any case.
    :param enabled: `False`: this machine has no monitor, and every call is a `ConfigError`.
    :param negotiate_timeout: seconds for QEMU's greeting and the negotiation, beside the launch's deadline.
    :param boot_loop: more than so many resets by the guest in so many seconds are a boot loop: whoever waits
        for the guest gets `GuestPanicked`, once a loop; `None`: no number of them is.

    Calls may come from any thread but the I/O thread, several at once. Those that wait take `timeout` in
    seconds (`None`: no limit), and beside what they say themselves raise what every wait on a machine does:
    `MachineTimeout`, `MachineDied` when QEMU ends first, `TransitionError` before the first launch, on the
    I/O thread and as long as the monitor is not connected. Each has a twin for coroutines under `aio`.

    The protocol is that of QEMU's `docs/interop/qmp-spec`; its QMP reference manual has commands and events.
    """

    name = "qmp"
    before: ClassVar = ("*",)
    after: ClassVar = ("logs", "fdpass", "console")

    def __init__(
        self,
        *,
        address: "str | os.PathLike[str] | tuple[str, int] | None" = None,
        enabled: bool = True,
        negotiate_timeout: float | None = None,
        boot_loop: tuple[int, float] | None = BOOT_LOOP,
        record_values: bool = False,
    ) -> None:
        self._configured_address = check_address(address)
        self._enabled = enabled
        self._negotiate_timeout = check_timeout(negotiate_timeout)
        self._boot_loop = check_boot_loop(boot_loop)
        self._record_values = record_values
        self._machine: Machine | None = None
        self._session: Session | None = None
        self._gdb_path = ""
        self._subscribers: Subscribers[Event] = Subscribers(_LOGGER, json.loads)
        self.aio = AsyncQMP(self)
        """The calls that wait, for coroutines on the I/O thread or in any other asyncio loop."""

    def __repr__(self) -> str:
        of = f" of {self._machine.name}" if self._machine else ""
        return f"<QMP{of} run_state={self.run_state}>"

    # -- commands -------------------------------------------------------------------------------------------

    def execute(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = 30,
        **kw: Any,
    ) -> Any:
        """Execute a command and wait for its reply; the value of its `return`.

        :param arguments: the command's arguments, for JSON.
        :param kw: more of them; in their names, `_` stands for `-`.
        :raises QMPCommandError: when QEMU answers with an error.
        :raises QMPConnectionError: when the monitor is lost while QEMU lives.
        :raises ConfigError: for what is no command, or no JSON; nothing is sent then.

        A command is sent as soon as QEMU reads what was sent before. A call that ends otherwise than by the
        reply has sent nothing if it ends before that; else QEMU may execute the command all the same.
        Of the arguments only the names are recorded, since their values may be secret; see `record_values`.
        """
        __tracebackhide__ = True
        request = make_request(command, arguments, kw)
        return self._run(lambda session: session.execute(request), timeout, request.operation)

    def execute_raw(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = 30,
        **kw: Any,
    ) -> dict[str, Any]:
        """As `execute`, but returns the whole reply without its id: `{"return": …}` or `{"error": …}`."""
        __tracebackhide__ = True
        request = make_request(command, arguments, kw)
        return self._run(lambda session: session.execute_raw(request), timeout, request.operation)

    def execute_oob(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = 30,
        **kw: Any,
    ) -> Any:
        """As `execute`, but out of band: at once, before commands that are queued or running.

        Only few commands allow it (`allow-oob` in the QMP reference).

        :raises ConfigError: where the monitor does not offer it, too.
        """
        __tracebackhide__ = True
        request = make_request(command, arguments, kw, key="exec-oob")
        return self._run(lambda session: session.execute_oob(request), timeout, request.operation)

    def execute_with_fd(
        self,
        fd: int,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = 30,
        **kw: Any,
    ) -> Any:
        """As `execute`, for a command that QEMU takes a descriptor with: `getfd`, `add-fd`.

        A copy of `fd` goes with it (unix(7), `SCM_RIGHTS`); yours stays as it is, and yours to close. On one
        connection such commands follow each other: the next is sent when QEMU has answered the one before.

        :raises ConfigError: for what is no open descriptor, and where the monitor's `address` is TCP.
        :raises OSError: where the system refuses: dup(2), sendmsg(2).
        """
        __tracebackhide__ = True
        request = self._request_with_fd(fd, command, arguments, kw)
        return self._run(lambda session: session.execute(request, fd), timeout, request.operation)

    # -- events ---------------------------------------------------------------------------------------------

    def mark(self) -> Mark:
        """This point in the events of the launch, for `since`. Never waits.

        What QEMU has sent before it answered the last command is before it.

        :raises TransitionError: before the first launch.
        """
        return self._last_session("mark").ring.mark()

    def wait_event(
        self,
        name: str,
        *,
        match: Mapping[str, Any] | None = None,
        since: Mark | None = None,
        timeout: float | None = 30,
    ) -> Event:
        """Wait for an event: the first one of this name, that has all that `match` has.

        :param match: compared recursively; `None` in it is any value.
        :param since: only events after this mark. Without it: events from now on, and before them those that
            nobody has been given yet, by this, `wait_any` or `events`.
        :raises ConfigError: for a mark that is of another launch or so old that events after it are not
            kept any more (the last 10,000 are).
        :raises GuestPanicked: when the guest does so first, unless it is that event that is waited for.

        An event that came before QEMU ended is found even after that.
        """
        __tracebackhide__ = True
        return self._wait(check_wanted([(name, match)]), since, timeout)

    def wait_any(
        self,
        events: Iterable[tuple[str, Mapping[str, Any] | None]],
        *,
        since: Mark | None = None,
        timeout: float | None = 30,
    ) -> Event:
        """As `wait_event`, for the first event that is any of these: pairs of name and match."""
        __tracebackhide__ = True
        return self._wait(check_wanted(events), since, timeout)

    def events(self, since: Mark | None = None) -> list[Event]:
        """The events after a mark; without one, those that nobody has been given yet. Never waits.

        Those of the last launch stay until the next one.

        :raises ConfigError: for a mark as of `wait_event`.
        """
        return self._last_session("events").ring.take_all(since)

    def subscribe(self, callback: Callable[[Event], object]) -> Callable[[], None]:
        """Have `callback` called with every event from now on, in all launches; a function that ends it.

        It is called on the I/O thread, in the order of the events, and must not wait. One that raises is
        logged and not called again.
        """
        self._require_enabled()
        return self._subscribers.add(callback)

    # -- the connection -------------------------------------------------------------------------------------

    @property
    def address(self) -> Address:
        """Where QEMU listens: a path, or host and port (the real one since the launch); `None`: nowhere."""
        return self._configured_address if self._session is None else self._session.transport.address

    @property
    def client(self) -> QMPClient:
        """The `qemu.qmp` client of the connection. For the I/O thread only; leave its end to others.

        :raises TransitionError: as long as there is none.
        """
        return self._last_session("client").connected("client")

    @property
    def greeting(self) -> Mapping[str, Any]:
        """A copy of QEMU's greeting: `{"QMP": {"version": …, "capabilities": […]}}`; kept after the end.

        :raises TransitionError: before there is one.
        """
        return copy.deepcopy(self._last_session("greeting").connected("greeting").greeted_with)

    @property
    def version(self) -> tuple[int, int, int]:
        """QEMU's version, of its greeting: major, minor, micro.

        :raises TransitionError: before there is one.
        """
        return self._last_session("version").connected("version").version

    @property
    def run_state(self) -> str | None:
        """QEMU's run state (QMP reference, `RunState`), as of its last events; `None` where no QEMU lives.

        Also `Machine.run_state`. Never waits.
        """
        return None if self._session is None else self._session.run_state

    @property
    def resets(self) -> int:
        """How many `RESET` events there were in this launch, or the last one, whoever caused them.

        A PC's firmware resets once or more by itself when it is reset, and each of these counts. Never waits.

        :raises TransitionError: before the first launch.
        """
        return self._last_session("resets").resets.total

    def reconnect(self, timeout: float | None = 30) -> None:
        """Connect again to a monitor that was lost, or that should be left and entered again.

        Commands that wait for a reply get a `QMPConnectionError`. Events go on; what happened between the two
        connections QEMU tells nobody. `run_state` is asked for. Any number of times; when it fails, too.

        :raises QMPConnectionError: when QEMU hangs up again, or does not speak QMP.
        """
        __tracebackhide__ = True
        self._run(Session.reconnect, timeout, "reconnect")

    def gdbstub(self, timeout: float | None = 30) -> str:
        """Have QEMU listen for gdb; what gdb's `target remote` takes.

        A Unix socket in the machine's private directory. Where there is a gdbstub already, by `-s` or `-gdb`
        or by a call before, it is that one: then `host:port`, or the path of its socket. The guest is paused
        while gdb is connected (system/gdb); gdb's `detach` has it go on, and its `kill` ends QEMU.

        :raises QMPCommandError: when QEMU cannot.
        :raises ConfigError: for a gdbstub that is no socket.
        :raises OSError: where the private directory's path is too long for a socket.
        """
        __tracebackhide__ = True
        return self._run(self._gdbstub, timeout, "gdbstub")

    # -- hooks ----------------------------------------------------------------------------------------------

    @hookimpl
    def configured(self, machine: Machine) -> None:
        self._machine = machine
        self._subscribers.machine = machine.name

    @hookimpl
    async def pre_launch(self, machine: Machine, plan: LaunchPlan) -> None:
        if not self._enabled:
            return
        transport = Transport(self._configured_address)
        self._begin(machine, plan, transport)
        plan.defer(transport.close)
        for name, options in (await transport.prepare(plan)).items():
            plan.args += ["-chardev", f"socket,id={name},{options}", "-mon", f"chardev={name},mode=control"]

    async def _gdbstub(self, session: Session) -> str:
        assert self._machine is not None
        async with self._making_gdbstub:  # one more would take the first one's place, and cut gdb off
            return await gdbstub(session, self._machine.name, self._gdb_path)

    def _begin(self, machine: Machine, plan: LaunchPlan, transport: Connector) -> None:
        session = self._session = Session(
            machine, transport, self._subscribers, self._boot_loop, record_values=self._record_values
        )
        self._gdb_path = os.path.join(plan.directory, "gdb")
        self._making_gdbstub = asyncio.Lock()
        plan.on_quit(session.press_power_button, guest=True)
        plan.on_quit(session.quit)
        plan.on_exit(session.last_words)
        plan.on_evidence(lambda: {"events": session.ring.last(_EVIDENCE)})

    @hookimpl
    async def post_launch(self, machine: Machine) -> None:
        if not self._enabled:
            return
        deadline = machine.deadline(self._negotiate_timeout)
        try:
            async with deadline.limit():
                await self._last_session("connect").connect()
        except TimeoutError:
            error = MachineTimeout(
                f"{machine.name}: QEMU's monitor was not ready after {deadline.timeout:g} s "
                "(negotiate_timeout)"
            )
            error.operation, error.timeout = "negotiation", deadline.timeout
            raise error from None

    @hookimpl
    async def post_shutdown(self) -> None:
        if self._session is not None:
            await self._session.end()

    @hookimpl
    def snapshot(self) -> dict[str, object] | None:
        session = self._session
        return None if session is None else {"address": self.address, **session.snapshot(_EVIDENCE)}

    # -- in the calling thread ------------------------------------------------------------------------------

    def _run(
        self, call: Callable[[Session], Coroutine[Any, Any, T]], timeout: float | None, operation: str
    ) -> T:
        __tracebackhide__ = True
        self._last_session(operation)
        assert self._machine is not None
        return self._machine.run(self._in_session(call, operation), timeout=timeout, operation=operation)

    async def _in_session(self, call: Callable[[Session], Coroutine[Any, Any, T]], operation: str) -> T:
        """On the I/O thread: the machine may have been launched again since the call began."""
        __tracebackhide__ = True
        session = self._last_session(operation)
        session.refuse_over(operation)
        return await call(session)

    def _wait(self, wanted: Wanted, since: Mark | None, timeout: float | None) -> Event:
        __tracebackhide__ = True
        operation = describe_wanted(wanted)
        waiting = Waiting(wanted, since, self._last_session(operation))
        assert self._machine is not None
        try:
            return self._machine.run(
                self._in_session(waiting.wait, operation), timeout=timeout, operation=operation, of_guest=True
            )
        except MachineDied:
            event = waiting.at_last()
            if event is None:
                raise
            return event

    def _last_session(self, call: str) -> Session:
        """The monitor of this launch, or of the last one; what it raises is the contract of every call."""
        self._require_enabled()
        if self._session is None:
            name = "a machine not made yet" if self._machine is None else self._machine.name
            raise TransitionError(
                f"{name}: cannot {call} before the first launch",
                event=call,
                allowed=("launch",),
                machine=name,
                state=None if self._machine is None else self._machine.state,
            )
        return self._session

    def _request_with_fd(
        self, fd: int, command: str, arguments: Mapping[str, Any] | None, kw: Mapping[str, Any]
    ) -> Request:
        """What `execute_with_fd` is to execute, checked."""
        request = make_request(command, arguments, kw)
        self._last_session(request.operation).require_fds(request.operation)
        check_fd(fd)
        return request

    def _require_enabled(self) -> None:
        if not self._enabled:
            name = "a machine not made yet" if self._machine is None else self._machine.name
            raise ConfigError(
                f"{name}: it has no monitor: options['qmp']['enabled'] is False",
                field="options['qmp']['enabled']",
                machine=None if self._machine is None else self._machine.name,
            )
