"""QEMU's jobs for snapshots, one after the other, each followed to its end.

Facts: QMP reference, `JOB_STATUS_CHANGE`, `query-jobs`, `job-dismiss`, `snapshot-save`.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from vmfsm import Machine
from vmfsm_plugins.qmp import QMPCommandError

from .errors import SnapshotError

T = TypeVar("T")
Work = Callable[[], Coroutine[Any, Any, T]]

_PATIENCE = 2.0
"""Seconds until a job is asked for: its event is lost if the monitor's connection was."""

_numbers = itertools.count(1)


class Jobs:
    """What a machine is told to do with snapshots. On the I/O thread only.

    What QEMU was told is followed to its end, whatever ends the caller's waiting, so that no job is left in
    QEMU. With QEMU it ends at the latest, or with the monitor's connection: QEMU keeps the job then.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        # QEMU runs these jobs nested into each other where there are several.
        self._lock = asyncio.Lock()

    async def execute(self, operation: str, name: str | None, prepare: Callable[[], Awaitable[Work[T]]]) -> T:
        """Do and record what `prepare` returns, which is not cancelled any more when it has begun.

        :raises SnapshotError: for what QEMU refuses.
        """
        await self._lock.acquire()
        try:
            work = await prepare()
        except BaseException:
            self._lock.release()
            raise
        task = asyncio.create_task(
            self._machine.arun(self._recorded(operation, name, work), timeout=None, operation=operation)
        )
        task.add_done_callback(self._over)
        await asyncio.wait([task])
        return task.result()

    def _over(self, task: "asyncio.Task[Any]") -> None:
        self._lock.release()
        if not task.cancelled():
            task.exception()  # retrieved, where nobody waits any more

    async def _recorded(self, operation: str, name: str | None, work: Work[T]) -> T:
        began = time.monotonic()
        error: str | None = None
        try:
            return await work()
        except QMPCommandError as refused:
            error = refused.description
            raise self.error(operation, name, refused.description) from refused
        except asyncio.CancelledError:
            error = "QEMU ended"  # nobody else cancels it
            raise
        except BaseException as failed:
            error = failed.description if isinstance(failed, SnapshotError) else type(failed).__name__
            raise
        finally:
            data = {"operation": operation, "name": name, "seconds": time.monotonic() - began, "error": error}
            self._machine.record("snapshot", data, size=600)

    def error(self, operation: str, name: str | None, description: str) -> SnapshotError:
        """The error for what QEMU says, or what is said in its place."""
        of = "" if name is None else f" of snapshot {name!r}"
        error = SnapshotError(f"{self._machine.name}: {operation}{of}: {description}")
        error.operation, error.description = operation, description
        return error

    def job(self, operation: str, name: str, arguments: Mapping[str, Any]) -> Work[None]:
        """For `execute`: QEMU's job of an operation on a snapshot."""
        return lambda: self._follow(operation, name, arguments)

    async def _follow(self, operation: str, name: str, arguments: Mapping[str, Any]) -> None:
        job = f"vmfsm-{operation}-{next(_numbers)}"
        concluded = asyncio.Event()

        def hear(event: Mapping[str, Any]) -> None:
            if event["event"] == "JOB_STATUS_CHANGE" and event["data"] == {"id": job, "status": "concluded"}:
                concluded.set()

        qmp = self._machine.qmp
        unsubscribe = qmp.subscribe(hear)
        try:
            await qmp.aio.execute(
                f"snapshot-{operation}", {"job-id": job, "tag": name, **arguments}, timeout=None
            )
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_PATIENCE):
                        await concluded.wait()
                known = await qmp.aio.execute("query-jobs", timeout=None)
                found = next((found for found in known if found["id"] == job), None)
                if found is None:
                    raise self.error(operation, name, "somebody else has dismissed its job")
                if found["status"] == "concluded":
                    break
            await qmp.aio.execute("job-dismiss", id=job, timeout=None)
        finally:
            unsubscribe()
        if "error" in found:
            raise self.error(operation, name, found["error"])
