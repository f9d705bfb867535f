"""What can be done with snapshots: arguments are checked at once, the rest is for the I/O thread."""

from collections.abc import Coroutine, Sequence
from typing import Any

from vmfsm import ConfigError, Machine

from .disks import Disk, Disks, Snapshot, collect
from .external import assign, check_files, make_transaction, reserved
from .jobs import Jobs, Work

_LONGEST_NAME = 255
"""Bytes of a snapshot's name; QEMU cuts off more without a word (`QEMUSnapshotInfo`)."""

_Listing = list[Snapshot]


class Operations:
    """Each method checks its arguments and returns the coroutine. The contracts are those of `Snapshots`."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._jobs = Jobs(machine)

    def save(self, name: object, disks: object) -> Coroutine[Any, Any, None]:
        return self._save(_check_new_name(name), _check_disks(disks))

    def load(self, name: object, disks: object) -> Coroutine[Any, Any, None]:
        return self._load(_check_name(name), _check_disks(disks))

    def delete(self, name: object, disks: object) -> Coroutine[Any, Any, None]:
        return self._delete(_check_name(name), _check_disks(disks))

    def list(self, disks: object) -> Coroutine[Any, Any, _Listing]:
        return self._list(_check_disks(disks))

    def external(self, files: object, overwrite: bool) -> Coroutine[Any, Any, dict[str, str]]:
        return self._external(check_files(files), overwrite)

    async def _disks(self) -> Disks:
        execute = self.machine.qmp.aio.execute
        blocks = await execute("query-block", timeout=None)
        nodes = await execute("query-named-block-nodes", flat=True, timeout=None)
        return Disks(self.machine.name, blocks, nodes)

    async def _save(self, name: str, wanted: Sequence[str] | None) -> None:
        async def prepare() -> Work[None]:
            chosen = (await self._disks()).choose(wanted)
            return self._jobs.job("save", name, _job_arguments(chosen, chosen[0]))

        await self._jobs.execute("save", name, prepare)

    async def _load(self, name: str, wanted: Sequence[str] | None) -> None:
        async def prepare() -> Work[None]:
            chosen = (await self._disks()).choose(wanted)
            return self._jobs.job("load", name, _job_arguments(chosen, self._holder_of_state(name, chosen)))

        await self._jobs.execute("load", name, prepare)

    def _holder_of_state(self, name: str, disks: Sequence[Disk]) -> Disk:
        """The disk with memory and devices.

        :raises SnapshotError: where the snapshot is not one to load. QEMU would say so, too, but stop the
            guest for it and leave it so.
        """
        found = [disk.snapshot(name) for disk in disks]
        lacking = [disk.name for disk, snapshot in zip(disks, found, strict=True) if snapshot is None]
        if lacking:
            there = ", ".join(repr(snapshot.name) for snapshot in collect(disks)) or "none"
            raise self._jobs.error("load", name, f"it is not on {', '.join(lacking)} (there are: {there})")
        for disk in disks:
            if any(name == other["id"] != other["name"] for other in disk.snapshots):
                raise self._jobs.error("load", name, f"on {disk.name} that is the id of another snapshot")
        sizes = [0 if snapshot is None else snapshot["vm-state-size"] for snapshot in found]
        if not any(sizes):
            raise self._jobs.error("load", name, "it is of disks only, without the state of a machine")
        return disks[sizes.index(max(sizes))]

    async def _delete(self, name: str, wanted: Sequence[str] | None) -> None:
        async def prepare() -> Work[None]:
            disks = await self._disks()
            chosen = disks.all if wanted is None else disks.choose(wanted)
            holding = [disk.node for disk in chosen if disk.snapshot(name) is not None]
            if not holding:  # QEMU would be content
                raise self._jobs.error("delete", name, "no disk holds it")
            return self._jobs.job("delete", name, {"devices": holding})

        await self._jobs.execute("delete", name, prepare)

    async def _list(self, wanted: Sequence[str] | None) -> _Listing:
        disks = await self._disks()
        return collect(disks.all if wanted is None else disks.choose(wanted))

    async def _external(self, files: dict[str, str], overwrite: bool) -> dict[str, str]:
        async def prepare() -> Work[dict[str, str]]:
            actions, nodes = make_transaction(assign(await self._disks(), files), files)

            async def change() -> dict[str, str]:
                async with reserved([*files.values()], overwrite=overwrite):
                    await self.machine.qmp.aio.execute("transaction", actions=actions, timeout=None)
                return nodes

            return change

        return await self._jobs.execute("external", None, prepare)


def _job_arguments(disks: Sequence[Disk], state: Disk) -> dict[str, object]:
    return {"vmstate": state.node, "devices": [disk.node for disk in disks]}


# -- arguments ----------------------------------------------------------------------------------------------


def _check_name(name: object) -> str:
    """:raises ConfigError: for what is no name of a snapshot."""
    if not isinstance(name, str) or not name or not name.isprintable():
        raise ConfigError(
            f"the name of a snapshot must be a str of printable characters, not {name!r}", field="name"
        )
    if len(name.encode()) > _LONGEST_NAME:
        raise ConfigError(f"the name of a snapshot has {_LONGEST_NAME} bytes at most: {name!r}", field="name")
    return name


def _check_new_name(name: object) -> str:
    """:raises ConfigError: for what is no name for a new snapshot."""
    name = _check_name(name)
    if name.isdecimal():
        raise ConfigError(
            f"the name of a snapshot must not be a number, which QEMU takes for an id: {name!r}", field="name"
        )
    return name


def _check_disks(disks: object) -> Sequence[str] | None:
    """:raises ConfigError: for what is no sequence of names of disks."""
    if disks is None:
        return None
    if isinstance(disks, str | bytes) or not isinstance(disks, Sequence) or not disks:
        raise ConfigError(f"disks must be a sequence of names of disks, not {disks!r}", field="disks")
    for disk in disks:
        if not isinstance(disk, str) or not disk:
            raise ConfigError(f"disks must hold names of disks, not {disk!r}", field="disks")
    return tuple(disks)
