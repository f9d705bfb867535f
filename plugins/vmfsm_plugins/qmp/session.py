"""The monitor of one launch: what happens to it on the I/O thread."""

import asyncio
import logging
import time
from typing import Any

from vmfsm import ConfigError, Machine, TransitionError, Verdict, onlooker
from vmfsm_plugins.subscribers import Subscribers

from .boot_loop import Limit, Resets
from .client import Client, ConnectionLost, Loss, Reply
from .errors import QMPCommandError, QMPConnectionError
from .events import Event, EventRing, Mark, Wanted
from .request import Request, make_request
from .run_state import after_event, after_status
from .transport import Connector
from .values import LARGEST, received_values, sent_values

_LOGGER = logging.getLogger("vmfsm.qmp")

_EXIT_GRACE = 1.0
"""Seconds in which the end of QEMU follows the end of its monitor, if it does."""
_MIGRATING = 0.1
"""Seconds after which a QEMU that finishes a migration is asked for its run state again."""
_LISTENS = frozenset({"running", "suspended"})
"""Run states in which a guest may notice the power button; in the others nothing comes of it."""
_VERDICTS = {
    "GUEST_PANICKED": "guest-panicked",
    "GUEST_CRASHLOADED": "guest-crashloaded",
    "WATCHDOG": "watchdog",
}
"""Events that say that the guest is lost (QMP reference, "Run state"), whatever QEMU does about it."""
_LARGE_EVENT = 2_000
"""Bytes of JSON; what is larger does not go into a record."""


class Session:
    """From before a launch to the next one. Made in any thread; coroutines are for the I/O thread only.

    :param subscribers: who is told of events.
    """

    def __init__(
        self,
        machine: Machine,
        transport: Connector,
        subscribers: Subscribers[Event],
        boot_loop: Limit | None,
        *,
        record_values: bool = False,
    ) -> None:
        self.transport = transport
        self.ring = EventRing()
        self.run_state: str | None = None
        """QEMU's, as far as events have told it; `None` where no QEMU lives."""
        self.resets = Resets(boot_loop)
        self._machine = machine
        self._subscribers = subscribers
        self._records_values = record_values
        self._client: Client | None = None
        self._connecting = asyncio.Lock()
        self._over = False
        self._asleep = False
        self._cause: str | None = None
        self._asking: set[asyncio.Task[None]] = set()

    def connected(self, call: str) -> Client:
        """The last connection. From any thread.

        :raises TransitionError: as long as there was none.
        """
        if self._client is None:
            raise self._not_connected(call)
        return self._client

    def refuse_over(self, call: str) -> None:
        """:raises TransitionError: when its launch is over, and the next one has not got to the monitor."""
        if self._over:
            raise self._not_connected(call)

    def _not_connected(self, call: str) -> TransitionError:
        return TransitionError(
            f"{self._machine.name}: {call}: the monitor is not connected yet",
            event=call,
            machine=self._machine.name,
            state=self._machine.state,
        )

    def require_fds(self, operation: str) -> None:
        """:raises ConfigError: where `reconnect` leads where no descriptor can pass. From any thread."""
        if isinstance(self.transport.address, tuple):
            raise ConfigError(
                f"{self._machine.name}: {operation}: descriptors can't pass over TCP; leave out "
                "options['qmp']['address'], or make it a path",
                field="options['qmp']['address']",
            )

    def snapshot(self, events: int) -> dict[str, object]:
        """What there is to show, with so many of the last events. From any thread; never waits."""
        client = self._client
        return {
            "version": None if client is None else client.version_text,
            "run_state": self.run_state,
            "resets": self.resets.total,
            "events": self.ring.last(events, largest=_LARGE_EVENT),
        }

    # -- the connection -------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Connect, negotiate, and learn the run state.

        :raises QMPConnectionError: when that fails.
        """
        client = Client(self._hear)
        try:
            await client.open(await self.transport.connect())
        except (
            ConnectionError,
            FileNotFoundError,
        ) as error:  # nobody listens; QEMU removes its socket at its end
            client.lost_at = time.monotonic()
            raise await self._lost(client, Loss(str(error), perhaps_exit=True)) from error
        except OSError as error:
            raise self._no_connection(str(error)) from error
        except ConnectionLost as lost:
            raise await self._lost(client, lost.loss) from None
        self._client = client
        self._record_greeting(client)
        await self.execute_raw(make_request("query-status"))

    def _record_greeting(self, client: Client) -> None:
        major, minor, micro = client.version
        greeting = {
            "version": client.version_text,
            "major": major,
            "minor": minor,
            "micro": micro,
            "package": client.package,
        }
        self._machine.record("qmp-greeting", greeting, size=500)

    async def reconnect(self) -> None:
        """Connect again; see `QMP.reconnect`."""
        async with self._connecting:  # QEMU talks to one at a time
            await self.connected("reconnect").close()
            await self.connect()

    async def close(self) -> None:
        """Let nothing be left of the connection."""
        if self._client is not None:
            await self._client.close()

    async def end(self) -> None:
        """The launch is over."""
        self._over = True
        await self.close()

    async def _lost(self, client: Client, loss: Loss) -> QMPConnectionError:
        """The error for a lost connection, if QEMU lives on."""
        if loss.perhaps_exit:
            # If it is its end, this wait is ended for that reason meanwhile.
            await asyncio.sleep(client.lost_at + _EXIT_GRACE - time.monotonic())
        return self._no_connection(loss.what)

    def _no_connection(self, what: str) -> QMPConnectionError:
        return QMPConnectionError(f"{self._machine.name}: no connection to the monitor: {what}")

    # -- commands -------------------------------------------------------------------------------------------

    async def execute(self, request: Request, fd: int | None = None) -> Any:
        """The value of the reply's `return`; see `QMP.execute` and `QMP.execute_with_fd`."""
        __tracebackhide__ = True
        reply = await self.execute_raw(request, fd)
        if "return" in reply:
            return reply["return"]
        kind, description = reply["error"]["class"], reply["error"]["desc"]
        error = QMPCommandError(f"{self._machine.name}: {request.command}: {description} ({kind})")
        error.error_class, error.description, error.command = kind, description, request.command
        raise error

    async def execute_raw(self, request: Request, fd: int | None = None) -> Reply:
        """The reply, without its id."""
        __tracebackhide__ = True
        client = self.connected(request.operation)
        reply = await self._exchange(client, request, fd)
        if isinstance(reply, Loss):
            raise await self._lost(client, Loss(f"{reply.what}; reconnect() may help", reply.perhaps_exit))
        del reply["id"]
        return reply

    async def execute_oob(self, request: Request) -> Any:
        """See `QMP.execute_oob`."""
        __tracebackhide__ = True
        if "oob" not in self.connected(request.operation).greeted_with["QMP"]["capabilities"]:
            raise ConfigError(
                f"{self._machine.name}: this monitor executes no commands out of band", field="command"
            )
        return await self.execute(request)

    async def _exchange(self, client: Client, request: Request, fd: int | None = None) -> Reply | Loss:
        number, command, data, arguments = request
        self._machine.secrets.learn_message(data)
        record = self._machine.record
        by = onlooker()
        whose = {} if by is None else {"by": by}
        sent: dict[str, object] = {"command": command, "id": number, "arguments": arguments, **whose}
        values = sent_values(request, self._machine.secrets) if self._records_values else {}
        record("qmp-command", {**sent, **values}, size=200 + 4 * len(data) if values else 200)
        began = time.monotonic()
        if fd is None:
            # Not when this task is woken: by then events that came after the reply may have been heard.
            reply = await client.ask(number, data, self._hear_status if command == "query-status" else None)
        else:
            reply = await client.ask_with_fd(number, data, fd)
        seconds = time.monotonic() - began
        if isinstance(reply, Loss):
            error = f"no connection: {reply.what}"
        elif "return" in reply:
            values = received_values(reply) if self._records_values else {}
            size = 200 + 4 * LARGEST if values else 200
            data_of_reply = {"command": command, "id": number, "seconds": seconds, **values, **whose}
            record("qmp-reply", data_of_reply, size=size)
            return reply
        else:
            error = reply["error"]["class"]  # the description may quote arguments
        data_with_error = {
            "command": command,
            "id": number,
            "seconds": seconds,
            "error": error[:200],
            **whose,
        }
        record("qmp-reply", data_with_error, size=400)
        return reply

    def _hear_status(self, reply: Reply) -> None:
        self.run_state = after_status(reply.get("return"), self.run_state)

    # -- events ---------------------------------------------------------------------------------------------

    def _hear(self, event: Event, raw: bytes) -> None:
        name, before = event["event"], self.run_state
        self.run_state = after_event(event, before, asleep=self._asleep)
        if name in {"SUSPEND", "WAKEUP", "RESET"}:
            self._asleep = name == "SUSPEND"
        if name == "STOP" and self.run_state != before and self._client is not None:
            task = asyncio.create_task(self._ask_why(self._client))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
        if name == "SHUTDOWN":
            reason = event.get("data", {}).get("reason")
            self._cause = reason if isinstance(reason, str) else None
        self.ring.add(event, raw)
        self._subscribers.tell(raw)
        large = len(raw) > _LARGE_EVENT
        data = {"event": name, "timestamp": event.get("timestamp"), "bytes": len(raw)} if large else event
        self._machine.record("qmp-event", data, size=400 if large else 200 + 4 * len(raw))
        if name in _VERDICTS:
            self._machine.report(Verdict(_VERDICTS[name], "qmp", event))
        if name == "RESET":
            verdict = self.resets.hear(event)
            if verdict is not None:
                self._machine.report(verdict)

    async def _ask_why(self, client: Client) -> None:
        """Ask for the run state after a STOP that nothing had announced. Not recorded: no user asks."""
        while not client.lost.done():
            request = make_request("query-status")
            await client.ask(request.number, request.data, self._hear_status)
            if self.run_state != "finish-migrate":
                return
            await asyncio.wait([client.lost], timeout=_MIGRATING)  # no event needs to tell when it is over

    # -- the end of QEMU ------------------------------------------------------------------------------------

    async def quit(self) -> None:
        """Ask QEMU to go; back when it has agreed or is going.

        :raises QMPConnectionError: when it could not be asked.
        """
        reply = await self._exchange(await self._regained("quit"), make_request("quit"))
        if isinstance(reply, Loss) and not reply.perhaps_exit:
            raise self._no_connection(reply.what)

    async def press_power_button(self) -> None:
        """Ask the guest to go, by ACPI.

        :raises QMPConnectionError: when that could not be done.
        :raises TransitionError: when it does not run, and so would not notice.
        """
        await self._regained("system_powerdown")
        if self.run_state not in _LISTENS:
            raise TransitionError(f"{self._machine.name}: the guest does not run: {self.run_state}")
        await self.execute(make_request("system_powerdown"))

    async def _regained(self, call: str) -> Client:
        """The connection, made again where it was lost."""
        client = self.connected(call)
        if client.lost.done():
            if client.lost.result().perhaps_exit:
                # If it is its end, let it come: what is done to make it go would be taken for the cause.
                await asyncio.sleep(client.lost_at + _EXIT_GRACE - time.monotonic())
            await self.reconnect()
        return self.connected(call)

    async def last_words(self) -> str | None:
        """QEMU has ended: read what it left in the socket; why it ended, where it said so."""
        try:
            if self._client is not None:
                await self._client.read_rest()
            return self._cause
        finally:
            self.run_state = None


class Waiting:
    """A wait for an event.

    :param session: of the launch that there was when the call began.
    """

    def __init__(self, wanted: Wanted, since: Mark | None, session: Session) -> None:
        self._wanted = wanted
        self._since = since
        self._ring = session.ring

    async def wait(self, session: Session) -> Event:
        self._ring = session.ring
        return await self._ring.wait(self._wanted, self._since)

    def at_last(self) -> Event | None:
        """What came before QEMU ended, if it did."""
        return self._ring.take(self._wanted, self._since)
