"""`QEMUQtestProtocol`: QEMU's qtest server, from any thread, and never waited for without bound."""

import asyncio
import contextlib
import os
import queue
import socket
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from vmfsm import Deadline, Machine
from vmfsm.caller import receive
from vmfsm.iothread import IOThread, outcome

from .errors import QtestClosedError, QtestTimeoutError
from .qtest_link import Link
from .transport import listen_at_path, listen_at_port

T = TypeVar("T")
Address = str | tuple[str, int]
TIMEOUT = 300.0
"""Seconds that a call waits for QEMU, unless `settimeout` says otherwise."""


class QEMUQtestProtocol:
    """A connection to QEMU's qtest server.

    :param address: `(host, port)` for TCP, else the path of a Unix socket.
    :param sock: a socket that is connected already, in place of `address`.
    :param server: listen at `address`, from now on, and let QEMU connect.
    :raises ValueError: unless exactly one of `address` and `sock` is given, and for a `sock` as a server.
    :raises OSError: when it cannot listen there.

    A call that gets no answer in time raises `QtestTimeoutError`, and one that is interrupted what
    interrupts it; what comes later is not taken for the answer to something else.

    It is of the process that made it: in a forked child, calls raise `QtestClosedError`, and `close` closes
    the child's copies alone.
    """

    def __init__(
        self,
        address: Address | None = None,
        sock: socket.socket | bool | None = None,
        server: bool = False,
    ) -> None:
        if isinstance(sock, bool):  # the second parameter was once `server`
            server, sock = sock, None
        if (address is None) == (sock is None):
            raise ValueError("qtest takes either an address or a socket (address, sock)")
        if server and address is None:
            raise ValueError("qtest listens at an address, not at a socket (sock, server)")
        self._io = IOThread.get()
        self._pid = os.getpid()
        self._address = address
        self._socket = sock
        self._listener = None if not server or address is None else _listen(address)
        self._timeout: float | None = TIMEOUT
        self._deadline: Callable[[float | None], Deadline] = Deadline
        self._link: Link | None = None
        self._accepting: asyncio.Task[Any] | None = None
        self._qemu_ended = False

    def connect(self) -> None:
        """Connect to the address; with a socket there is nobody to be reached.

        :raises OSError: as the system says.
        """
        if self._socket is None:
            assert self._address is not None
            self._socket = self._dial(self._address)
        self._begin(self._socket)

    def accept(self) -> None:
        """Wait for QEMU to connect.

        :raises QtestTimeoutError: when it has not in time.
        :raises QtestClosedError: when there is no server that could accept, or QEMU ended meanwhile.
        """
        if self._listener is None:
            raise QtestClosedError("qtest: accept is for a server that has not accepted yet")
        try:
            self._run(self._accept, self._listener, what="accept", timeout=self._timeout)
        finally:
            self._stop_listening()
        assert self._socket is not None
        self._begin(self._socket)

    def cmd(self, qtest_cmd: str) -> str:
        """Send a command; the line that answers it, with its end, or `""` where QEMU ends instead.

        :raises QtestTimeoutError: when there is none in time.
        :raises QtestClosedError: without a connection.
        :raises ValueError: for more than one line.
        """
        link = self._link
        if link is None or link.ended:
            raise QtestClosedError(f"qtest: not connected: {qtest_cmd!r}")
        if "\n" in qtest_cmd:
            raise ValueError(f"qtest: a command is one line: {qtest_cmd!r}")
        self._refuse_elsewhere(qtest_cmd)
        # Who is interrupted anywhere here has left for good: a late answer goes to an inbox of the past.
        inbox: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._io.post(link.ask, qtest_cmd, inbox.put)
        try:
            return receive(inbox, self._deadline(self._timeout))
        except queue.Empty:
            raise QtestTimeoutError(f"qtest: no answer within {self._timeout} s: {qtest_cmd!r}") from None

    @property
    def irqs(self) -> dict[int, bool]:
        """Whether the interrupts that QEMU was told to intercept are raised, as far as it has told."""
        return {} if self._link is None else dict(self._link.irqs)

    def settimeout(self, timeout: float | None) -> None:
        """Seconds that each call waits from now on; `None`: until QEMU ends.

        :raises vmfsm.ConfigError: for what is no timeout.
        """
        Deadline(timeout)  # says whether it is one
        self._timeout = timeout

    def close(self) -> None:
        """Close the connection, and listen no longer. May be called twice."""
        self._stop_listening()
        if self._link is None or os.getpid() != self._pid:
            if self._socket is not None:
                self._socket.close()
        elif not self._link.ended:
            self._run(self._link.close, what="close", timeout=TIMEOUT)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _serve(self, machine: Machine) -> None:
        """It is this machine's: while that is held, time stands still for calls."""
        self._deadline = machine.deadline

    async def qemu_has_ended(self) -> None:
        """Let nobody wait any more. On the I/O thread."""
        self._qemu_ended = True
        if self._accepting is not None:
            self._accepting.cancel()
        if self._link is not None:
            await self._link.dry()

    # -- how ------------------------------------------------------------------------------------------------

    def _dial(self, address: Address) -> socket.socket:
        if isinstance(address, tuple):
            return socket.create_connection(address, Deadline(self._timeout).remaining())
        with contextlib.ExitStack() as unless_connected:
            end = unless_connected.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            end.settimeout(Deadline(self._timeout).remaining())
            end.connect(address)
            unless_connected.pop_all()
        return end

    def _begin(self, end: socket.socket) -> None:
        async def begin() -> Link:
            return Link(end)

        self._link = link = self._run(begin, what="connect", timeout=TIMEOUT)
        # What nobody closed is closed when it is forgotten, as any socket.
        weakref.finalize(self, self._io.post, link.end).atexit = False

    async def _accept(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        if self._qemu_ended:
            raise QtestClosedError("qtest: QEMU has ended before it connected")
        self._accepting = asyncio.current_task()
        try:
            self._socket = (await asyncio.get_running_loop().sock_accept(listener))[0]
        finally:
            self._accepting = None

    def _refuse_elsewhere(self, what: str) -> None:
        """Where a call that waits would wait in vain."""
        self._io.refuse_inside(f"qtest {what}", None)
        if os.getpid() != self._pid:
            raise QtestClosedError(f"qtest: in a forked child; it belongs to process {self._pid}: {what!r}")

    def _run(
        self, function: Callable[..., Coroutine[Any, Any, T]], *args: object, what: str, timeout: float | None
    ) -> T:
        """Run it on the I/O thread, and wait; it is cancelled where the wait is over before."""
        self._refuse_elsewhere(what)
        call = _Call(self._io, function, args)
        try:
            self._io.post(call.start)
            error, value = receive(call.outcome, self._deadline(timeout))
        except queue.Empty:
            raise QtestTimeoutError(f"qtest: no answer within {timeout} s: {what}") from None
        finally:
            self._io.post(call.leave)
        if isinstance(error, asyncio.CancelledError):
            raise QtestClosedError(f"qtest: QEMU has ended: {what}")
        if error is not None:
            raise error
        return cast(T, value)


class _Call:
    """A coroutine on the I/O thread that somebody waits for. A signal handler's exception may end the wait
    anywhere, so that what is waited with has no lock that could stay locked.
    """

    def __init__(
        self, io: IOThread, function: Callable[..., Coroutine[Any, Any, Any]], args: tuple[object, ...]
    ) -> None:
        self.outcome: queue.SimpleQueue[tuple[BaseException | None, object]] = queue.SimpleQueue()
        self._io = io
        self._function = function
        self._args = args
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = self._io.start(self._run())

    async def _run(self) -> None:
        self.outcome.put(await outcome(self._function(*self._args)))

    def leave(self) -> None:
        task, self._task = self._task, None  # so that it is collected on this thread
        if task is not None:
            task.cancel()


def _listen(address: Address) -> socket.socket:
    return listen_at_port(*address) if isinstance(address, tuple) else listen_at_path(address)
