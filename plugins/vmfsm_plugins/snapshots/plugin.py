"""`machine.snapshots`."""

from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from vmfsm import Machine, hookimpl

from .aio import AsyncSnapshots
from .disks import Snapshot
from .external import Path
from .operations import Operations

T = TypeVar("T")

_Listing = list[Snapshot]


class Snapshots:
    """`machine.snapshots`: snapshots of a running machine, by its monitor.

    An internal snapshot (`save`, `load`, `delete`, `list`) is in the qcow2 images of the machine: what was on
    the disks, and the memory and devices in one of them. An external one (`external`) leaves the images as
    they are; the guest goes on in new files.

    A disk is named by the id of its drive, of its device, or by its block node.

    Calls may come from any thread but the I/O thread; a machine does one at a time, and the others wait.
    `timeout` is in seconds (`None`: no limit). Beside what they say themselves, they raise what every wait
    on a machine does: `MachineTimeout`, `MachineDied` when QEMU ends first, `TransitionError` before the
    first launch and on the I/O thread; and `ConfigError` where there is no monitor. What QEMU was told it
    carries out even if the call ends before. Each has a twin for coroutines under `aio`.
    """

    name = "snapshots"
    after: ClassVar = ("logs", "fdpass", "console", "qmp")

    def __init__(self) -> None:
        self._operations: Operations | None = None
        self.aio = AsyncSnapshots(self)
        """The same calls, for coroutines on the I/O thread or in any other asyncio loop."""

    def __repr__(self) -> str:
        of = f" of {self._operations.machine.name}" if self._operations else ""
        return f"<Snapshots{of}>"

    def save(self, name: str, *, disks: Sequence[str] | None = None, timeout: float | None = 60) -> None:
        """Make a snapshot of memory, devices and disks.

        :param name: not one that is there already, and not a number: QEMU would take it for an id.
        :param disks: those that are in it; all that can be written to without it.
        :raises SnapshotError: when QEMU cannot, or when there is a snapshot of this name.
        :raises ConfigError: when the name is none; when there is no disk that can hold a snapshot, or one
            that cannot is not left out by `disks`.

        The guest stands still meanwhile, and then goes on if it ran. A save whose call has ended early may
        still come to be: `list` tells.
        """
        self._run(self._ready().save(name, disks), timeout, "save a snapshot")

    def load(self, name: str, *, disks: Sequence[str] | None = None, timeout: float | None = 60) -> None:
        """Go back to a snapshot: memory, devices and disks are as they were.

        :param disks: as for `save`, and the same.
        :raises SnapshotError: when QEMU cannot, or there is no such snapshot on all of these disks. When QEMU
            fails on its way, the guest stands still and is not fit to go on.
        :raises ConfigError: as for `save`.

        A guest that runs goes on from there; a paused one stays paused. What the console and the timeline
        have stays.
        """
        self._run(self._ready().load(name, disks), timeout, "load a snapshot")

    def delete(self, name: str, *, disks: Sequence[str] | None = None, timeout: float | None = 60) -> None:
        """Remove a snapshot from the disks that have it, or from those of `disks`.

        :raises SnapshotError: when QEMU cannot, or none of them has it.
        :raises ConfigError: for a disk that is not there.
        """
        self._run(self._ready().delete(name, disks), timeout, "delete a snapshot")

    def list(self, *, disks: Sequence[str] | None = None, timeout: float | None = 60) -> _Listing:
        """The snapshots that the disks hold (all, or those of `disks`), oldest first.

        :raises ConfigError: for a disk that is not there.
        """
        return self._run(self._ready().list(disks), timeout, "list snapshots")

    def external(
        self, files: Mapping[str, Path], *, overwrite: bool = False, timeout: float | None = 60
    ) -> dict[str, str]:
        """Lay a new qcow2 image over each of these disks, over all at the same time.

        :param files: the new images, by disk.
        :param overwrite: they may be files, which are lost, whatever comes of it.
        :returns: the block nodes that are the disks now, by the names in `files`. A disk that was named by
            its block node is to be named by that from now on.
        :raises SnapshotError: when QEMU cannot; then no disk has changed, and there are no new files.
        :raises ConfigError: for a disk that is not there, or that QEMU knows by a relative path; for a file
            that is there already, or cannot be made.

        From then on the guest writes to the new images, and the old ones are only read: they are the
        snapshot. Memory is not in it, so they are what a loss of power would have left, unless the guest had
        written everything before. The new images name those below them by their absolute paths.
        """
        return self._run(self._ready().external(files, overwrite), timeout, "take an external snapshot")

    # -- hooks ----------------------------------------------------------------------------------------------

    @hookimpl
    def configured(self, machine: Machine) -> None:
        self._operations = Operations(machine)

    def _ready(self) -> Operations:
        assert self._operations is not None, "a plugin object is configured by its machine"
        return self._operations

    def _run(self, work: Coroutine[Any, Any, T], timeout: float | None, operation: str) -> T:
        return self._ready().machine.run(work, timeout=timeout, operation=operation)
