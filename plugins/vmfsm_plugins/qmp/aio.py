"""The monitor's calls for coroutines."""

from collections.abc import Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from vmfsm import MachineDied

from .events import Event, Mark, Wanted, check_wanted, describe_wanted
from .request import make_request

if TYPE_CHECKING:
    from .plugin import QMP

T = TypeVar("T")


class AsyncQMP:
    """`machine.qmp.aio`: the twins, with the contracts of `QMP`.

    To be awaited on the I/O thread (in async hooks) or in any other asyncio loop.
    """

    def __init__(self, qmp: "QMP") -> None:
        self._qmp = qmp

    async def execute(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = 30,
        **kw: Any,
    ) -> Any:
        """See `QMP.execute`."""
        request = make_request(command, arguments, kw)
        session = self._qmp._last_session(request.operation)
        return await self._run(session.execute(request), timeout, request.operation)

    async def execute_raw(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = 30,
        **kw: Any,
    ) -> dict[str, Any]:
        """See `QMP.execute_raw`."""
        request = make_request(command, arguments, kw)
        session = self._qmp._last_session(request.operation)
        return await self._run(session.execute_raw(request), timeout, request.operation)

    async def execute_oob(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = 30,
        **kw: Any,
    ) -> Any:
        """See `QMP.execute_oob`."""
        request = make_request(command, arguments, kw, key="exec-oob")
        session = self._qmp._last_session(request.operation)
        return await self._run(session.execute_oob(request), timeout, request.operation)

    async def execute_with_fd(
        self,
        fd: int,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = 30,
        **kw: Any,
    ) -> Any:
        """See `QMP.execute_with_fd`."""
        session, request = self._qmp._session_and_request(fd, command, arguments, kw)
        return await self._run(session.execute(request, fd), timeout, request.operation)

    async def wait_event(
        self,
        name: str,
        *,
        match: Mapping[str, Any] | None = None,
        since: Mark | None = None,
        timeout: float | None = 30,
    ) -> Event:
        """See `QMP.wait_event`."""
        return await self._wait(check_wanted([(name, match)]), since, timeout)

    async def wait_any(
        self,
        events: Iterable[tuple[str, Mapping[str, Any] | None]],
        *,
        since: Mark | None = None,
        timeout: float | None = 30,
    ) -> Event:
        """See `QMP.wait_any`."""
        return await self._wait(check_wanted(events), since, timeout)

    async def reconnect(self, timeout: float | None = 30) -> None:
        """See `QMP.reconnect`."""
        await self._run(self._qmp._last_session("reconnect").reconnect(), timeout, "reconnect")

    async def _run(self, coroutine: Coroutine[Any, Any, T], timeout: float | None, operation: str) -> T:
        assert self._qmp._machine is not None
        return await self._qmp._machine.arun(coroutine, timeout=timeout, operation=operation)

    async def _wait(self, wanted: Wanted, since: Mark | None, timeout: float | None) -> Event:
        operation = describe_wanted(wanted)
        ring = self._qmp._last_session(operation).ring
        assert self._qmp._machine is not None
        try:
            return await self._qmp._machine.arun(
                ring.wait(wanted, since), timeout=timeout, operation=operation, of_guest=True
            )
        except MachineDied:
            event = ring.take(wanted, since)
            if event is None:
                raise
            return event
