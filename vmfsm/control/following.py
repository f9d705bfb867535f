"""What goes on at a machine, for one who follows it: as fast as that one reads, and what was lost is told."""

import asyncio
import base64
import collections
import json
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from vmfsm.errors import ConfigError
from vmfsm.iothread import IOThread
from vmfsm.jsonable import jsonable
from vmfsm.timeline import Record

if TYPE_CHECKING:
    from vmfsm.machine import Machine
    from vmfsm.offers import Console

T = TypeVar("T")
Item = dict[str, Any]

PAUSE = 0.01
"""Seconds between two batches: following costs little, however much goes on."""
MOST_PENDING = 256 * 1024
"""Bytes that wait for who follows; what is older is lost to them."""
_MOST_BYTES = 256 * 1024
_MOST_ITEMS = 250
"""In a batch: to make it must not hold up the I/O thread."""


class Feed(Generic[T]):
    """One subscription, in all launches of a machine, which it does not keep alive. On the I/O thread only.

    :param begin: the first item.
    :param show: makes of a batch what is sent; gets it with how much was lost before it.
    :param losses: how much is lost with one.
    """

    def __init__(
        self,
        machine: "Machine",
        begin: Item,
        show: Callable[[list[T], int], Iterable[Item]],
        losses: Callable[[T], int],
    ) -> None:
        self._begin = begin
        self._show = show
        self._losses = losses
        self._pending: collections.deque[tuple[T, int]] = collections.deque()
        self._bytes = 0
        self._lost = 0
        self._news = asyncio.Event()
        self._is_last = True
        self._result: Item = {"over": "done"}
        self._unsubscribe: Callable[[], object] = _nothing
        self._send: Callable[[Item], object] = _nothing
        io = IOThread.get()
        self._machine = weakref.ref(machine, lambda _: io.post(self.finish, "gone"))

    def live(self, unsubscribe: Callable[[], object]) -> None:
        """It is fed from now on, until that is called; without this it ends with what was kept."""
        self._is_last = False
        self._unsubscribe = unsubscribe

    def keep(self, item: T, size: int) -> None:
        """What there was before."""
        self._pending.append((item, size))
        self._bytes += size

    def add(self, item: T, size: int) -> None:
        """Something came. `size` is about how many bytes it keeps alive."""
        self.keep(item, size)
        while self._bytes > MOST_PENDING and len(self._pending) > 1:
            lost, size = self._pending.popleft()
            self._bytes -= size
            self._lost += self._losses(lost)
        self._news.set()

    async def run(self, send: Callable[[Item], object], writable: Callable[[], Awaitable[object]]) -> Item:
        """Send what comes, until it is over or this is cancelled; how it ended."""
        self._send = send
        try:
            send(self._begin)
            while True:
                while self._pending:
                    await writable()
                    self._send_batch()
                    await asyncio.sleep(PAUSE)
                if self._is_last:
                    return self._result
                self._news.clear()
                await self._news.wait()
        finally:
            self.close()

    def close(self) -> None:
        self._unsubscribe()

    def finish(self, why: str) -> None:
        """End it with what there is, for `why`, unless it ends with that anyway."""
        if not self._is_last:
            self._is_last = True
            self._result = {"over": why}
            self._unsubscribe()
            self._news.set()

    def flush(self) -> None:
        """Send what there is, now."""
        while self._pending:
            self._send_batch()

    def _send_batch(self) -> None:
        lost, self._lost = self._lost, 0
        batch: list[T] = []
        most = _MOST_BYTES
        while self._pending and len(batch) < _MOST_ITEMS and most > 0:
            item, size = self._pending.popleft()
            self._bytes -= size
            most -= size
            batch.append(item)
        for shown in self._show(batch, lost):
            self._send(shown)


def _nothing(*_: object) -> None:
    pass


# -- records ------------------------------------------------------------------------------------------------


def follow_records(machine: "Machine", *, history: bool, follow: bool) -> Feed[Record]:
    """The timeline so far, and then what happens."""
    feed = Feed(machine, {"begin": {"machine": machine.name}}, _show_records, lambda record: 1)
    if history:
        for record in machine.timeline:
            feed.keep(record, 1)
    if follow:
        feed.live(machine._timeline.listen(feed.add))
    return feed


def _show_records(batch: list[Record], lost: int) -> Iterable[Item]:
    if lost:
        yield show_record(Record("dropped", time.monotonic(), {"records": lost}))
    for record in batch:
        yield show_record(record)


def show_record(record: Record) -> Item:
    return {"kind": record.kind, "at": record.at, "data": jsonable(record.data)}


# -- events -------------------------------------------------------------------------------------------------


def follow_events(machine: "Machine") -> Feed[Item]:
    """The monitor's events from now on. :raises ConfigError: where there is no monitor."""
    feed = Feed(machine, {"begin": {"machine": machine.name}}, _show_events, lambda event: 1)
    feed.live(machine.qmp.subscribe(lambda event: feed.add(event, len(json.dumps(event)))))
    return feed


def _show_events(batch: list[Item], lost: int) -> Iterable[Item]:
    return [{"lost": lost}, *batch] if lost else batch


# -- the console --------------------------------------------------------------------------------------------


def follow_console(machine: "Machine", name: str | None, *, tail: int, follow: bool) -> Feed[bytes]:
    """The last `tail` bytes of what is kept of a console, and then what it says.

    :raises ConfigError: where there is none of this name, or none at all.
    """
    name, console = find_console(machine, name)
    begin = {"machine": machine.name, "console": name, "closed": console.closed}
    feed = Feed(machine, {"begin": begin}, _show_console, len)
    kept = console.data[-tail:] if tail else b""
    if kept:
        feed.keep(kept, len(kept))
    if follow:
        feed.live(console.subscribe(lambda data: feed.add(data, len(data))))
    return feed


def find_console(machine: "Machine", name: str | None) -> "tuple[str, Console]":
    """The one of this name, or the first."""
    consoles = machine.consoles
    if name is None and consoles:
        name = next(iter(consoles))
    if name is None or name not in consoles:
        there = ", ".join(consoles) or "none"
        raise ConfigError(
            f"{machine.name}: no console {name!r} (there are: {there})", field="console", machine=machine.name
        )
    return name, consoles[name]


def _show_console(batch: list[bytes], lost: int) -> Iterable[Item]:
    """As many bytes as came together are one item; an empty piece says that a launch's are over."""
    if lost:
        yield {"lost": lost}
    together: list[bytes] = []
    for data in [*batch, None]:
        if data:
            together.append(data)
            continue
        if together:
            yield {"data": base64.b64encode(b"".join(together)).decode("ascii")}
            together.clear()
        if data is not None:
            yield {"closed": True}
