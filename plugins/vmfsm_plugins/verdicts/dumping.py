"""The guest's memory in a file, before anybody acts on a verdict."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping, Sequence

from vmfsm import Action, Deadline, Machine, Verdict
from vmfsm_plugins.blocking import in_thread
from vmfsm_plugins.guest_memory import dump

_ENDED = "QEMU has ended"
_REMOVAL = 1.0
"""Seconds for removing what is not whole: somebody waits for the verdict."""


class Dump:
    """That of one launch: of its first verdict that asks for one. On the I/O thread only.

    :param settled: gets each verdict that was held back, with the same when it is to be reported.
    """

    def __init__(
        self,
        machine: Machine,
        path: str,
        timeout: float,
        settled: Callable[[Verdict, Verdict, Action], object],
    ) -> None:
        self._machine = machine
        self._path = path
        self._timeout = timeout
        self._settled = settled
        self._held: list[tuple[Verdict, Action]] = []
        self._task: asyncio.Task[dict[str, object]] | None = None
        self._begun = False

    def takes(self, verdict: Verdict, action: Action, *, wanted: bool) -> bool:
        """Hold it back until the memory is in the file, or cannot be had; whether it does.

        While it does, it holds back all others, so that they are reported in their order.
        """
        if self._task is None:
            if self._begun or not wanted:
                return False
            self._begun = True
            if self._machine.pid is None:
                self._settle([(verdict, action)], {"dump_error": _ENDED})
                return True
            self._task = asyncio.get_running_loop().create_task(self._dump())
            self._task.add_done_callback(self._over)
        self._held.append((verdict, action))
        return True

    async def end(self) -> None:
        """QEMU has ended."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            await self._remove()

    def _over(self, task: "asyncio.Task[dict[str, object]]") -> None:
        held, self._held, self._task = self._held, [], None
        self._settle(held, {"dump_error": _ENDED} if task.cancelled() else task.result())

    def _settle(self, held: Sequence[tuple[Verdict, Action]], result: Mapping[str, object]) -> None:
        """Report them, the first with what came of its dump."""
        for number, (verdict, action) in enumerate(held):
            what = verdict.what if number else {**verdict.what, **result}
            self._settled(verdict, verdict._replace(what=what), action)

    async def _dump(self) -> dict[str, object]:
        """What is at that path already goes first: QEMU makes its file read-only, so that it could not be
        written again (but by root), and would follow a link.
        """
        limit = self._machine.deadline(self._timeout)
        try:
            await self._make_way(limit)
        except TimeoutError:
            return {"dump_error": f"{self._path} can't be removed: it takes more than {limit.timeout:g} s"}
        except OSError as error:
            return {"dump_error": f"{self._path} is there and can't be removed: {error.strerror}"}
        limit = self._machine.deadline(self._timeout)
        try:
            async with limit.limit():
                await dump(self._machine, self._path)
        except TimeoutError:
            return {"dump_error": f"not done after {limit.timeout:g} s: {self._path} is not whole"}
        except Exception as error:  # noqa: BLE001 - no monitor, or it refuses; and the verdict is to be told
            await self._remove()
            return {"dump_error": str(error) or type(error).__name__}
        return {"dump": self._path}

    async def _make_way(self, limit: Deadline) -> None:
        with contextlib.suppress(FileNotFoundError):
            async with limit.limit():
                await in_thread(lambda: os.unlink(self._path))

    async def _remove(self) -> None:
        """What is not whole is of no use, and large."""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_REMOVAL):
                await in_thread(lambda: os.unlink(self._path))
