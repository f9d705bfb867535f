"""`machine.migration`: the calls, for threads."""

from collections.abc import Coroutine
from typing import Any, ClassVar, TypeVar

from vmfsm import Machine, MachineDied, MachineTimeout, hookimpl

from .aio import AsyncMigration
from .moves import Moves, Path
from .progress import Progress

T = TypeVar("T")


class Migration:
    """The plugin: this machine's guest moves to another machine, or into a file and out of it.

    Of two machines, the calls are the source's. The destination is a machine of the same `-machine` type and
    devices that was launched with `-incoming defer`, and has this plugin, too. The lifecycle does not change:
    both stay `running`, and are ended as ever.

    Calls may come from any thread but the I/O thread. They take `timeout` in seconds (`None`: no limit), and
    beside what they say themselves raise what every wait on a machine does: `MachineTimeout`; `MachineDied`
    of the machine, whichever end it is, whose QEMU ends meanwhile; `TransitionError` before the first launch
    and on the I/O thread; `ConfigError` for wrong arguments and where there is no `qmp` plugin;
    `QMPCommandError` where QEMU refuses to migrate. Each has a twin for coroutines under `aio`.

    QEMU: `docs/devel/migration`, and the section "Migration" of its QMP reference manual.
    """

    name = "migration"
    before: ClassVar = ("*",)
    after: ClassVar = ("logs", "fdpass", "console", "qmp")

    def __init__(self) -> None:
        self._moves = Moves()
        self.aio = AsyncMigration(self)
        """The calls for coroutines on the I/O thread or in any other asyncio loop."""

    def __repr__(self) -> str:
        return f"<Migration {self._moves.describe() or 'none yet'}>"

    # -- to another machine ---------------------------------------------------------------------------------

    def to(self, other: Machine, *, over: Path | None = None, timeout: float | None = 60) -> Progress:
        """Move the guest to `other` and wait until both ends have it; what it took.

        The source has the run state `postmigrate` then, and the destination runs, or is `paused` where the
        source was, or with `-S`.

        :param over: the path of a Unix socket, made by the destination and removed when both are connected;
            without it a socket pair, for which neither `qmp` may have a TCP `address`.
        :raises MigrationError: when it fails, or somebody cancels it; the guest stays on the source.
        :raises TransitionError: when the source has no guest to give, the destination's run state is not
            `inmigrate`, or a migration of one of them is under way.

        When the deadline is over, or the wait is interrupted, the migration is cancelled, and the guest stays
        on the source, unless that had `completed`; the notes of a `MachineTimeout` say so.
        """
        return self._run(self._moves.to(other, over), timeout, "migrate")

    def start(self, other: Machine, *, over: Path | None = None, timeout: float | None = 30) -> None:
        """As `to`, but only begin: back when it is under way, or over already. See `wait`."""
        self._run(self._moves.start(other, over), timeout, "start the migration")

    def wait(self, *, timeout: float | None = 60) -> Progress:
        """Wait until both ends have the guest, after `start`; what it took. On either end.

        A `MachineTimeout` leaves the migration as it was.

        :raises MigrationError: as of `to`.
        :raises TransitionError: when no migration was started.
        """
        return self._run(self._moves.wait(), timeout, "wait for the migration")

    def cancel(self, *, timeout: float | None = 30) -> Progress:
        """Cancel what is under way, and wait until the source has; nothing happens where nothing is.

        The guest goes on on the source, unless the migration was `completed` just before: the `status` of
        what is returned says so. Else it is `cancelled`, or `failed`: QEMU closes the connection and may see
        that as a failure before it sees why. A destination before QEMU 9.1 ends with status 1; later ones
        stay, with the run state `inmigrate`, but take no other migration.

        :raises TransitionError: on the destination.
        """
        return self._run(self._moves.cancel(), timeout, "cancel the migration")

    def progress(self, *, timeout: float | None = 30) -> Progress:
        """How far this machine's last migration is, as QEMU says now, whoever began it."""
        return self._run(self._moves.progress(), timeout, "ask for the migration")

    # -- to a file and from it ------------------------------------------------------------------------------

    def to_file(self, path: Path, *, overwrite: bool = False, timeout: float | None = 60) -> Progress:
        """Save the guest's state, without its disks, to a file (0600) and wait until it is there.

        The guest stands still afterwards, with the run state `postmigrate`; QMP's `cont` lets it go on. The
        file is there only after success; one that was just being made when QEMU died, or the time was over,
        is removed a moment later.

        :param overwrite: replace the file that is there.
        :raises MigrationError: when it fails, or somebody cancels it; the guest goes on.
        :raises OSError: as the system says; `FileExistsError` where there is a file.
        :raises ConfigError: where there is something else that would have to be replaced, too.

        A deadline is as of `to`.
        """
        return self._run(self._moves.to_file(path, overwrite), timeout, "migrate to a file")

    def from_file(self, path: Path, *, timeout: float | None = 60) -> Progress:
        """Load what `to_file` has saved into this machine, which was launched with `-incoming defer`.

        The guest runs afterwards, or is `paused` as of `to`.

        :raises MigrationError: when it fails. QEMU before 9.1 has ended with status 1 then.
        :raises TransitionError: when its run state is not `inmigrate`.
        :raises ConfigError: where the path is of something else than a file, too.
        :raises OSError: as the system says.

        QEMU can't cancel it: after a deadline it may go on.
        """
        return self._run(self._moves.from_file(path), timeout, "migrate from a file")

    # -- hooks ----------------------------------------------------------------------------------------------

    @hookimpl
    def configured(self, machine: Machine) -> None:
        self._moves.machine = machine

    @hookimpl
    async def pre_launch(self) -> None:
        self._moves.forget()

    # -- in the calling thread ------------------------------------------------------------------------------

    def _run(self, coroutine: Coroutine[Any, Any, T], timeout: float | None, operation: str) -> T:
        try:
            return self._moves.own.run(coroutine, timeout=timeout, operation=operation)
        except (MachineTimeout, MachineDied) as error:
            why = self._moves.explain(error)
            raise why from (error.__cause__ if why is error else error)
