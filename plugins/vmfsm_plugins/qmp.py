"""The monitor: QMP commands and events, over a socket made at launch."""

import asyncio
import itertools
import json
import logging
import os
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from inspect import iscoroutinefunction
from typing import Any, ClassVar, NamedTuple, TypeVar

from qemu.qmp import QMPClient

from vmfsm import (
    ConfigError,
    Deadline,
    LaunchPlan,
    Machine,
    MachineDied,
    MachineTimeout,
    TransitionError,
    Verdict,
    hookimpl,
)

from . import qmp_transport
from .qmp_client import Client, ConnectionLost, Loss, Reply
from .qmp_errors import QMPCommandError, QMPConnectionError
from .qmp_events import Event, EventRing, Mark, Wanted, check_wanted
from .qmp_run_state import after_event
from .qmp_transport import Address, Transport

__all__ = ["QMP", "AsyncQMP", "Mark", "QMPCommandError", "QMPConnectionError"]

T = TypeVar("T")
_LOGGER = logging.getLogger("vmfsm.qmp")

_EXIT_GRACE = 1.0
"""Seconds in which the end of QEMU follows the end of its monitor, if it does."""
_EVIDENCE = 20
"""How many events are shown with errors."""
_LARGE_EVENT = 2_000
"""Bytes of JSON; what is larger does not go into a record."""


class _Request(NamedTuple):
    number: int
    command: str
    operation: str
    data: bytes
    arguments: tuple[str, ...]


class QMP:
    """`machine.qmp`: QEMU's monitor.

    :param address: where QEMU listens for its monitor: the path of a Unix socket, or host and port (0: a free
        one, see `address`); a socket pair that nobody else can reach without it.
    :param enabled: `False`: this machine has no monitor, and every call is a `ConfigError`.
    :param negotiate_timeout: seconds for QEMU's greeting and the negotiation, beside the launch's deadline.

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
    ) -> None:
        self._configured_address = _check_address(address)
        self._enabled = enabled
        self._negotiate_timeout = _check_timeout(negotiate_timeout)
        self._machine_or_none: Machine | None = None
        self._transport: Transport | None = None
        self._client: Client | None = None
        self._ring = EventRing()
        self._subscribers: list[Callable[[Event], object]] = []
        self._numbers = itertools.count(1)
        self._run_state: str | None = None
        self._cause: str | None = None
        self.aio = AsyncQMP(self)
        """The calls that wait, for coroutines on the I/O thread or in any other asyncio loop."""

    def __repr__(self) -> str:
        of = f" of {self._machine_or_none.name}" if self._machine_or_none else ""
        return f"<QMP{of} run_state={self._run_state}>"

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

        A call that ends otherwise than by the reply leaves nothing behind here, but QEMU may execute the
        command all the same. Of the arguments only the names are recorded: their values may be secret.
        """
        request = self._request("execute", command, arguments, kw)
        return self._run(self._execute(request), timeout, request.operation)

    def execute_raw(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = 30,
        **kw: Any,
    ) -> dict[str, Any]:
        """As `execute`, but returns the whole reply without its id: `{"return": …}` or `{"error": …}`."""
        request = self._request("execute", command, arguments, kw)
        return self._run(self._ask(request), timeout, request.operation)

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
        request = self._request("exec-oob", command, arguments, kw)
        return self._run(self._execute_oob(request), timeout, request.operation)

    # -- events ---------------------------------------------------------------------------------------------

    def mark(self) -> Mark:
        """This point in the events of the launch, for `since`. Never waits.

        What QEMU has sent before it answered the last command is before it.

        :raises TransitionError: before the first launch.
        """
        self._require_launched("mark")
        return self._ring.mark()

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
        wanted = check_wanted([(name, match)])
        return self._wait(wanted, since, timeout, f"wait_event({name!r})")

    def wait_any(
        self,
        events: Iterable[tuple[str, Mapping[str, Any] | None]],
        *,
        since: Mark | None = None,
        timeout: float | None = 30,
    ) -> Event:
        """As `wait_event`, for the first event that is any of these: pairs of name and match."""
        wanted = check_wanted(events)
        names = ", ".join(name for name, _ in wanted)
        return self._wait(wanted, since, timeout, f"wait_any({names})")

    def events(self, since: Mark | None = None) -> list[Event]:
        """The events after a mark; without one, those that nobody has been given yet. Never waits.

        Those of the last launch stay until the next one.

        :raises ConfigError: for a mark as of `wait_event`.
        """
        self._require_enabled()
        return self._ring.take_all(since)

    def subscribe(self, callback: Callable[[Event], object]) -> Callable[[], None]:
        """Have `callback` called with every event from now on, in all launches; a function that ends it.

        It is called on the I/O thread, in the order of the events, and must not wait. One that raises is
        logged and not called again.
        """
        self._require_enabled()
        if not callable(callback) or iscoroutinefunction(callback):
            raise ConfigError(f"callback must be a plain function, not {callback!r}", field="callback")

        def call(event: Event) -> object:  # an object of its own for each subscription
            return callback(event)

        def unsubscribe() -> None:
            if call in self._subscribers:
                self._subscribers.remove(call)

        self._subscribers.append(call)
        return unsubscribe

    # -- the connection -------------------------------------------------------------------------------------

    @property
    def address(self) -> Address:
        """Where QEMU listens: a path, or host and port (the real one since the launch); `None`: nowhere."""
        return self._configured_address if self._transport is None else self._transport.address

    @property
    def client(self) -> QMPClient:
        """The `qemu.qmp` client of the connection. For the I/O thread only; leave its end to others.

        :raises TransitionError: as long as there is none.
        """
        return self._connected("client")

    @property
    def greeting(self) -> Mapping[str, Any]:
        """QEMU's greeting as it came: `{"QMP": {"version": …, "capabilities": […]}}`; kept after the end.

        :raises TransitionError: before there is one.
        """
        return self._connected("greeting").greeted_with

    @property
    def version(self) -> tuple[int, int, int]:
        """QEMU's version, of its greeting: major, minor, micro.

        :raises TransitionError: before there is one.
        """
        version = self._connected("version").greeted_with["QMP"]["version"]["qemu"]
        return version["major"], version["minor"], version["micro"]

    @property
    def run_state(self) -> str | None:
        """QEMU's run state (QMP reference, `RunState`), as of its last events; `None` where no QEMU lives.

        Also `Machine.run_state`. Never waits.
        """
        return self._run_state

    def reconnect(self, timeout: float | None = 30) -> None:
        """Connect again to a monitor that was lost, or that should be left and entered again.

        Commands that wait for a reply get a `QMPConnectionError`. Events go on; what happened between the two
        connections QEMU tells nobody.

        :raises QMPConnectionError: when that fails; over a socket pair (no `address`) always, and nothing has
            changed then.
        """
        self._require_enabled()
        self._run(self._reconnect(), timeout, "reconnect")

    # -- hooks ----------------------------------------------------------------------------------------------

    @hookimpl
    def configured(self, machine: Machine) -> None:
        self._machine_or_none = machine

    @hookimpl
    async def pre_launch(self, plan: LaunchPlan) -> None:
        if not self._enabled:
            return
        self._ring.restart()
        self._client = None
        self._run_state = self._cause = None
        self._transport = qmp_transport.at(self._configured_address)
        plan.defer(self._transport.close)
        options = await self._transport.prepare(plan)
        plan.args += [
            *("-chardev", f"socket,id=vmfsm-qmp,{options}"),
            *("-mon", "chardev=vmfsm-qmp,mode=control"),
        ]
        plan.on_quit(self._quit)
        plan.on_quit(self._press_power_button, guest=True)
        plan.on_exit(self._last_words)
        plan.on_evidence(lambda: {"events": self._ring.last(_EVIDENCE)})

    @hookimpl
    async def post_launch(self) -> None:
        if not self._enabled:
            return
        limit = Deadline(self._negotiate_timeout).timeout
        try:
            async with asyncio.timeout(limit):
                await self._connect()
        except TimeoutError:
            error = MachineTimeout(
                f"{self._machine.name}: QEMU's monitor was not ready after {limit:g} s (negotiate_timeout)"
            )
            error.operation, error.timeout = "negotiation", limit
            raise error from None

    @hookimpl
    async def post_shutdown(self) -> None:
        if self._client is not None:
            await self._client.close()
        self._run_state = None

    # -- on the I/O thread ----------------------------------------------------------------------------------

    async def _connect(self) -> None:
        assert self._transport is not None
        client = Client(self._hear)
        try:
            await client.open(await self._transport.connect())
        except OSError as error:
            raise self._connection_error(str(error)) from error
        except ConnectionLost as lost:
            raise await self._lost(lost.loss) from lost.__cause__
        self._client = client
        self._run_state = (await self._execute(self._request("execute", "query-status")))["status"]

    async def _reconnect(self) -> None:
        old = self._connected("reconnect")
        if self._configured_address is None:
            raise self._connection_error(
                "over a socket pair it can't be connected again; options['qmp']['address'] allows that"
            )
        await old.close()
        await self._connect()

    async def _execute(self, request: _Request) -> Any:
        reply = await self._ask(request)
        if "return" in reply:
            return reply["return"]
        kind, description = reply["error"]["class"], reply["error"]["desc"]
        error = QMPCommandError(f"{self._machine.name}: {request.command}: {description} ({kind})")
        error.error_class, error.description, error.command = kind, description, request.command
        raise error

    async def _execute_oob(self, request: _Request) -> Any:
        if "oob" not in self._connected(request.operation).greeted_with["QMP"]["capabilities"]:
            raise ConfigError("this monitor does not offer to execute commands out of band", field="command")
        return await self._execute(request)

    async def _ask(self, request: _Request) -> Reply:
        client = self._connected(request.operation)
        machine = self._machine
        began = time.monotonic()
        machine.record(
            "qmp-command",
            {"command": request.command, "id": request.number, "arguments": request.arguments},
        )
        reply = await client.ask(request.number, request.data)
        if isinstance(reply, Loss):
            raise await self._lost(reply)
        done = {"command": request.command, "id": request.number, "seconds": time.monotonic() - began}
        if "error" in reply:
            done["error"] = reply["error"]["desc"][:200]
        elif request.command == "query-status":
            self._run_state = reply["return"]["status"]
        machine.record("qmp-reply", done)
        del reply["id"]
        return reply

    async def _lost(self, loss: Loss) -> QMPConnectionError:
        """The error for a lost connection, if QEMU lives on."""
        if loss.perhaps_exit:
            await asyncio.sleep(_EXIT_GRACE)  # if it is its end, this wait is ended for that reason meanwhile
        may_help = "" if self._configured_address is None else "; reconnect() may help"
        return self._connection_error(f"{loss.what}{may_help}")

    def _connection_error(self, what: str) -> QMPConnectionError:
        return QMPConnectionError(f"{self._machine.name}: no connection to the monitor: {what}")

    def _hear(self, event: Event, raw: bytes) -> None:
        self._run_state = after_event(event, self._run_state)
        if event["event"] == "SHUTDOWN":
            self._cause = event.get("data", {}).get("reason")
        self._ring.add(event, raw)
        for subscriber in tuple(self._subscribers):
            self._tell(subscriber, json.loads(raw))
        if len(raw) > _LARGE_EVENT:
            event = {"event": event["event"], "timestamp": event.get("timestamp"), "bytes": len(raw)}
        self._machine.record("qmp-event", event, size=200 + 4 * min(len(raw), _LARGE_EVENT))
        if event["event"] == "GUEST_PANICKED":
            self._machine.report(Verdict("guest-panicked", "qmp", event))

    def _tell(self, subscriber: Callable[[Event], object], event: Event) -> None:
        try:
            subscriber(event)
        except BaseException:  # whatever it is: nobody else may miss an event for it
            _LOGGER.exception("%s: a subscriber raised and is not called again", self._machine.name)
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)

    async def _quit(self) -> None:
        await self._execute(self._request("execute", "quit"))

    async def _press_power_button(self) -> None:
        await self._execute(self._request("execute", "system_powerdown"))

    async def _last_words(self) -> str | None:
        if self._client is not None:
            await asyncio.wait({self._client.lost})
        self._run_state = None
        return self._cause

    # -- in the calling thread ------------------------------------------------------------------------------

    def _run(self, coroutine: Coroutine[Any, Any, T], timeout: float | None, operation: str) -> T:
        return self._machine.run(coroutine, timeout=timeout, operation=operation)

    def _wait(self, wanted: Wanted, since: Mark | None, timeout: float | None, operation: str) -> Event:
        self._require_enabled()
        try:
            return self._machine.run(
                self._ring.wait(wanted, since), timeout=timeout, operation=operation, of_guest=True
            )
        except MachineDied:
            event = self._ring.take(wanted, since)
            if event is None:
                raise
            return event

    def _request(
        self,
        kind: str,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        kw: Mapping[str, Any] | None = None,
    ) -> _Request:
        self._require_enabled()
        if not isinstance(command, str) or not command:
            raise ConfigError(f"command must be the name of a command, not {command!r}", field="command")
        if arguments is not None and not isinstance(arguments, Mapping):
            raise ConfigError(f"arguments must be a mapping, not {arguments!r}", field="arguments")
        number = next(self._numbers)
        message: dict[str, Any] = {kind: command, "id": number}
        if arguments or kw:
            message["arguments"] = _merge(command, arguments or {}, kw or {})
        try:
            data = json.dumps(message, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigError(f"arguments of {command} are no JSON: {error}", field="arguments") from error
        return _Request(number, command, f"execute({command!r})", data, tuple(message.get("arguments", ())))

    @property
    def _machine(self) -> Machine:
        if self._machine_or_none is None:
            raise TransitionError("this monitor belongs to no machine yet")
        return self._machine_or_none

    def _connected(self, call: str) -> Client:
        self._require_enabled()
        if self._client is None:
            raise TransitionError(
                f"{self._machine.name}: {call}: the monitor is not connected yet",
                event=call,
                machine=self._machine.name,
                state=self._machine.state,
            )
        return self._client

    def _require_launched(self, call: str) -> None:
        self._require_enabled()
        if self._transport is None:
            raise TransitionError(
                f"{self._machine.name}: {call}: the machine was never launched",
                event=call,
                allowed=("launch",),
                machine=self._machine.name,
                state=self._machine.state,
            )

    def _require_enabled(self) -> None:
        if not self._enabled:
            raise ConfigError(
                f"{self._machine.name} has no monitor: options['qmp']['enabled'] is False",
                field="options['qmp']['enabled']",
                machine=self._machine.name,
            )


class AsyncQMP:
    """`machine.qmp.aio`: the twins, with the contracts of `QMP`.

    To be awaited on the I/O thread (in async hooks) or in any other asyncio loop.
    """

    def __init__(self, qmp: QMP) -> None:
        self._qmp = qmp

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = 30,
        **kw: Any,
    ) -> Any:
        """See `QMP.execute`."""
        request = self._qmp._request("execute", command, arguments, kw)
        return await self._run(self._qmp._execute(request), timeout, request.operation)

    async def execute_raw(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = 30,
        **kw: Any,
    ) -> dict[str, Any]:
        """See `QMP.execute_raw`."""
        request = self._qmp._request("execute", command, arguments, kw)
        return await self._run(self._qmp._ask(request), timeout, request.operation)

    async def execute_oob(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = 30,
        **kw: Any,
    ) -> Any:
        """See `QMP.execute_oob`."""
        request = self._qmp._request("exec-oob", command, arguments, kw)
        return await self._run(self._qmp._execute_oob(request), timeout, request.operation)

    async def wait_event(
        self,
        name: str,
        *,
        match: Mapping[str, Any] | None = None,
        since: Mark | None = None,
        timeout: float | None = 30,
    ) -> Event:
        """See `QMP.wait_event`."""
        wanted = check_wanted([(name, match)])
        return await self._wait(wanted, since, timeout, f"wait_event({name!r})")

    async def wait_any(
        self,
        events: Iterable[tuple[str, Mapping[str, Any] | None]],
        *,
        since: Mark | None = None,
        timeout: float | None = 30,
    ) -> Event:
        """See `QMP.wait_any`."""
        wanted = check_wanted(events)
        names = ", ".join(name for name, _ in wanted)
        return await self._wait(wanted, since, timeout, f"wait_any({names})")

    async def reconnect(self, timeout: float | None = 30) -> None:
        """See `QMP.reconnect`."""
        self._qmp._require_enabled()
        await self._run(self._qmp._reconnect(), timeout, "reconnect")

    async def _run(self, coroutine: Coroutine[Any, Any, T], timeout: float | None, operation: str) -> T:
        return await self._qmp._machine.arun(coroutine, timeout=timeout, operation=operation)

    async def _wait(self, wanted: Wanted, since: Mark | None, timeout: float | None, operation: str) -> Event:
        qmp = self._qmp
        qmp._require_enabled()
        try:
            return await qmp._machine.arun(
                qmp._ring.wait(wanted, since), timeout=timeout, operation=operation, of_guest=True
            )
        except MachineDied:
            event = qmp._ring.take(wanted, since)
            if event is None:
                raise
            return event


def _merge(command: str, arguments: Mapping[str, Any], kw: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(arguments)
    for name, value in kw.items():
        argument = name.replace("_", "-")
        if argument in merged:
            raise ConfigError(f"argument {argument!r} of {command} is given twice", field="arguments")
        merged[argument] = value
    return merged


def _check_address(address: object) -> Address:
    field = "options['qmp']['address']"
    match address:
        case None:
            return None
        case str() | os.PathLike():
            path = os.fspath(address)
            if isinstance(path, str) and path and "\0" not in path:
                return path
        case (str() as host, int() as port) if not isinstance(port, bool) and 0 <= port <= 65535:
            return host, port
    raise ConfigError(f"address must be a path, (host, port) or None, not {address!r}", field=field)


def _check_timeout(timeout: float | None) -> float | None:
    try:
        Deadline(timeout)
    except ConfigError as error:
        raise ConfigError(f"negotiate_{error}", field="options['qmp']['negotiate_timeout']") from None
    return timeout
