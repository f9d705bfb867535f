"""The ladder by which QEMU is made to go, by itself."""

import asyncio
import gc
import signal
from collections.abc import Iterable

from vmfsm.deadline import Deadline
from vmfsm.stopping import stop


def test_time_that_is_too_short_for_the_polite_way_to_begin() -> None:
    """It is given up before it has begun, and leaves nothing that Python would warn of."""
    asyncio.run(_stop_each(1e-6 * 1.03**number for number in range(300)))
    gc.collect()


async def _stop_each(times: Iterable[float]) -> None:
    for seconds in times:
        sent = await _stop(seconds)
        assert sent[-1] is signal.SIGKILL


async def _stop(seconds: float) -> list[signal.Signals]:
    loop = asyncio.get_running_loop()
    gone, cleaning = loop.create_future(), loop.create_future()
    cleaning.set_result(None)
    sent: list[signal.Signals] = []

    def send(number: signal.Signals, by_force: bool) -> None:
        sent.append(number)
        if number is signal.SIGKILL:
            gone.set_result(None)

    async def deaf() -> None:
        await loop.create_future()

    await stop(
        gone=gone,
        cleaning=cleaning,
        deadline=Deadline(seconds),
        ways=[("deaf", deaf, False)],
        send=send,
        record=lambda kind, data, size: None,
    )
    return sent
