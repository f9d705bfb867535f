"""One who asks: requests in, answers out, both bounded. On the I/O thread only."""

import asyncio
import socket
from typing import TYPE_CHECKING, Any, cast

from vmfsm.errors import ConfigError, VMError, printable
from vmfsm.iothread import outcome
from vmfsm.onlookers import look_on
from vmfsm.redaction import Secrets

from . import operations
from .following import Feed
from .protocol import LONGEST_REQUEST, Fields, Peer, decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_REQUESTS = 64
"""Of a connection that are in progress."""
_MOST_PENDING = 16 * 1024 * 1024
"""Bytes that one does not read: who has been sent so much gets no more, ever."""
_LINES_A_TURN = 16
"""Of the loop: others have their turns between."""


class Connection(asyncio.Protocol):
    """:param peer: whose it is.
    :param greeting: is sent first.
    :param lost: called when it is over.
    """

    def __init__(
        self,
        connection: socket.socket,
        peer: Peer,
        greeting: dict[str, object],
        lost: "Callable[[Connection], object]",
    ) -> None:
        self.socket = connection
        self.tasks: dict[int, asyncio.Task[None]] = {}
        """The requests in progress, by their numbers."""
        self._feeds: dict[int, Feed[Any]] = {}
        self._peer = peer
        self._greeting = greeting
        self._lost = lost
        self._input = bytearray()
        self._searched = 0
        self._is_at_end = False
        """The client says no more."""
        self._is_due = False
        """The next turn serves what is left."""
        self._writable = asyncio.Event()
        self._writable.set()
        self._transport: asyncio.Transport

    def leave(self) -> None:
        """The process ends: tell what happened last, and that."""
        if not self._transport.is_closing():
            for number, feed in self._feeds.items():
                feed.flush()
                self._write({"id": number, "result": {"over": "ended"}})
            self._transport.close()

    # -- asyncio's ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._write(self._greeting)

    def connection_lost(self, error: Exception | None) -> None:
        for task in self.tasks.values():
            task.cancel()
        self._lost(self)

    def data_received(self, data: bytes) -> None:
        self._input += data
        self._serve()

    def eof_received(self) -> bool:
        self._is_at_end = True
        for feed in self._feeds.values():
            feed.finish("stopped")
        self._serve()
        return True  # answers may be on their way

    def pause_writing(self) -> None:
        self._writable.clear()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._writable.set()
        asyncio.get_running_loop().call_soon(self._serve)

    # -- requests -------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        """What was asked, as long as the answers are read."""
        if self._is_due:
            return
        for _ in range(_LINES_A_TURN):
            if self._transport.is_closing() or not self._writable.is_set():
                return
            line = self._next_line()
            if line is None:
                self._go_on()
                return
            self._request(line)
        self._transport.pause_reading()
        self._is_due = True
        asyncio.get_running_loop().call_soon(self._go_on_serving)

    def _go_on_serving(self) -> None:
        self._is_due = False
        self._serve()

    def _next_line(self) -> bytes | None:
        end = self._input.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(self._input)
            if self._searched > LONGEST_REQUEST:
                self._refuse(f"a line is at most {LONGEST_REQUEST} bytes")
            return None
        line = bytes(self._input[:end])
        del self._input[: end + 1]
        self._searched = 0
        return line

    def _go_on(self) -> None:
        if not self._transport.is_closing():
            if not self._is_at_end:
                self._transport.resume_reading()
            elif not self.tasks:
                self._transport.close()

    def _refuse(self, message: str) -> None:
        """It does not speak the protocol."""
        self._write({"id": None, "error": {"type": "ProtocolError", "message": message}})
        self._transport.close()

    def _request(self, line: bytes) -> None:
        if len(line) > LONGEST_REQUEST:
            self._refuse(f"a line is at most {LONGEST_REQUEST} bytes")
            return
        try:
            fields = decode(line)
        except ValueError as error:  # also for bytes that are no text
            self._refuse(f"not a line of JSON with an object: {error}")
            return
        number = fields.pop("id", None)
        if isinstance(number, bool) or not isinstance(number, int) or abs(number) > 2**53:
            self._fail(None, ConfigError("id must be a whole number, exact in JSON", field="id"))
        elif number in self.tasks:
            self._fail(None, ConfigError(f"id {number} is that of a request in progress", field="id"))
        else:
            self._begin(number, fields)

    def _begin(self, number: int, fields: dict[str, Any]) -> None:
        try:
            operation = Fields("a request", fields).text("op")
            given = Fields(operation, {name: value for name, value in fields.items() if name != "op"})
            if operation == "stop":
                self._stop(number, given)
                return
            if len(self.tasks) >= _MOST_REQUESTS:
                raise ConfigError(f"more than {_MOST_REQUESTS} requests are in progress", field="id")
            request = operations.Request(self._peer, given)
            call = operations.find(operation)
        except ConfigError as error:
            self._fail(number, error)
            return
        task = asyncio.get_running_loop().create_task(self._run(number, call, request))
        self.tasks[number] = task
        task.add_done_callback(lambda _: self._done(number))

    def _stop(self, number: int, fields: Fields) -> None:
        of = fields.whole("of", -1, 2**53)
        fields.done()
        task = self.tasks.get(of)
        if task is not None:
            task.cancel()
        self._write({"id": number, "result": {"stopped": task is not None}})

    async def _run(self, number: int, call: operations.Operation, request: operations.Request) -> None:
        look_on("control")
        error, result = await outcome(self._call(number, call, request))
        secrets, request.secrets = request.secrets, None
        if isinstance(error, asyncio.CancelledError):
            result = {"over": "stopped"}
        elif error is not None:
            self._fail(number, error, secrets)
            return
        try:
            self._write({"id": number, "result": result})
        except (ValueError, TypeError) as bad:  # a plugin's
            self._fail(number, bad, secrets)

    async def _call(self, number: int, call: operations.Operation, request: operations.Request) -> object:
        result = await call(request)
        if isinstance(result, Feed):
            self._feeds[number] = result
            if self._is_at_end:
                result.finish("stopped")
            return await result.run(
                lambda item: self._write({"id": number, "item": item}), self._writable.wait
            )
        return result

    def _done(self, number: int) -> None:
        del self.tasks[number]
        self._feeds.pop(number, None)
        self._serve()

    # -- answers --------------------------------------------------------------------------------------------

    def _fail(self, number: int | None, error: BaseException, secrets: Secrets | None = None) -> None:
        redact = str if secrets is None else secrets.redact
        said: dict[str, object] = {"type": type(error).__name__, "message": printable(redact(str(error)))}
        if isinstance(error, ConfigError):
            said["field"] = error.field
        if isinstance(error, VMError) and hasattr(error, "__notes__"):
            said["notes"] = [redact(note) for note in error.__notes__]
        self._write({"id": number, "error": said})

    def _write(self, message: dict[str, object]) -> None:
        if self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() > _MOST_PENDING:
            self._transport.abort()
            return
        self._transport.write(encode(message))
