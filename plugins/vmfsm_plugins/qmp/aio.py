"""The monitor's calls for coroutines."""

from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from vmfsm import MachineDied

from .events import Event, Mark, Wanted, check_wanted, describe_wanted
from .request import make_request
from .session import Session, Waiting

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
        return await self._run(lambda session: session.execute(request), timeout, request.operation)

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
        return await self._run(lambda session: session.execute_raw(request), timeout, request.operation)

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
        return await self._run(lambda session: session.execute_oob(request), timeout, request.operation)

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
        request = self._qmp._request_with_fd(fd, command, arguments, kw)
        return await self._run(lambda session: session.execute(request, fd), timeout, request.operation)

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
        await self._run(Session.reconnect, timeout, "reconnect")

    async def gdbstub(self, timeout: float | None = 30) -> str:
        """See `QMP.gdbstub`."""
        return await self._run(self._qmp._gdbstub, timeout, "gdbstub")

    async def _run(
        self, call: Callable[[Session], Coroutine[Any, Any, T]], timeout: float | None, operation: str
    ) -> T:
        qmp = self._qmp
        qmp._last_session(operation)
        assert qmp._machine is not None
        return await qmp._machine.arun(qmp._in_session(call, operation), timeout=timeout, operation=operation)

    async def _wait(self, wanted: Wanted, since: Mark | None, timeout: float | None) -> Event:
        qmp, operation = self._qmp, describe_wanted(wanted)
        waiting = Waiting(wanted, since, qmp._last_session(operation))
        assert qmp._machine is not None
        try:
            return await qmp._machine.arun(
                qmp._in_session(waiting.wait, operation), timeout=timeout, operation=operation, of_guest=True
            )
        except MachineDied:
            event = waiting.at_last()
            if event is None:
                raise
            return event
