"""The calls of snapshots for coroutines."""

from collections.abc import Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from .disks import Snapshot
from .external import Path

if TYPE_CHECKING:
    from .plugin import Snapshots

T = TypeVar("T")

_Listing = list[Snapshot]


class AsyncSnapshots:
    """`machine.snapshots.aio`: the twins, with the contracts of `Snapshots`.

    To be awaited on the I/O thread (in async hooks) or in any other asyncio loop.
    """

    def __init__(self, snapshots: "Snapshots") -> None:
        self._snapshots = snapshots

    async def save(
        self, name: str, *, disks: Sequence[str] | None = None, timeout: float | None = 60
    ) -> None:
        """See `Snapshots.save`."""
        await self._run(self._snapshots._ready().save(name, disks), timeout, "save a snapshot")

    async def load(
        self, name: str, *, disks: Sequence[str] | None = None, timeout: float | None = 60
    ) -> None:
        """See `Snapshots.load`."""
        await self._run(self._snapshots._ready().load(name, disks), timeout, "load a snapshot")

    async def delete(
        self, name: str, *, disks: Sequence[str] | None = None, timeout: float | None = 60
    ) -> None:
        """See `Snapshots.delete`."""
        await self._run(self._snapshots._ready().delete(name, disks), timeout, "delete a snapshot")

    async def list(self, *, disks: Sequence[str] | None = None, timeout: float | None = 60) -> _Listing:
        """See `Snapshots.list`."""
        return await self._run(self._snapshots._ready().list(disks), timeout, "list snapshots")

    async def external(
        self, files: Mapping[str, Path], *, overwrite: bool = False, timeout: float | None = 60
    ) -> dict[str, str]:
        """See `Snapshots.external`."""
        return await self._run(
            self._snapshots._ready().external(files, overwrite), timeout, "take an external snapshot"
        )

    async def _run(self, work: Coroutine[Any, Any, T], timeout: float | None, operation: str) -> T:
        machine = self._snapshots._ready().machine
        return await machine.arun(work, timeout=timeout, operation=operation)
