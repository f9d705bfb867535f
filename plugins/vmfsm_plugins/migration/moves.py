"""The moves of a machine's guest: to another machine, to a file, from one. All on the I/O thread."""

import asyncio
import errno
import functools
import os
import socket

from vmfsm import (
    ConfigError,
    Machine,
    MachineDied,
    MachineTimeout,
    State,
    TransitionError,
    VMError,
    check_path,
)
from vmfsm_plugins.blocking import in_thread

from .channel import Channel, File, NewFile, SocketPair, UnixSocket, open_saved
from .end import End
from .progress import Progress, parse
from .transfer import Transfer

Path = str | os.PathLike[str]

_LONGEST_SOCKET_PATH = 107
"""Bytes in Linux's `sockaddr_un` (unix(7)), without the NUL at its end."""


class Moves:
    """The migrations of one machine, one at a time. The contracts are those of `Migration`."""

    def __init__(self) -> None:
        self.machine: Machine | None = None
        self._transfer: Transfer | None = None

    @property
    def own(self) -> Machine:
        assert self.machine is not None, "a plugin object is configured by its machine"
        return self.machine

    def forget(self) -> None:
        """Another QEMU is to be launched, of which nothing is known."""
        self._transfer = None

    def describe(self) -> str:
        """What is known of the last one. From any thread."""
        transfer = self._transfer
        return "" if transfer is None else transfer.describe()

    def explain(self, error: MachineTimeout | MachineDied) -> VMError:
        """What to raise for what the core raises. From any thread."""
        transfer = self._transfer
        if transfer is None:
            return error
        if isinstance(error, MachineDied):
            return transfer.refusal(self.own, error) or error
        error.add_note(f"the migration: {transfer.describe()}")
        return error

    async def to(self, other: Machine, over: Path | None) -> Progress:
        return await _finish(await self._start(other, over))

    async def start(self, other: Machine, over: Path | None) -> None:
        await self._start(other, over)

    async def wait(self) -> Progress:
        if self._transfer is None:
            raise self._refusal("wait", "no migration was started")
        return await self._transfer.result()

    async def cancel(self) -> Progress:
        transfer = self._transfer
        if transfer is None:
            return await self.progress()
        if transfer.source is None or transfer.source.machine is not self.own:
            raise self._refusal("cancel", "a migration is cancelled on its source")
        return await transfer.cancel()

    async def progress(self) -> Progress:
        return parse(await self.own.qmp.aio.execute("query-migrate", timeout=None))

    async def to_file(self, path: Path, overwrite: bool) -> Progress:
        path = _absolute(path, "path")
        self._require_idle("to_file")
        if not File.has_address(self.own):
            _require_descriptors(self.own, "QEMU before 8.2 is handed the file")
        file = await in_thread(lambda: NewFile(path, overwrite=overwrite), NewFile.abandon)
        try:
            transfer = Transfer(End(self.own, "source", path), None, File(file.path, file.fd))
            await self._begin("to_file", transfer, self)
            progress = await _finish(transfer)
            await in_thread(file.keep)
        except BaseException:
            await in_thread(file.discard)
            raise
        return progress

    async def from_file(self, path: Path) -> Progress:
        path = _absolute(path, "path")
        self._require_idle("from_file")
        if not File.has_address(self.own):
            _require_descriptors(self.own, "QEMU before 8.2 is handed the file")
        channel = File(path, await in_thread(lambda: open_saved(path), os.close))
        transfer = Transfer(None, End(self.own, "destination", path), channel)
        await self._begin("from_file", transfer, self)
        return await _finish(transfer)

    async def _start(self, other: Machine, over: Path | None) -> Transfer:
        source = self.own
        if not isinstance(other, Machine):
            raise ConfigError(f"other must be a Machine, not {other!r}", field="other")
        if other is source:
            raise ConfigError(f"{source.name}: a machine can't migrate to itself", field="other")
        theirs: Moves = other.plugin("migration")._moves
        path = None if over is None else _absolute(over, "over")
        if path is not None:
            await in_thread(functools.partial(_check_socket_path, path))
        if path is None:
            for machine in (source, other):
                _require_descriptors(machine, "each end is handed a socket (over=PATH needs none)")
        if other.state is State.CONFIGURED:
            raise theirs._refusal(
                "migrate", "it can't take a guest: it was not launched (with -incoming defer)"
            )
        channel: Channel = SocketPair() if path is None else UnixSocket(path)
        ends = End(source, "source", other.name), End(other, "destination", source.name)
        transfer = Transfer(*ends, channel)
        await self._begin("migrate", transfer, self, theirs)
        return transfer

    async def _begin(self, call: str, transfer: Transfer, *all_of_it: "Moves") -> None:
        """Start a migration that these machines take part in."""
        try:
            for moves in all_of_it:  # not before: another one may have begun while a file was opened
                moves._require_idle(call)
        except BaseException:
            await transfer.abort()
            raise
        for moves in all_of_it:
            moves._transfer = transfer
        try:
            await transfer.start()
        except BaseException:
            for moves in all_of_it:
                if moves._transfer is transfer and not transfer.holds(moves.own):
                    moves._transfer = None
            raise

    def _require_idle(self, call: str) -> None:
        """:raises TransitionError: when a migration is under way here."""
        transfer = self._transfer
        if transfer is not None and transfer.holds(self.own):
            raise self._refusal(call, f"the migration of {transfer.name} is under way")

    def _refusal(self, call: str, why: str) -> TransitionError:
        return TransitionError(
            f"{self.own.name}: {why}", event=call, machine=self.own.name, state=self.own.state
        )


async def _finish(transfer: Transfer) -> Progress:
    """Wait for the end; where nobody waits any more, bring it about."""
    try:
        return await transfer.result()
    except asyncio.CancelledError:
        await transfer.abort()
        raise


def _require_descriptors(machine: Machine, why: str) -> None:
    """:raises ConfigError: where the monitor can't carry descriptors."""
    if isinstance(machine.qmp.address, tuple):
        raise ConfigError(
            f"{machine.name}: the monitor is at a TCP address, over which no descriptors pass: {why}",
            field="options['qmp']['address']",
            machine=machine.name,
        )


def _absolute(path: object, field: str) -> str:
    """Since QEMU's working directory may be another."""
    return os.path.abspath(check_path(path, field=field))


def _check_socket_path(path: str) -> None:
    """:raises ConfigError: for a path that is too long.

    :raises OSError: where no socket can be made there.
    """
    if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
        raise ConfigError(
            f"over is longer than a socket address holds ({_LONGEST_SOCKET_PATH} bytes): {path}", field="over"
        )
    if os.path.lexists(path):  # QEMU would remove it
        raise FileExistsError(errno.EEXIST, "there is a file where the socket is to be", path)
    with socket.socket(socket.AF_UNIX) as probe:  # a QEMU that could not listen is lost as a destination
        try:
            probe.bind(path)
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from error
    os.unlink(path)
