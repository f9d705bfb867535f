"""The ladder by which a QEMU that is asked to go is made to go, with a bound at each rung."""

import asyncio
import signal
from collections.abc import Callable, Sequence
from typing import Any

from .deadline import Deadline
from .iothread import outcome
from .plan import Polite
from .process import REAP

WITHOUT_LIMIT = 30.0
"""Seconds that the ladder takes at most where the caller set no limit."""

# What each rung must leave of the time there is, so that a slow hook can't cost a healthy QEMU its life.
_AFTER_HOOKS = 0.6
_AFTER_POLITE = 0.3
_AFTER_SIGTERM = 0.15
# A guest that is to shut itself down gets most of the time for politeness: QEMU itself needs milliseconds.
_SHARE_OF_GUEST = 0.9


async def stop(
    *,
    gone: "asyncio.Future[Any]",
    cleaning: "asyncio.Future[Any]",
    deadline: Deadline,
    ways: Sequence[tuple[str, Polite, bool]],
    send: Callable[[signal.Signals, bool], object],
    record: Callable[[str, dict[str, object], int], object],
) -> None:
    """End QEMU: hooks, polite ways, SIGTERM, SIGKILL. On the I/O thread; returns when it has gone.

    Or `REAP` seconds after SIGKILL. Where there is no polite way, or none could be gone (the monitor was
    lost, say), SIGTERM is the polite way: QEMU ends well by it, once it handles it.

    :param cleaning: the `early_cleanup` hooks, which come first; a late one goes on beside the ladder.
    :param send: sends a signal, and is told whether that is by force.
    """
    if deadline.timeout is None:
        deadline = Deadline(WITHOUT_LIMIT, deadline.clock)
    total = deadline.remaining() or 0.0
    await deadline.first({gone, cleaning}, total * _AFTER_HOOKS)

    asked = False
    for number, (plugin, way, of_guest) in enumerate(ways):
        if gone.done() or deadline.expired:
            break
        record("stop", {"way": f"{plugin} (the guest)" if of_guest else plugin}, 200)
        asking = asyncio.ensure_future(_ask(way))
        left = max(0.0, (deadline.remaining() or 0.0) - total * _AFTER_POLITE)
        rest = len(ways) - 1 - number
        share = _SHARE_OF_GUEST if of_guest and rest else 1 / (rest + 1)
        reserve = total * _AFTER_POLITE + left * (1 - share)
        await deadline.first({gone, asking}, reserve)
        if not asking.done():
            asked = True
            asking.cancel()
        elif asking.result() is None:
            asked = True
            await deadline.first({gone}, reserve)

    if not gone.done() and not deadline.expired:
        record("stop", {"way": "SIGTERM"}, 200)
        send(signal.SIGTERM, asked)
        await deadline.first({gone}, total * _AFTER_SIGTERM)
    if not gone.done():
        record("stop", {"way": "SIGKILL"}, 200)
        send(signal.SIGKILL, True)
        await asyncio.wait({gone}, timeout=REAP)


async def _ask(way: Polite) -> BaseException | None:
    """What it raised. Nothing is made before this begins: there may be no time for that."""
    error, _ = await outcome(_take(way))
    return error


async def _take(way: Polite) -> None:
    await way()
