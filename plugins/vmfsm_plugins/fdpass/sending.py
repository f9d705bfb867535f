"""What is sent to a QEMU that is there: `add-fd` and `getfd` (QMP reference), by its monitor."""

import contextlib
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, NamedTuple, TypeVar

from vmfsm import Machine

from .given import Given, GivenFD, open_given

T = TypeVar("T")


class Sending(NamedTuple, Generic[T]):
    """Something to be sent."""

    given: Given
    operation: str
    """What it is called in messages."""
    send: Callable[[int], Coroutine[Any, Any, T]]
    """Sends a copy of a descriptor. To be run on the I/O thread."""

    async def carry_out(self) -> T:
        """Open what was given, and send it. On the I/O thread."""
        with await open_given(self.given) as descriptor:
            return await self.send(descriptor.fileno())


class Passed:
    """What QEMU has got in this launch, or the last one. On the I/O thread, but for `last`."""

    def __init__(self) -> None:
        self._last: deque[dict[str, object]] = deque(maxlen=100)

    def last(self) -> list[dict[str, object]]:
        """What was passed last, oldest first. From any thread; takes no lock."""
        while True:
            # The garbage collector may run meanwhile, and let the I/O thread add one.
            with contextlib.suppress(RuntimeError):
                return list(self._last)

    def clear(self) -> None:
        """A launch begins."""
        self._last.clear()

    def add(
        self, machine: Machine, given: Given, *, fdset: int | None = None, name: str | None = None
    ) -> None:
        """QEMU has it: the timeline says so, too."""
        fd, path = (given.fd, None) if isinstance(given, GivenFD) else (None, given.path)
        data: dict[str, object] = {"fd": fd, "path": path, "fdset": fdset, "name": name}
        self._last.append(data)
        machine.record("fd-passed", data, size=400 + len(path or "") + len(name or ""))


def to_add(
    machine: Machine, passed: Passed, given: Given, fdset: int | None, opaque: str | None
) -> Sending[str]:
    """Into a set, by default into one that QEMU chooses; its name."""
    arguments: dict[str, object] = {}
    if fdset is not None:
        arguments["fdset-id"] = fdset
    if opaque is not None:
        arguments["opaque"] = opaque

    async def add(fd: int) -> str:
        added = await machine.qmp.aio.execute_with_fd(fd, "add-fd", arguments, timeout=None)
        passed.add(machine, given, fdset=added["fdset-id"])
        return f"/dev/fdset/{added['fdset-id']}"

    return Sending(given, f"fds.add of {given.shown}", add)


def to_send(machine: Machine, passed: Passed, given: Given, name: str) -> Sending[None]:
    """Under a name."""

    async def send(fd: int) -> None:
        await machine.qmp.aio.execute_with_fd(fd, "getfd", {"fdname": name}, timeout=None)
        passed.add(machine, given, name=name)

    return Sending(given, f"fds.send of {given.shown}", send)
