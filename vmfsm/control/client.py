"""One machine of another program, as it is had from here."""

import base64
import itertools
import os
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Generic, NamedTuple, Self, TypeVar

from vmfsm.deadline import Deadline
from vmfsm.timeline import Record

from .channel import Channel, ControlError, Disconnected, NoAnswer, result_of
from .protocol import LONGEST_TIMEOUT

T = TypeVar("T")

_TIMEOUT = 10.0
_GRACE = 3.0
"""Seconds that an answer may come after the timeout of what was asked for: that, and its clean-up."""


class Output(NamedTuple):
    """What came of a console."""

    data: bytes = b""
    lost: int = 0
    """Bytes before it that came faster than they were read."""
    closed: bool = False
    """No more comes in this launch."""


class Client:
    """A machine of another program of this user: what can be seen of it, and done to it, from here.

    `find` makes one. Everything may be used from any thread. Calls wait at most `timeout` seconds (scaled as
    all are), and three more where the harness itself has that time for what is asked. They raise

    * `NoAnswer` when the harness does not answer by then,
    * `Disconnected` when it has ended,
    * `ControlError` for what was raised there; its `type` is that exception's name.

    Nothing is connected before the first call. `close`, or the end of a `with` block, leaves nothing behind;
    streams are closed by themselves.

    :param path: of the harness's socket.
    :param machine: the machine's name there, or its number.
    """

    def __init__(self, path: str, machine: "str | int", *, name: str | None = None) -> None:
        self.path = path
        self.machine = machine
        self.name = str(machine) if name is None else name
        self._numbers = itertools.count(1)
        self._calling = threading.Lock()
        self._channel: Channel | None = None
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Client of {self.name} at {self.path}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up. Who waits in a call in another thread gets `Disconnected`. Any number of times."""
        self._is_closed = True
        channel = self._channel
        if channel is not None:
            channel.shut()
        with self._calling:
            self._drop()

    # -- seeing ---------------------------------------------------------------------------------------------

    def snapshot(self, *, timeout: float | None = _TIMEOUT) -> dict[str, Any]:
        """`Machine.snapshot` there."""
        return self._ask("snapshot", timeout)

    def records(
        self,
        *,
        history: bool = True,
        follow: bool = True,
        timeout: float | None = _TIMEOUT,
        limit: float | None = None,
    ) -> "Stream[Record]":
        """The timeline so far, and what is added to it, over all launches.

        :param history: with what there is already.
        :param follow: with what is to come; without it the iteration ends there.
        :param timeout: for the first answer.
        :param limit: seconds after which the iteration ends.

        Where they come faster than they are read, some are lost, and there is one of kind `dropped` in place
        of them, as for observers. `at` is on the clock of the host, which this program has, too.
        """
        fields = {"history": history, "follow": follow}
        return self._stream("records", fields, timeout, limit, _record)

    def events(
        self, *, timeout: float | None = _TIMEOUT, limit: float | None = None
    ) -> "Stream[dict[str, Any]]":
        """The monitor's events from now on; `{"lost": n}` in place of those that came too fast."""
        return self._stream("events", {}, timeout, limit, dict)

    def console(
        self,
        name: str | None = None,
        *,
        tail: int = 16 * 1024,
        follow: bool = True,
        timeout: float | None = _TIMEOUT,
        limit: float | None = None,
    ) -> "Stream[Output]":
        """What a console says, over all launches.

        :param name: which; the first without it.
        :param tail: so many of the last bytes that are kept come first, at most 1 MiB.
        """
        fields = {"console": name, "tail": tail, "follow": follow}
        return self._stream("console", fields, timeout, limit, _output)

    # -- doing ----------------------------------------------------------------------------------------------

    def qmp(
        self, command: str, arguments: Mapping[str, Any] | None = None, *, timeout: float | None = 30
    ) -> dict[str, Any]:
        """Execute a command at the monitor, which the harness and others use at the same time.

        Returns the reply to it: `{"return": …}` or `{"error": …}`.
        """
        given = None if arguments is None else dict(arguments)
        return self._do("qmp", timeout, command=command, arguments=given)

    def write(self, data: bytes, console: str | None = None, *, timeout: float | None = 30) -> None:
        """Type at a console; returns when QEMU has taken all of it. At most 128 KiB."""
        self._do("write", timeout, console=console, data=base64.b64encode(data).decode("ascii"))

    def gdbstub(self, *, timeout: float | None = 30) -> str:
        """Have QEMU listen for gdb, where it does not yet; what gdb's `target remote` takes."""
        return str(self._do("gdbstub", timeout)["target"])

    def screendump(
        self,
        path: "str | os.PathLike[str]",
        *,
        format: str = "png",  # noqa: A002
        timeout: float | None = 30,
    ) -> str:
        """Have QEMU write a picture of its screen to a file; the absolute path of that.

        :param format: `png`, or `ppm` for a QEMU that was built without the other.

        QEMU writes it: with its rights, and a relative path is made one of this process's directory first.
        """
        whole = os.path.abspath(path)
        self._do("screendump", timeout, path=whole, format=format)
        return whole

    def bundle(
        self,
        directory: "str | os.PathLike[str] | None" = None,
        *,
        memory: bool = False,
        timeout: float = 10,
    ) -> str:
        """`Machine.bundle` there; the absolute path of it.

        The harness writes it: as its user, and a relative path is made one of this process's directory first.
        """
        where = None if directory is None else os.path.abspath(directory)
        return str(self._do("bundle", timeout, directory=where, memory=memory)["path"])

    def hold(
        self, reason: str | None = None, *, keep: bool = True, timeout: float | None = _TIMEOUT
    ) -> dict[str, Any]:
        """`Machine.hold` there, until somebody releases it: `{"held": …}`, why it is held by now.

        :param reason: for those who wonder; they are told this process and user as well.
        :param keep: a `shutdown` waits for the release, too.

        It stays held when this client has gone.
        """
        return self._ask("hold", timeout, reason=reason, keep=keep)

    def release(self, *, timeout: float | None = _TIMEOUT) -> dict[str, Any]:
        """`Machine.release` there: all holds end, whoever has them."""
        return self._ask("release", timeout)

    def shutdown(self, *, guest: bool = False, timeout: float | None = 30) -> dict[str, Any]:
        """`Machine.shutdown` there: `{"state": …, "reason": …, "exit_status": …}` as it has ended.

        Refused while it is kept by a hold.
        """
        return self._do("shutdown", timeout, guest=guest)

    def kill(self, *, timeout: float | None = 10) -> dict[str, Any]:
        """`Machine.kill` there; as `shutdown`."""
        return self._do("kill", timeout)

    # -- how ------------------------------------------------------------------------------------------------

    def _do(self, operation: str, timeout: float | None, **fields: object) -> dict[str, Any]:
        """What the harness itself has a timeout for."""
        Deadline(timeout)  # refuses what is none
        most = LONGEST_TIMEOUT if timeout is None else min(timeout, LONGEST_TIMEOUT)
        waits = None if timeout is None else timeout + _GRACE
        return self._ask(operation, waits, timeout=most, **fields)

    def _ask(self, operation: str, waits: float | None, **fields: object) -> dict[str, Any]:
        __tracebackhide__ = True
        deadline = Deadline(waits)
        remaining = deadline.remaining()
        if not self._calling.acquire(timeout=-1 if remaining is None else remaining):
            raise NoAnswer(f"{self.name}: another call waits for an answer still")
        try:
            channel = self._connected(deadline)
            number = next(self._numbers)
            channel.send({"id": number, "op": operation, "machine": self.machine, **fields}, deadline)
            reply = channel.receive(deadline)
            while reply.get("id") not in {number, None}:
                reply = channel.receive(deadline)
        except BaseException:
            self._drop()  # what was asked for may be answered yet
            raise
        finally:
            self._calling.release()
        return result_of(reply)

    def _connected(self, deadline: Deadline) -> Channel:
        if self._is_closed:
            raise Disconnected(f"{self.name}: the client was closed")
        if self._channel is None:
            self._channel = Channel(self.path, deadline)
        return self._channel

    def _drop(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def _stream(
        self,
        operation: str,
        fields: Mapping[str, object],
        timeout: float | None,
        limit: float | None,
        make: "Callable[[dict[str, Any]], T]",
    ) -> "Stream[T]":
        request = {"id": 1, "op": operation, "machine": self.machine, **fields}
        return Stream(self.path, request, Deadline(timeout), Deadline(limit), make)


class Stream(Generic[T]):
    """What comes, item by item: an iterator with a connection of its own.

    It is over when it is closed, from any thread, or its limit is reached, or the machine is gone from its
    harness (`over`). :raises Disconnected: in the iteration, when the harness has ended.
    """

    def __init__(
        self,
        path: str,
        request: Mapping[str, object],
        deadline: Deadline,
        limit: Deadline,
        make: Callable[[dict[str, Any]], T],
    ) -> None:
        self.over: str | None = None
        """Why it is: `done`, `gone`, `closed`, or `limit`."""
        self._limit = limit
        self._make = make
        self._reading = threading.Lock()
        self._channel = Channel(path, deadline)
        try:
            self._channel.send(request, deadline)
            reply = self._channel.receive(deadline)
            self.begin: dict[str, Any] = _item(reply)["begin"] if "item" in reply else result_of(reply)
        except BaseException:
            self._channel.close()
            raise

    def __iter__(self) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __next__(self) -> T:
        try:
            return self._next(self._limit)
        except NoAnswer:
            self._end("limit")
            raise StopIteration from None

    def next(self, timeout: float | None) -> T:
        """The next item.

        :raises NoAnswer: when none comes in time; it goes on all the same.
        :raises StopIteration: when it is over.
        """
        deadline = Deadline(timeout)
        remaining, limit = deadline.remaining(), self._limit.remaining()
        if limit is not None and (remaining is None or limit < remaining):
            return next(self)
        return self._next(deadline)

    def _next(self, deadline: Deadline) -> T:
        __tracebackhide__ = True
        with self._reading:
            if self.over is not None:
                self._channel.close()
                raise StopIteration
            try:
                reply = self._channel.receive(deadline)
                if "item" in reply:
                    return self._make(_item(reply))
                self._end(str(result_of(reply).get("over")))
            except NoAnswer:
                raise
            except ControlError:
                if self.over is None:
                    self._end("error")
                    raise
            finally:
                if self.over is not None:
                    self._channel.close()
        raise StopIteration

    def _end(self, why: str) -> None:
        if self.over is None:
            self.over = why

    def close(self) -> None:
        """End it: who waits for the next item gets the end. From any thread, any number of times."""
        self._end("closed")
        self._channel.shut()
        if self._reading.acquire(timeout=_TIMEOUT):  # who reads has been told to leave
            try:
                self._channel.close()
            finally:
                self._reading.release()


def _item(reply: dict[str, Any]) -> dict[str, Any]:
    item = reply["item"]
    if not isinstance(item, dict):
        raise ControlError("that is not a harness's answer")
    return item


def _record(item: dict[str, Any]) -> Record:
    return Record(item["kind"], item["at"], item["data"])


def _output(item: dict[str, Any]) -> Output:
    data = base64.b64decode(item.get("data", ""))
    return Output(data, item.get("lost", 0), item.get("closed", False))
