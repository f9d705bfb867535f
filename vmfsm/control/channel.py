"""A connection to a harness: lines of JSON out and in, each by a deadline."""

import collections
import contextlib
import select
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any, Self

from vmfsm import proc
from vmfsm.deadline import Deadline
from vmfsm.errors import MachineTimeout, VMError
from vmfsm.paths import socket_name
from vmfsm.peers import check_peer, credentials

from .protocol import LONGEST_ANSWER, PROTOCOL, decode, encode

_READ = 256 * 1024
_PAUSE = 0.01
"""Seconds until a harness is tried again whose queue of connections is full."""


class ControlError(VMError):
    """A harness refused what was asked, or could not do it."""

    type: str | None = None
    """The name of the exception that was raised there; `None` where it was none of that harness's."""
    field: str | None = None
    """The field of the request that was wrong."""


class NoAnswer(ControlError, MachineTimeout):
    """The harness did not answer in time: it is stopped (SIGSTOP), or something holds up its I/O thread."""


class NoSuchMachine(ControlError):
    """There is no machine of this name, or more than one, or none that can be asked."""


class Disconnected(ControlError):
    """The harness has ended, or the connection to it."""

    has_ended = False
    """The harness has, or is about to: it listens no more."""


class Channel:
    """:param path: of the harness's socket.
    :raises NoAnswer: when the deadline is over before it takes the connection.
    :raises Disconnected: when nobody listens there (any more).
    :raises PermissionError: when somebody else does.

    For one thread at a time, but for `shut`.
    """

    def __init__(self, path: str, deadline: Deadline) -> None:
        self.path = path
        self._input = bytearray()
        self._searched = 0
        self._lines: collections.deque[bytes] = collections.deque()
        self._guard = threading.Lock()
        self._is_shut = False
        self._greeted = False
        while True:
            connection = connect(path)
            if connection is not None:
                break
            if deadline.expired:
                raise no_answer(path, "to be connected", deadline)
            time.sleep(_PAUSE)
        self._socket = connection
        try:
            pid, _ = credentials(connection)
            self._harness = proc.identify(pid)
        except BaseException:
            connection.close()
            raise
        self._is_seen = pid != 0  # else it is in a pid namespace that is not seen from here

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, request: Mapping[str, object], deadline: Deadline) -> None:
        """:raises NoAnswer, Disconnected: as above. :raises ValueError, TypeError: for what is no JSON."""
        left = memoryview(encode(request))
        while left:
            try:
                left = left[self._socket.send(left) :]
            except BlockingIOError:
                self._wait(select.POLLOUT, deadline)
            except OSError as error:
                self.take()  # it may have said why, and hung up then
                raise self._disconnected() from error

    def receive(self, deadline: Deadline) -> dict[str, Any]:
        """The next message after the greeting. :raises NoAnswer, Disconnected: as above."""
        while True:
            message = self.take()
            if message is not None:
                return message
            self._wait(select.POLLIN, deadline)

    def take(self) -> dict[str, Any] | None:
        """The same without waiting; `None` where there is none yet."""
        while not self._lines:
            try:
                data = self._socket.recv(_READ)
            except BlockingIOError:
                return None
            except OSError as error:
                raise self._disconnected() from error
            if not data:
                raise self._disconnected()
            self._feed(data)
        message = self._decode(self._lines.popleft())
        if not self._greeted:
            self._greet(message)
            return self.take()
        return message

    def _disconnected(self) -> Disconnected:
        """Which of the two has ended."""
        if self._is_shut:
            return Disconnected("the connection was closed here")
        has_ended = False
        with contextlib.suppress(OSError):  # that can't be had just now
            has_ended = self._is_seen and (self._harness is None or self._harness.is_over)
        error = Disconnected(f"the harness has {'ended' if has_ended else 'hung up'}")
        error.has_ended = has_ended
        return error

    def _feed(self, data: bytes) -> None:
        self._input += data
        while (end := self._input.find(b"\n", self._searched)) >= 0:
            self._lines.append(bytes(self._input[:end]))
            del self._input[: end + 1]
            self._searched = 0
        self._searched = len(self._input)
        if self._searched > LONGEST_ANSWER:
            raise ControlError(f"{self.path}: an answer of more than {LONGEST_ANSWER} bytes")

    def _decode(self, line: bytes) -> dict[str, Any]:
        try:
            return decode(line)
        except ValueError as error:
            raise ControlError(f"{self.path}: that is not a harness's answer: {error}") from None

    def _greet(self, greeting: dict[str, Any]) -> None:
        if "error" in greeting:
            raise refusal(greeting["error"])
        if greeting.get("protocol") != PROTOCOL:
            raise ControlError(
                f"{self.path}: it speaks version {greeting.get('protocol')!r} of the protocol "
                f"(vmfsm {greeting.get('vmfsm')}), not {PROTOCOL}"
            )
        self._greeted = True

    def _wait(self, what: int, deadline: Deadline) -> None:
        poll = select.poll()
        poll.register(self._socket, what)
        remaining = deadline.remaining()
        if not poll.poll(None if remaining is None else remaining * 1000) and deadline.expired:
            raise no_answer(self.path, "an answer", deadline)

    def shut(self) -> None:
        """Have whoever waits here be told that it is over. From any thread, any number of times."""
        with self._guard:
            if not self._is_shut:
                self._is_shut = True
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with self._guard:
            self._is_shut = True
            self._socket.close()


def connect(path: str) -> socket.socket | None:
    """A connection, without waiting; `None` where as many wait as the system lets.

    :raises Disconnected, PermissionError: as of `Channel`.
    """
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.setblocking(False)
        with socket_name(path) as name:
            connection.connect(name)
        check_peer(connection)
    except BlockingIOError:
        connection.close()
        return None
    except PermissionError:
        connection.close()
        raise
    except OSError as error:
        connection.close()
        gone = Disconnected(f"nobody listens at {path}: {error.strerror or error}")
        gone.has_ended = True
        raise gone from error
    except BaseException:
        connection.close()
        raise
    return connection


def no_answer(path: str, what: str, deadline: Deadline) -> NoAnswer:
    error = NoAnswer(f"{path}: waited {deadline.timeout:g} s for {what}, which did not come")
    error.operation, error.timeout = "control", deadline.timeout
    return error


def refusal(said: object) -> ControlError:
    """What an error reply is raised as."""
    reply = said if isinstance(said, dict) else {}
    kind = NoSuchMachine if reply.get("field") == "machine" else ControlError
    error = kind(str(reply.get("message", said)))
    error.type, error.field = reply.get("type"), reply.get("field")
    for note in reply.get("notes") or ():
        error.add_note(str(note))
    return error


def result_of(reply: dict[str, Any]) -> dict[str, Any]:
    """Of a reply. :raises ControlError: where it is an error."""
    if "error" in reply:
        raise refusal(reply["error"])
    result = reply.get("result")
    if not isinstance(result, dict):
        raise ControlError("that is not a harness's answer")
    return result
