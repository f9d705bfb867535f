"""One connection to a monitor: `qemu.qmp`'s client, made fast, silent, and able to say how it ended."""

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from qemu.qmp import ConnectError, Message, QMPClient, Runstate
from qemu.qmp.error import ProtocolError
from qemu.qmp.message import DeserializationError, UnexpectedTypeError
from qemu.qmp.qmp_client import GreetingError, NegotiationError, ServerParseError

# qemu.qmp logs errors and warnings where all is well: late replies, a QEMU that went. What is worth saying is
# in exceptions and records. In no tree of loggers, so that nobody's configuration gives it a voice.
_SILENT = logging.Logger("qemu.qmp", logging.CRITICAL + 1)  # noqa: LOG001 - just that

_EXCERPT = 120
_LONGEST = 64 * 1024 * 1024
"""Bytes of a message: more than any reply of use has, so that it bounds only what a broken QEMU may say."""


class Loss(NamedTuple):
    """How a connection ended."""

    what: str
    perhaps_exit: bool
    """It is what the end of QEMU looks like from here."""


class ConnectionLost(Exception):
    """A connection that could not be made. Stays inside of the plugin."""

    def __init__(self, loss: Loss) -> None:
        super().__init__(loss.what)
        self.loss = loss


class _ReadToTheEnd(socket.socket):
    """Writing to an end that has gone is no error: reading finds that out, behind what there is to be read.

    asyncio ends a connection at the first error, and what QEMU had said of why it goes would be lost.
    """

    def send(self, data: Any, flags: int = 0, /) -> int:
        try:
            return super().send(data, flags)
        except (BrokenPipeError, ConnectionResetError):
            return memoryview(data).nbytes

    def sendmsg(self, buffers: Iterable[Any], *ancillary: Any) -> int:
        parts = list(buffers)
        try:
            return super().sendmsg(parts, *ancillary)
        except (BrokenPipeError, ConnectionResetError):
            return sum(memoryview(part).nbytes for part in parts)


Reply = dict[str, Any]


class _Question(NamedTuple):
    answer: "asyncio.Future[Reply | Loss]"
    heard: Callable[[Reply], object] | None


class Client(QMPClient):
    """A connection. On the I/O thread only, for its whole life; it is connected once.

    :param hear: called with every event and its JSON.
    """

    def __init__(self, hear: Callable[[dict[str, Any], bytes], object]) -> None:
        super().__init__(readbuflen=_LONGEST)
        self.logger = _SILENT
        self.events.event_filter = lambda event: False  # else it would keep all of them, for ever
        self.greeted_with: dict[str, Any] = {}
        """The greeting, as it came."""
        self.lost: asyncio.Future[Loss] = asyncio.get_running_loop().create_future()
        """Done when the connection is over and nothing of it is left."""
        self.lost_at = 0.0
        """When that was, on the monotonic clock."""
        self._hear = hear
        self._questions: dict[int, _Question] = {}
        self._socket: socket.socket | None = None
        self._fd_under_way = asyncio.Lock()
        """Held from before a command goes with a descriptor until QEMU has answered it."""
        self._was_cut = False
        self._life: asyncio.Task[None] | None = None

    async def open(self, connection: socket.socket) -> None:
        """Wait for the greeting and negotiate; `lost` says when it is over.

        :raises ConnectionLost: when the other end hangs up or does not speak QMP.
        """
        connection = self._socket = _ReadToTheEnd(fileno=connection.detach())
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        first: set[asyncio.Future[Any]] = {ready, self.lost}
        # A task of its own: cancelled, qemu.qmp may leave exceptions behind that nobody retrieves.
        self._life = loop.create_task(self._live(connection, ready))
        try:
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self.close()
            raise
        if not ready.done():
            raise ConnectionLost(self.lost.result())
        assert self._writer is not None
        # Drained is empty: what is sent past asyncio must not overtake anything.
        self._writer.transport.set_write_buffer_limits(high=0)

    @property
    def version(self) -> tuple[int, int, int]:
        """QEMU's, of the greeting: major, minor, micro. From any thread."""
        major, minor, micro = (
            number if type(number := self._version("qemu", name)) is int else 0
            for name in ("major", "minor", "micro")
        )
        return major, minor, micro

    @property
    def package(self) -> str:
        """Who has packaged QEMU, and as what; often empty. Of the greeting, from any thread."""
        package = self._version("package")
        return package.strip() if isinstance(package, str) else ""

    @property
    def version_text(self) -> str:
        """Both, as `qemu-system-x86_64 --version` has them. From any thread."""
        numbers = ".".join(map(str, self.version))
        return f"{numbers} ({self.package})" if self.package else numbers

    def _version(self, *names: str) -> object:
        """What the greeting says; `None` where it does not."""
        value = self.greeted_with["QMP"]["version"]
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        return value

    def fileno(self) -> int:
        """The descriptor of the connection. From any thread."""
        assert self._socket is not None
        return self._socket.fileno()

    async def ask(
        self, number: int, request: bytes, heard: Callable[[Reply], object] | None = None
    ) -> Reply | Loss:
        """Send a command and wait for the reply with its number, or for the end of the connection.

        :param heard: called with the reply before anything that came after it is heard.

        Where QEMU does not read, no more than a command of each caller that waits is queued here: one that
        gives up before there is room has sent nothing.
        """
        writer = await self._writable()
        if writer is None:
            return await asyncio.shield(self.lost)
        question = _Question(asyncio.get_running_loop().create_future(), heard)
        self._questions[number] = question
        try:
            writer.write(request)
            return await question.answer
        finally:
            self._questions.pop(number, None)

    async def ask_with_fd(self, number: int, request: bytes, fd: int) -> Reply | Loss:
        """As `ask`, for a command that comes with a copy of `fd` (unix(7), `SCM_RIGHTS`).

        QEMU keeps only the last descriptor it was sent, and reads ahead of the commands it executes (QMP
        specification, "Out-of-band execution"). So no other one is sent until it has answered this command,
        even where the caller has given up by then.

        :raises OSError: as dup(2) and sendmsg(2) say.
        """
        copy = os.dup(fd)  # what the caller closes while this waits may be another file afterwards
        try:
            answer = await self._send_with_fd(number, request, copy)
        finally:
            os.close(copy)
        return await asyncio.shield(self.lost if answer is None else answer)

    async def _send_with_fd(
        self, number: int, request: bytes, fd: int
    ) -> "asyncio.Future[Reply | Loss] | None":
        """Send when it may be sent; the reply to come, or `None` when the connection is over."""
        answer = None
        await self._fd_under_way.acquire()
        try:
            while writer := await self._writable():
                assert self._socket is not None
                try:
                    sent = socket.send_fds(self._socket, [request], [fd])
                except BlockingIOError:
                    writer.write(b" ")  # nothing to QEMU; asyncio finds out when there is room
                    continue
                answer = asyncio.get_running_loop().create_future()
                answer.add_done_callback(lambda _: self._fd_under_way.release())
                self._questions[number] = _Question(answer, None)
                writer.write(request[sent:])
                break
        finally:
            if answer is None:
                self._fd_under_way.release()
        return answer

    async def _writable(self) -> asyncio.StreamWriter | None:
        """What to write to, when there is room; `None` when the connection is over."""
        writer = self._writer
        while writer is not None and self.runstate is Runstate.RUNNING:
            try:
                await writer.drain()
            except OSError:
                return None
            if writer.is_closing():
                return None
            if writer.transport.get_write_buffer_size() == 0:
                return writer
        return None

    def cut(self) -> None:
        """End the connection now, whatever is still to be sent."""
        # Never `disconnect` by itself: it waits for a QEMU that may be stopped to read what is queued.
        assert self._socket is not None
        self._was_cut = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    async def read_rest(self) -> None:
        """QEMU has ended: hear what it had sent, and return when nothing is left of the connection."""
        # No end of file would come where another process has inherited QEMU's end of the connection. On Linux
        # this is one, behind what has come.
        assert self._socket is not None
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)
        await asyncio.shield(self.lost)

    async def close(self) -> None:
        """End the connection, and return when nothing is left of it."""
        self.cut()
        await asyncio.shield(self.lost)

    async def disconnect(self) -> None:
        """The same, for who uses `QMP.client`. The base must not be asked twice, so only `_life` asks it."""
        if asyncio.current_task() is self._life:
            await super().disconnect()
        else:
            await self.close()

    # -- qemu.qmp's hooks -----------------------------------------------------------------------------------

    def _cb_outbound(self, msg: Message) -> Message:
        return msg  # the base formats it for the log

    def _cb_inbound(self, msg: Message) -> Message:
        if not self.greeted_with:
            self.greeted_with = dict(msg)
        return msg

    async def _readline(self) -> bytes:
        try:
            return await super()._readline()
        except ValueError as error:  # of StreamReader.readline
            raise ProtocolError(f"a message of more than {_LONGEST} bytes") from error

    async def _do_recv(self) -> Message:
        message = await super()._do_recv()
        # QEMU may send an event to who has just connected to it, even before the greeting; and, as late, the
        # reply to a command of who was connected before. The negotiation's own has no id.
        while self.runstate is Runstate.CONNECTING and (
            "event" in message or _number_of(message) is not None
        ):
            await self._on_message(message)
            message = await super()._do_recv()
        return message

    async def _on_message(self, msg: Message) -> None:
        number = _number_of(msg)
        if number is not None:
            _require_reply(msg)
            question = self._questions.pop(number, None)  # none: nobody waits for it any more
            if question is not None and not question.answer.done():
                reply = dict(msg)
                if question.heard is not None:
                    question.heard(reply)
                question.answer.set_result(reply)
            return
        if "event" in msg:
            event = dict(msg)
            _require_event(event)
            self._hear(event, bytes(msg))
        await super()._on_message(msg)

    # -- from its beginning to its end ----------------------------------------------------------------------

    async def _live(self, connection: socket.socket, ready: "asyncio.Future[None]") -> None:
        error: BaseException | None = None
        try:
            await self.connect(connection)
            ready.set_result(None)
            while self.runstate is Runstate.RUNNING:
                await self.runstate_changed()
        except Exception as failed:  # noqa: BLE001 - whatever it is: it is explained, not handled
            error = failed
        loss = _explain(error)
        if self.runstate is not Runstate.IDLE:
            loss = await self._end()
        connection.close()  # where it had not come to be a transport's
        self.lost_at = time.monotonic()
        self.lost.set_result(loss)
        for question in self._questions.values():
            if not question.answer.done():
                question.answer.set_result(loss)

    async def _end(self) -> Loss:
        """Let nothing be left of a connection that is over; how it ended."""
        was_cut = self._was_cut
        self.cut()
        try:
            await self.disconnect()
        except Exception as error:  # noqa: BLE001 - as above
            if not was_cut:
                return _explain(error)
        return Loss("it was closed from this side", perhaps_exit=False)


def _number_of(message: Message) -> int | None:
    """The number of the command that it is the reply to: of this connection or of an earlier one."""
    number = message.get("id")
    return number if type(number) is int else None


def _require_event(message: dict[str, Any]) -> None:
    if not isinstance(message["event"], str) or not isinstance(message.get("data", {}), dict):
        raise ProtocolError(f"an event that is none: {_excerpt(message)}")


def _require_reply(message: Message) -> None:
    if "return" in message:
        return
    error = message.get("error")
    if not isinstance(error, dict) or not all(isinstance(error.get(key), str) for key in ("class", "desc")):
        raise ProtocolError(f"a reply that is none: {_excerpt(dict(message))}")


def _explain(error: BaseException | None) -> Loss:
    if isinstance(error, ConnectError):
        error = error.exc
    if isinstance(error, GreetingError | NegotiationError):
        if isinstance(error.exc, AssertionError):
            return Loss("QEMU refused the negotiation", perhaps_exit=False)
        if isinstance(error.exc, KeyError | TypeError):
            return Loss(f"QEMU's greeting is none: {_excerpt(error.exc.args[0])}", perhaps_exit=False)
        error = error.exc
    match error:
        case EOFError() | ConnectionError():
            return Loss("QEMU closed it", perhaps_exit=True)
        case DeserializationError() if not error.raw.endswith(b"\n"):
            return Loss(
                f"QEMU closed it in the middle of a message: {_excerpt(error.raw)}", perhaps_exit=True
            )
        case DeserializationError():
            return Loss(f"QEMU sent what is not JSON: {_excerpt(error.raw)}", perhaps_exit=False)
        case UnicodeDecodeError():  # of bytes in which json sees UTF-16
            return Loss(f"QEMU sent what is not JSON: {_excerpt(error.object)}", perhaps_exit=False)
        case UnexpectedTypeError():
            return Loss(f"QEMU sent what is no message: {_excerpt(error.value)}", perhaps_exit=False)
        case ServerParseError():
            return Loss(
                f"QEMU could not read what it was sent: {_excerpt(dict(error.msg))}", perhaps_exit=False
            )
        case ProtocolError():
            return Loss(f"QEMU sent {error.error_message}", perhaps_exit=False)
        case _:
            return Loss(f"{type(error).__name__}: {error}", perhaps_exit=False)


def _excerpt(value: object) -> str:
    if isinstance(value, bytes) and len(value) > _EXCERPT:
        return f"{value[:_EXCERPT]!r}… ({len(value)} bytes)"
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _EXCERPT else f"{text[:_EXCERPT]}… ({len(text)} characters)"
