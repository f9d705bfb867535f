"""The one background thread of the process that serves all machines between the calls of their users.

An asyncio loop for monitors, consoles and the exits of processes. The lifecycle of every machine is walked
here and nowhere else, so two walks can never interleave.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Self, TypeVar

from .errors import TransitionError

T = TypeVar("T")


async def outcome(coroutine: Coroutine[Any, Any, T]) -> tuple[BaseException | None, T | None]:
    """What `coroutine` raised and returned.

    Nothing may leave a task of the I/O thread: `KeyboardInterrupt` and `SystemExit` would end its loop.
    """
    try:
        return None, await coroutine
    except BaseException as error:
        return error, None


class IOThread:
    """An asyncio loop on a daemon thread, started at its first use.

    Everything here may be called from any thread, unless it says otherwise.
    """

    _current: Self | None = None
    _start_lock = threading.Lock()

    def __init__(self) -> None:
        # Not the policy's loop: it has to offer add_reader, and nobody else's choice may change how it works.
        self.loop = asyncio.SelectorEventLoop()
        self.pid = os.getpid()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(target=self._serve, name="vmfsm-io", daemon=True)
        self._thread.start()

    @classmethod
    def get(cls) -> Self:
        """The thread of this process; a forked child gets one of its own."""
        current = cls._current
        if current is None:
            with cls._start_lock:
                current = cls._current
                if current is None:
                    current = cls._current = cls()
        return current

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def inside(self) -> bool:
        """Whether the calling thread is this one."""
        return threading.current_thread() is self._thread

    def post(self, function: Callable[..., object], *args: object) -> None:
        """Have `function(*args)` called on the thread, in the order of the posts."""
        self.loop.call_soon_threadsafe(function, *args)

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
            raise TransitionError(
                f"{machine}: {call} waits and was called on the I/O thread, which it would stop; "
                "async hooks await the twins under `aio` instead",
                event=call,
                machine=machine,
            )


# A forked child has no I/O thread, and shares the epoll instance of its parent's: it must not touch it,
# not even by collecting it. So the child drops the reference, and keeps the object.
_of_parents: list[IOThread] = []


def _forget_in_child() -> None:
    if IOThread._current is not None:
        _of_parents.append(IOThread._current)
        IOThread._current = None
    IOThread._start_lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_in_child)
