"""What may block (a hung network file system, a name server), so that it holds up nobody else."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_thread(function: Callable[[], T], undo: Callable[[T], object] | None = None) -> T:
    """Call `function` in a thread of its own; what it returned or raised. In any asyncio loop.

    A call cannot be stopped, but the wait for it can be cancelled.

    :param undo: called with what `function` returned, in a thread, too, where nobody waits for that any more.
    :raises RuntimeError: where there can be no thread.
    """
    # Not asyncio's executor: its threads stay, one call that hangs takes one from the others, and none can be
    # made while the interpreter exits.
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def drop(value: T) -> None:
        if undo is not None:
            _start(lambda: undo(value))

    def take(value: T) -> None:
        if answer.done():
            drop(value)
        else:
            answer.set_result(value)

    def fail(error: BaseException) -> None:
        if not answer.done():
            answer.set_exception(error)

    def call() -> None:
        try:
            value = function()
        except BaseException as error:  # noqa: BLE001 - it is for who awaits it
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(fail, error)
            return
        try:
            loop.call_soon_threadsafe(take, value)
        except RuntimeError:  # the loop was closed: nobody waits any more
            if undo is not None:
                undo(value)

    _start(call)
    try:
        return await answer
    except asyncio.CancelledError:
        if answer.done() and not answer.cancelled() and answer.exception() is None:
            drop(answer.result())  # it came in the moment of the cancellation
        raise


def _start(function: Callable[[], object]) -> None:
    threading.Thread(target=function, name="vmfsm-blocking", daemon=True).start()
