"""The clock of a machine's deadlines: it stands still, and what is left then is left when it goes on."""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from tests.waiting import InThread, until
from vmfsm import Deadline
from vmfsm.alarm import Alarm
from vmfsm.caller import receive
from vmfsm.clock import Clock

Wait = Callable[[Deadline], Coroutine[Any, Any, None]]


def test_it_goes_on_as_the_monotonic_clock_does() -> None:
    clock = Clock()
    before, now, after = time.monotonic(), clock.now(), time.monotonic()
    assert before <= now <= after
    assert not clock.stands_still


def test_it_stands_still_and_goes_on_from_there() -> None:
    clock = Clock()
    before = clock.now()
    clock.stop()
    assert clock.stands_still
    stopped = time.monotonic()
    stood = clock.now()
    clock.stop()  # once more changes nothing
    until(lambda: time.monotonic() > stopped + 0.05)
    assert clock.now() == stood
    clock.start()
    went_on = time.monotonic()
    clock.start()
    assert not clock.stands_still
    assert before <= stood <= clock.now()
    assert clock.now() - stood <= time.monotonic() - went_on + 0.001


def test_it_never_goes_back() -> None:
    """Whenever it stands still and goes on while others read it."""
    clock = Clock()
    over = threading.Event()

    def watch() -> bool:
        last = clock.now()
        while not over.is_set():
            now = clock.now()
            if not last <= now <= time.monotonic():
                return False
            last = now
        return True

    watchers = [InThread(watch) for _ in range(3)]
    for _ in range(2_000):
        clock.stop()
        clock.start()
    over.set()
    assert [watcher.result() for watcher in watchers] == [True] * 3


def test_a_reader_that_is_held_up_meanwhile_sees_no_jump(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its look at the clock and that at the time it stood still for 100 seconds."""
    clock, times = Clock(), iter([100.0, 200.0])

    def first() -> float:
        monkeypatch.setattr("vmfsm.clock.time", SimpleNamespace(monotonic=times.__next__))
        clock.stop()
        clock.start()
        monkeypatch.setattr("vmfsm.clock.time", SimpleNamespace(monotonic=lambda: 201.0))
        return 201.0

    monkeypatch.setattr("vmfsm.clock.time", SimpleNamespace(monotonic=first))
    assert clock.now() == 101.0


# -- deadlines on it ----------------------------------------------------------------------------------------


def test_no_time_passes_for_a_deadline() -> None:
    clock = Clock()
    clock.stop()
    deadline = Deadline(0.05, clock)
    left = deadline.remaining()
    begin = time.monotonic()
    until(lambda: time.monotonic() > begin + 0.1)
    assert left == pytest.approx(0.05)
    assert (deadline.remaining(), deadline.expired, deadline.stands_still) == (left, False, True)
    clock.start()
    assert not deadline.stands_still
    until(lambda: deadline.expired)


def test_others_of_the_same_clock() -> None:
    clock = Clock()
    deadline = Deadline(10, clock)
    later, granted = deadline.after(5), deadline.leaving(20)
    assert (later.timeout, granted.timeout) == (10, 10), "messages speak of what the user asked for"
    clock.stop()
    assert later.stands_still
    assert granted.stands_still
    left = deadline.remaining()
    assert left is not None
    assert later.remaining() == pytest.approx(left + 5)


@pytest.mark.parametrize("left", [0.5, 0.001])
def test_naps_are_no_spin_and_never_too_long(left: float) -> None:
    clock = Clock()
    clock.stop()
    deadline = Deadline(left, clock)
    assert deadline.nap() == pytest.approx(max(0.05, left)), (
        "50 ms late, at most, when the clock goes on at once"
    )
    assert deadline.nap(reserve=1) == 0.0
    assert Deadline(None, clock).nap() is None
    clock.start()
    nap = deadline.nap()
    assert nap is not None
    assert nap <= left


async def _first(deadline: Deadline) -> None:
    assert not await deadline.first({asyncio.get_running_loop().create_future()})


async def _limit(deadline: Deadline) -> None:
    with pytest.raises(TimeoutError):
        async with deadline.limit():
            await asyncio.get_running_loop().create_future()


async def _alarm(deadline: Deadline) -> None:
    rung = asyncio.Event()
    Alarm(deadline, rung.set)
    assert not rung.is_set(), "not at once"
    await rung.wait()


@pytest.mark.parametrize("wait", [_first, _limit, _alarm])
@pytest.mark.parametrize("left", [0.1, 0.001])
def test_a_wait_on_a_loop_ends_as_much_later_as_the_clock_stood_still(wait: Wait, left: float) -> None:
    assert _ends_after(lambda deadline: asyncio.run(wait(deadline)), left) >= left


def test_a_wait_in_a_thread_does_so_too() -> None:
    def wait(deadline: Deadline) -> None:
        with pytest.raises(queue.Empty):
            receive(queue.SimpleQueue(), deadline)

    assert _ends_after(wait, 0.1) >= 0.1


def _ends_after(wait: Callable[[Deadline], None], left: float) -> float:
    """Seconds on a clock that stands still first, until a wait for a deadline ends by that."""
    clock = Clock()
    clock.stop()
    begin, deadline = clock.now(), Deadline(left, clock)
    waiting = InThread(wait, deadline)
    stopped = time.monotonic()
    until(lambda: time.monotonic() > stopped + 3 * left + 0.2)
    assert not waiting.over
    clock.start()
    waiting.result()
    return clock.now() - begin


@pytest.mark.parametrize("wait", [_first, _limit, _alarm])
def test_one_that_is_over_already(wait: Wait) -> None:
    clock = Clock()
    clock.stop()
    asyncio.run(wait(Deadline(0, clock)))


def test_what_comes_while_the_clock_stands_still_comes_at_once() -> None:
    clock = Clock()
    clock.stop()

    async def comes() -> bool:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        loop.call_soon(future.set_result, None)
        async with Deadline(0.001, clock).limit():
            return await Deadline(0.001, clock).first({future})

    assert asyncio.run(comes())
    inbox: queue.SimpleQueue[str] = queue.SimpleQueue()
    inbox.put("this")
    assert receive(inbox, Deadline(0, clock)) == "this"


def test_an_alarm_that_is_cancelled_does_not_ring() -> None:
    async def cancelled() -> list[str]:
        rung: list[str] = []
        alarm = Alarm(Deadline(0), lambda: rung.append("cancelled"))
        alarm.cancel()
        Alarm(Deadline(None), lambda: rung.append("never")).cancel()
        await _alarm(Deadline(0.01))
        return rung

    assert asyncio.run(cancelled()) == []
