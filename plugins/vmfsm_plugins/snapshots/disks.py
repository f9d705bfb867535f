"""Which disks a machine has, by which names, and which snapshots they hold.

Facts: QMP reference, `query-block` and `query-named-block-nodes`.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from vmfsm import ConfigError

_HOLDS_SNAPSHOTS = {"qcow2", "rbd"}

Reply = Sequence[Mapping[str, Any]]


class Snapshot(NamedTuple):
    """An internal snapshot, as `list` tells of it."""

    name: str
    vm_state_size: int
    """Bytes of the machine's state (memory and devices); 0 where only disks are in it."""
    when: datetime
    """When it was made, by the host's clock; in UTC."""
    clock: float
    """Seconds that the guest's virtual clock had run by then."""
    disks: tuple[str, ...]
    """The disks that hold it: the ids of drives, and where there is none, the names of block nodes."""


class Disk(NamedTuple):
    """A disk that can be written to."""

    name: str
    """For people: of all names the one that they gave."""
    names: frozenset[str]
    """All that it can be called."""
    node: str
    driver: str
    file: str
    snapshots: Reply

    def snapshot(self, name: str) -> Mapping[str, Any] | None:
        """The snapshot of that name (or, of several, the first), if it holds one."""
        return next((found for found in self.snapshots if found["name"] == name), None)


class Disks:
    """The disks of a machine that can be written to, at one time.

    These are the disks of devices, and images that can hold snapshots and are no device's themselves: those
    of `-blockdev` alone, and those below a filter, such as `throttle`.

    :param machine: its name.
    :param blocks: the reply to `query-block`.
    :param nodes: the reply to `query-named-block-nodes`.
    """

    def __init__(self, machine: str, blocks: Reply, nodes: Reply) -> None:
        self._machine = machine
        self.all: list[Disk] = []
        used = set()
        for block in blocks:
            image = block.get("inserted")
            if image is not None and not image["ro"]:
                used.add(image["node-name"])
                self.all.append(_disk(image, block["device"], _device_id(block.get("qdev", ""))))
        for image in nodes:
            if image["drv"] in _HOLDS_SNAPSHOTS and not image["ro"] and image["node-name"] not in used:
                self.all.append(_disk(image))

    def find(self, name: str, field: str) -> Disk:
        """The disk of a name.

        :raises ConfigError: where there is none.
        """
        for disk in self.all:
            if name in disk.names:
                return disk
        known = ", ".join(sorted({name for disk in self.all for name in disk.names})) or "none"
        raise ConfigError(
            f"{self._machine}: no disk {name!r} that can be written to (there are: {known})",
            field=field,
            machine=self._machine,
        )

    def choose(self, wanted: Sequence[str] | None) -> list[Disk]:
        """The disks that a snapshot is of: all, unless others are wanted.

        :raises ConfigError: where there is none, and where one of all cannot hold a snapshot.
        """
        if wanted is not None:
            chosen = {disk.node: disk for disk in (self.find(name, "disks") for name in wanted)}
            return list(chosen.values())
        if not self.all:
            raise self._refused(
                "no disk can hold a snapshot: give the machine a qcow2 image (vmfsm.qemu_img makes one), "
                "which no device needs to use"
            )
        unable = [disk for disk in self.all if disk.driver not in _HOLDS_SNAPSHOTS]
        if unable:
            names = ", ".join(f"{disk.name!r} ({disk.driver})" for disk in unable)
            raise self._refused(
                f"{names} can be written to, but not hold a snapshot, so that it would not fit to the others "
                "afterwards: lay a qcow2 image over it (vmfsm.qemu_img.overlay), make it read-only, or name "
                "by disks= those that are to be in the snapshot"
            )
        return self.all

    def _refused(self, what: str) -> ConfigError:
        return ConfigError(f"{self._machine}: {what}", field="disks", machine=self._machine)


def _disk(image: Mapping[str, Any], drive: str = "", device: str = "") -> Disk:
    node = image["node-name"]
    return Disk(
        name=drive or node,
        names=frozenset({drive, device, node} - {""}),
        node=node,
        driver=image["drv"],
        file=image["file"],
        snapshots=image["image"].get("snapshots", ()),
    )


def _device_id(path: str) -> str:
    """The id that somebody gave to a device, from its path in QEMU's object model."""
    parts = path.split("/")
    if parts[:3] == ["", "machine", "peripheral"] and len(parts) > 3:
        return parts[3]
    return "" if "/" in path else path


def collect(disks: Iterable[Disk]) -> list[Snapshot]:
    """The snapshots that these disks hold, oldest first."""
    holders: dict[str, dict[str, Mapping[str, Any]]] = {}
    for disk in disks:
        for found in disk.snapshots:
            holders.setdefault(found["name"], {}).setdefault(disk.name, found)
    snapshots = (_snapshot(name, held) for name, held in holders.items())
    return sorted(snapshots, key=lambda snapshot: snapshot.when)


def _snapshot(name: str, held: Mapping[str, Mapping[str, Any]]) -> Snapshot:
    # The state of the machine is on one of the disks.
    main = max(held.values(), key=lambda found: found["vm-state-size"])
    return Snapshot(
        name=name,
        vm_state_size=main["vm-state-size"],
        when=datetime.fromtimestamp(main["date-sec"] + main["date-nsec"] / 1e9, UTC),
        clock=main["vm-clock-sec"] + main["vm-clock-nsec"] / 1e9,
        disks=tuple(held),
    )
