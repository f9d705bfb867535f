"""One machine's side of a migration."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from vmfsm import Machine, MachineDied, VMError
from vmfsm_plugins.qmp import QMPConnectionError

from .progress import Progress, parse

OVER = frozenset({"completed", "failed", "cancelled"})
_POLL = 1.0
"""Seconds after which a QEMU that said nothing is asked: its event is lost if the connection was."""
_SOON = 0.01
"""Seconds between questions for what no event tells, and comes at once."""
_WORDS = 3
"""Lines of output in which a destination that ends says why: what did not fit, where, and that it ends."""
_CLEAN_UP = 10.0
"""Seconds in which a machine that died reaches its final state, if its hooks do not take longer."""


class End:
    """What is known of one machine during a migration. On the I/O thread only.

    :param peer: what is at the other end, for people.
    """

    def __init__(self, machine: Machine, role: Literal["source", "destination"], peer: str) -> None:
        self.machine = machine
        self.role = role
        self.peer = peer
        self.progress = Progress("none")
        self.failure: VMError | None = None
        """Why it could not be followed to the end: `MachineDied`."""
        self.lost = False
        """The monitor is, as far as it was asked: what is known is of before that."""
        self._news = asyncio.Event()
        self._unsubscribe: Callable[[], None] = lambda: None
        self.following: asyncio.Task[None] | None = None
        """Done when it is over here."""

    @property
    def status(self) -> str:
        return self.progress.status

    @property
    def over(self) -> bool:
        """Nothing more happens here."""
        return self.following is None or self.following.done()

    async def execute(self, command: str, **arguments: Any) -> Any:
        return await self.machine.qmp.aio.execute(command, timeout=None, **arguments)

    async def set_capabilities(self, **states: bool) -> None:
        """Switch capabilities, in whose names `_` stands for `-` (QMP reference, `MigrationCapability`)."""
        capabilities = [{"capability": name.replace("_", "-"), "state": on} for name, on in states.items()]
        await self.execute("migrate-set-capabilities", capabilities=capabilities)

    def listen(self) -> None:
        """Hear the events from now on."""
        self._unsubscribe = self.machine.qmp.subscribe(self._hear)

    def deafen(self) -> None:
        self._unsubscribe()

    def follow(self, when_over: Callable[[], object]) -> None:
        """QEMU has agreed to migrate: know what becomes of it, until it is over here."""
        self.following = asyncio.create_task(self._follow(when_over))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what only news from QEMU can bring about, or the end."""
        while not condition() and self.status not in OVER and self.failure is None:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL):
                    await self._news.wait()
                    continue
            await self.persist(self._ask)

    async def under_way(self) -> None:
        """Wait until QEMU is connected with the other end, or the end."""
        await self.until(lambda: self.status not in {"none", "setup"})

    async def persist(self, ask: Callable[[], Awaitable[object]]) -> None:
        """Ask until QEMU answers: the migration goes on without its monitor, which may be connected again."""
        while True:
            try:
                await ask()
            except QMPConnectionError:
                self.lost = True
                await asyncio.sleep(_POLL)
            else:
                self.lost = False
                return

    async def settled(self) -> str:
        """QEMU's run state, once it is the one that the migration leads to."""
        while True:
            status: str = (await self.execute("query-status"))["status"]
            if status != "finish-migrate":
                return status
            await asyncio.sleep(_SOON)

    async def cleaned_up(self, death: MachineDied) -> None:
        """QEMU has died: wait for the machine's final state."""
        with contextlib.suppress(TimeoutError):
            async with self.machine.deadline(_CLEAN_UP).limit():
                await self.machine.until_ended()
        death.state = self.machine.state

    def refused(self, death: MachineDied) -> bool:
        """Whether a destination ended by itself, which is how QEMU before 9.1 says that it failed."""
        return self.role == "destination" and self.status != "completed" and death.exit_status == 1

    def hear_refusal(self, death: MachineDied) -> None:
        words = "; ".join(death.evidence.output.strip().splitlines()[-_WORDS:])
        self.progress = self.progress._replace(status="failed", error=words)

    def record(self) -> None:
        status, transferred, *_, error = self.progress
        data = {
            "role": self.role,
            "peer": self.peer,
            "status": status,
            "transferred": transferred,
            "error": error or None,
        }
        self.machine.record("migration", data, size=300 + len(error))

    async def _follow(self, when_over: Callable[[], object]) -> None:
        try:
            # Raced with the end of this QEMU, whoever waits for the migration.
            await self.machine.arun(self._to_the_end(), timeout=None, operation="migrate")
        except VMError as failure:
            self.failure = failure
            if isinstance(failure, MachineDied) and self.refused(failure):
                self.hear_refusal(failure)
        finally:
            self.lost = False
            self.deafen()
            self.record()
            self._news.set()
            when_over()

    async def _to_the_end(self) -> None:
        await self.until(lambda: False)
        await self.persist(self.settled)  # the sums that QEMU tells are ready by then
        await self.persist(self._ask)

    async def _ask(self) -> None:
        progress = parse(await self.execute("query-migrate"))
        if progress.status == "none" or (self.status in OVER and progress.status != self.status):
            return  # a destination before its first event; or the next migration has begun
        self.progress = progress
        if progress.status in OVER:
            self._news.set()
        else:
            self.record()

    def _hear(self, event: dict[str, Any]) -> None:
        if event["event"] == "MIGRATION":
            self.progress = self.progress._replace(status=event["data"]["status"])
            if self.status not in OVER:  # else it is recorded with all there is to say
                self.record()
            self._news.set()
