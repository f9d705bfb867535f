"""The one background thread of the process that serves all machines between the calls of their users.

An asyncio loop for monitors, consoles and the exits of processes. The lifecycle of every machine is walked
here and nowhere else, so two walks can never interleave.
"""

import asyncio
import contextlib
import contextvars
import logging
import os
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from .errors import TransitionError
from .perprocess import existing, per_process

T = TypeVar("T")
_LOGGER = logging.getLogger("vmfsm.iothread")


async def outcome(coroutine: Coroutine[Any, Any, T]) -> tuple[BaseException | None, T | None]:
    """What `coroutine` raised and returned.

    Nothing may leave a task of the I/O thread: `KeyboardInterrupt` and `SystemExit` would end its loop.
    """
    __tracebackhide__ = True
    try:
        return None, await coroutine
    except BaseException as error:  # noqa: BLE001 - whoever awaits it gets it
        return error, None


def _make_loop() -> asyncio.SelectorEventLoop:
    """Not the policy's: it has to offer `add_reader`, and nobody else's choice may change how it works."""
    selector = selectors.DefaultSelector()
    try:
        # A loop that lacks the descriptors for its own pair of sockets leaves half of itself behind.
        for end in socket.socketpair():
            end.close()
        return asyncio.SelectorEventLoop(selector)
    except BaseException:
        selector.close()
        raise


class IOThread:
    """An asyncio loop on a daemon thread, started at its first use.

    Everything here may be called from any thread, unless it says otherwise.
    """

    def __init__(self) -> None:
        self.loop = _make_loop()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._posted: deque[tuple[contextvars.Context, Callable[..., object], tuple[object, ...]]] = deque()
        self.thread = threading.Thread(target=self._serve, name="vmfsm-io", daemon=True)
        with contextlib.ExitStack() as undo:
            undo.callback(self.loop.close)
            self._wake_up, self._wake = os.pipe()
            undo.callback(os.close, self._wake)
            undo.callback(os.close, self._wake_up)
            for end in (self._wake_up, self._wake):
                os.set_blocking(end, False)
            self.loop.add_reader(self._wake_up, self._run_posted)
            self.thread.start()
            undo.pop_all()

    @classmethod
    def get(cls) -> "IOThread":
        """The thread of this process.

        :raises OSError: when it is to be started, and there are no descriptors for it.
        :raises RuntimeError: when it is to be started, and there can be no thread.
        """
        return per_process(cls)

    @classmethod
    def is_current(cls) -> bool:
        """Whether the calling thread is that of this process, which is not started for that."""
        io = existing(cls)
        return io is not None and io.inside()

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        while True:
            try:
                self.loop.run_forever()
            except BaseException:
                _LOGGER.exception("a task or callback on the I/O thread raised what ends a loop")

    def inside(self) -> bool:
        """Whether the calling thread is this one."""
        return threading.current_thread() is self.thread

    def post(self, function: Callable[..., object], *args: object) -> None:
        """Have `function(*args)` called on the thread, in the order of the posts."""
        # Not by `call_soon_threadsafe`, which keeps every OSError to itself: also that of a signal handler, a
        # TimeoutError, say, that is for the caller.
        try:
            self._posted.append((contextvars.copy_context(), function, args))
            self._awaken()
        except BaseException:  # such a one: what is posted already is called all the same
            self._awaken()
            raise

    def _awaken(self) -> None:
        with contextlib.suppress(BlockingIOError):  # so much was posted that it will be awake
            os.write(self._wake, b"\0")

    def _run_posted(self) -> None:
        with contextlib.suppress(BlockingIOError):  # as after an exception, below
            os.read(self._wake_up, 4096)
        try:
            while self._posted:
                context, function, args = self._posted.popleft()
                context.run(function, *args)
        finally:
            if self._posted:
                self.loop.call_soon(self._run_posted)

    def start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `coroutine` as a task and keep it alive until it ends. On the thread only."""
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def refuse_inside(self, call: str, machine: str | None) -> None:
        """Raise where a call that waits would wait for itself.

        :raises TransitionError: on the I/O thread.
        """
        if self.inside():
            whose = f"{machine}: " if machine else ""
            raise TransitionError(
                f"{whose}{call} waits and was called on the I/O thread, which it would stop; "
                "async hooks await the twins under `aio` instead",
                event=call,
                machine=machine,
            )
