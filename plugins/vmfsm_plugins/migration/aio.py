"""The calls of migrations for coroutines."""

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from vmfsm import Machine, MachineDied, MachineTimeout

from .moves import Path
from .progress import Progress

if TYPE_CHECKING:
    from .plugin import Migration

T = TypeVar("T")


class AsyncMigration:
    """`machine.migration.aio`: the twins, with the contracts of `Migration`.

    To be awaited on the I/O thread (in async hooks) or in any other asyncio loop.
    """

    def __init__(self, migration: "Migration") -> None:
        self._moves = migration._moves

    async def to(self, other: Machine, *, over: Path | None = None, timeout: float | None = 60) -> Progress:
        """See `Migration.to`."""
        return await self._run(self._moves.to(other, over), timeout, "migrate")

    async def start(self, other: Machine, *, over: Path | None = None, timeout: float | None = 30) -> None:
        """See `Migration.start`."""
        await self._run(self._moves.start(other, over), timeout, "start the migration")

    async def wait(self, *, timeout: float | None = 60) -> Progress:
        """See `Migration.wait`."""
        return await self._run(self._moves.wait(), timeout, "wait for the migration")

    async def cancel(self, *, timeout: float | None = 30) -> Progress:
        """See `Migration.cancel`."""
        return await self._run(self._moves.cancel(), timeout, "cancel the migration")

    async def progress(self, *, timeout: float | None = 30) -> Progress:
        """See `Migration.progress`."""
        return await self._run(self._moves.progress(), timeout, "ask for the migration")

    async def to_file(self, path: Path, *, overwrite: bool = False, timeout: float | None = 60) -> Progress:
        """See `Migration.to_file`."""
        return await self._run(self._moves.to_file(path, overwrite), timeout, "migrate to a file")

    async def from_file(self, path: Path, *, timeout: float | None = 60) -> Progress:
        """See `Migration.from_file`."""
        return await self._run(self._moves.from_file(path), timeout, "migrate from a file")

    async def _run(self, coroutine: Coroutine[Any, Any, T], timeout: float | None, operation: str) -> T:
        try:
            return await self._moves.own.arun(coroutine, timeout=timeout, operation=operation)
        except (MachineTimeout, MachineDied) as error:
            why = self._moves.explain(error)
            raise why from (error.__cause__ if why is error else error)
