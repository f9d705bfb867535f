"""One migration, from the first question to its end at both ends."""

import asyncio
import contextlib
from typing import Any

from vmfsm import Machine, MachineDied, TransitionError, VMError

from .channel import Channel
from .end import End
from .errors import MigrationError
from .progress import Progress

_OTHER_END = 1.0
"""Seconds in which an end notices that the other one has failed, if it is going to."""
_DEAF = 1.0
"""Seconds in which a QEMU answers `migrate_cancel`, if nothing holds it up."""
_ABORT = 1.8
"""Seconds for all of an abort: a little less than a call may take after its deadline."""
_SURVIVES_FAILURE = (9, 1, 0)
"""QEMU's version whose destination can be told to stay when it fails (QMP reference, `migrate-incoming`)."""


class Transfer:
    """A migration between two machines, or of one to or from a file. On the I/O thread only."""

    def __init__(self, source: End | None, destination: End | None, channel: Channel) -> None:
        self.source = source
        self.destination = destination
        self._channel = channel
        self._ends = [end for end in (source, destination) if end is not None]
        self._starting = True
        self._cancelled = False
        self._aborting: asyncio.Task[None] | None = None

    def holds(self, machine: Machine) -> bool:
        """Whether it is not over yet for one of its machines."""
        return self._starting or any(end.machine is machine and not end.over for end in self._ends)

    @property
    def name(self) -> str:
        """For messages."""
        end = self._ends[0]
        ends = [end.machine.name, end.peer]
        return " to ".join(ends if self.source is not None else reversed(ends))

    def describe(self) -> str:
        """What is known of the ends."""
        return ", ".join(_describe(end) for end in self._ends)

    async def start(self) -> None:
        """Get it under way; where that fails nothing is left of it, and the source goes on."""
        try:
            await self._check()
            for end in self._ends:
                return_path = {"return_path": self._channel.two_way} if end is self.source else {}
                await end.set_capabilities(events=True, **return_path)
            for end in reversed(self._ends) if self._channel.destination_first else self._ends:
                await self._begin(end)
            for end in self._ends:
                await end.under_way()
            self._channel.connected()
        except BaseException as error:
            await self.abort()
            for end in self._ends:
                if isinstance(error, MachineDied) and error.machine == end.machine.name:
                    await end.cleaned_up(error)
            raise
        finally:
            self._starting = False

    async def _check(self) -> None:
        """Refuse what QEMU would refuse only when the other end has been told already."""
        if self.source is not None:
            state = await self.source.settled()
            if state in {"inmigrate", "postmigrate"}:
                raise _refusal(self.source, f"there is no guest to migrate: its run state is {state!r}")
            reasons = (await self.source.execute("query-migrate")).get("blocked-reasons")
            if reasons:
                self.source.progress = Progress("none", error="; ".join(reasons))
                raise self.error()
        if self.destination is not None:
            state = await self.destination.settled()
            if state != "inmigrate":
                what = f"it can't take a guest: its run state is {state!r}, not 'inmigrate'"
                raise _refusal(self.destination, f"{what} (-incoming defer)")

    async def _begin(self, end: End) -> None:
        """Tell one end to migrate. The source first, if it can be: what it refuses costs no destination."""
        arguments: dict[str, Any] = dict(await self._channel.offer(end))
        command = "migrate"
        if end is self.destination:
            command = "migrate-incoming"
            if end.machine.qmp.version >= _SURVIVES_FAILURE:
                arguments["exit_on_error"] = False
        end.listen()
        try:
            await end.execute(command, **arguments)
        except BaseException as error:
            end.deafen()
            if isinstance(error, VMError):
                await self._channel.withdraw(end)
            raise
        # The source's end takes the channel with it, so that a destination has its end of file.
        end.follow(self._channel.close if end is self._ends[0] else lambda: None)

    async def result(self) -> Progress:
        """Wait until both ends have it."""
        await self._until_over()
        if all(end.status == "completed" for end in self._ends):
            return self._ends[0].progress
        for end in self._ends:
            if isinstance(end.failure, MachineDied):
                await end.cleaned_up(end.failure)
            if end.failure is not None and end.status != "failed":
                raise end.failure
        raise self.error()

    async def _until_over(self) -> None:
        following = {end.following for end in self._ends if end.following is not None}
        _, others = await asyncio.wait(following, return_when=asyncio.FIRST_COMPLETED)
        if all(end.status == "completed" for end in self._ends if end.over):
            if others:
                await asyncio.wait(others)
            return
        if others:
            await self._ends[0].machine.deadline(_OTHER_END).first(others)
        if self.source is not None and not self.source.over:
            # It does not look: it waits for its user (`pause-before-switchover`), say.
            await self.source.persist(self._give_up)
            await asyncio.wait(following & {self.source.following})

    async def _give_up(self) -> None:
        assert self.source is not None
        if not self.source.over:  # else it may be the next migration that is cancelled
            await self._tell_to_cancel(self.source)

    def error(self) -> MigrationError:
        """What is to be said of a migration that came to nothing. From any thread."""
        words = [f"{end.role}: {end.progress.error}" for end in self._ends if end.progress.error]
        how = (
            "was cancelled"
            if self._cancelled or "cancelled" in {end.status for end in self._ends}
            else "failed"
        )
        error = MigrationError("; ".join([f"migration of {self.name} {how}", *words]))
        if self.source is not None:
            error.machine = self.source.machine.name
            error.source, error.source_error = self.source.status, self.source.progress.error
            error.source_runs = self.source.machine.run_state == "running"
        if self.destination is not None:
            error.destination = self.destination.status
            error.destination_error = self.destination.progress.error
            error.__cause__ = self.destination.failure
        error.add_note(self.describe())
        return error

    def refusal(self, machine: Machine, death: MachineDied) -> MigrationError | None:
        """The error if the end of this machine's QEMU was its way of saying that the migration failed."""
        end = self.destination
        if end is None or end.machine is not machine or not end.refused(death):
            return None
        end.hear_refusal(death)
        error = self.error().attach(death.evidence)
        error.machine, error.state = machine.name, death.state
        return error

    async def cancel(self) -> Progress:
        """Have the source give it up; back when it has, or had ended it otherwise before."""
        source = self.source
        assert source is not None
        if not source.over:
            await self._tell_to_cancel(source)
            self._cancelled = True
            await self._until_over()
        return source.progress

    async def _tell_to_cancel(self, source: End) -> None:
        held_up = asyncio.get_running_loop().call_later(_DEAF, self._channel.cut)
        try:
            await source.execute("migrate_cancel")
        finally:
            held_up.cancel()

    async def abort(self) -> None:
        """Nobody waits for it any more: cancel what is under way, in bounded time, whatever happens."""
        if self._aborting is None:
            self._aborting = asyncio.create_task(self._abort())
        await asyncio.shield(self._aborting)

    async def _abort(self) -> None:
        with contextlib.suppress(VMError, TimeoutError):
            async with asyncio.timeout(_ABORT):
                if self.source is not None:
                    await self.cancel()
        self._channel.cut()
        if self.source is None or self.source.over:
            self._channel.close()  # whether or not the destination waits on: nobody comes any more


def _describe(end: End) -> str:
    details = [end.machine.run_state or "", "monitor lost" if end.lost else ""]
    known = ", ".join(filter(None, details))
    return f"{end.role} {end.machine.name}: {end.status}" + (f" ({known})" if known else "")


def _refusal(end: End, why: str) -> TransitionError:
    machine = end.machine
    return TransitionError(
        f"{machine.name}: {why}", event="migrate", machine=machine.name, state=machine.state
    )
