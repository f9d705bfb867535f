"""The cells: every fault at every point, and why some can't be."""

import re
from collections import Counter
from typing import NamedTuple

from tests.faults.matrix.faults import FAULTS, By, Effect, Fault
from tests.faults.matrix.points import COMMANDS, PLACES, POINTS, Kind, Point, base

NO_QEMU = "no QEMU is alive there"
NO_MACHINE = "it is no machine's call"
NO_MONITOR = "QEMU's monitor is not what is waited for there"
NO_COMMAND = "no command is answered there, or the same one is at every launch"
NO_GUEST = "no guest runs there"
NO_EVENTS = "nobody is told of events before the negotiation"
OBEYS = "what obeys there has ended"
ONLY_AT_START = "it shows when QEMU is started"
ONLY_AT_END = "it shows when QEMU is to end"
ONLY_ITS_OWN = "it is of another wait"
NO_MIGRATION = "a FakeQEMU does not migrate"
PLAIN = "nothing can end a plain function that the caller itself runs"
NO_COMPANION = "no companion is alive there"
NEEDS_NONE = "it needs no descriptors"
LOOP_NEEDS = "the caller's own loop lacks them first"


class Cell(NamedTuple):
    fault: Fault
    point: Point

    @property
    def id(self) -> str:
        text = f"{self.fault.by.name.lower()} {self.fault.name} @ {self.point.name}"
        return re.sub(r"[^\w.@]+", "-", text).replace("-@-", "@").strip("-")


def impossible(fault: Fault, point: Point) -> str | None:
    """Why there is no such cell; `None`: there is."""
    if point.kind is Kind.TOOL:
        return None if fault.by is By.SIGNAL or fault.effect is Effect.INTERRUPTED else NO_MACHINE
    match fault.by:
        case By.SIGNAL:
            return None if point.with_qemu else NO_QEMU
        case By.HARNESS:
            held_up = fault.effect is Effect.HELD_UP and point.hook and not point.is_async
            return PLAIN if held_up else None
        case By.FAKE:
            return _impossible_for_fake(fault, point)
        case By.GUEST:
            has_guest = point.kind is Kind.CALL or (point.with_qemu and bool(point.hook))
            return None if has_guest and base(point.name) not in STANDS_STILL else NO_GUEST
        case By.WRAPPER:
            return _impossible_for_wrapper(fault, point)
        case By.COMPANION if fault.effect is Effect.IS_SILENT:
            return None if point.name == "launch: companion" else ONLY_ITS_OWN
        case By.COMPANION:
            return None if point.with_qemu or point.name == "launch: companion" else NO_COMPANION
        case By.HOST if fault.name == NO_DESCRIPTORS and point.kind is Kind.CALL:
            needs = base(point.name) in OPEN_SOMETHING
            return NEEDS_NONE if not needs else LOOP_NEEDS if ".aio." in point.name else None
        case By.HOST:
            return None if point.name == "launch: spawn" else ONLY_AT_START
        case By.HOOK:
            never = fault.effect is Effect.IS_SILENT and not point.is_async
            return ONLY_ITS_OWN if not point.hook else PLAIN if never else None


NO_DESCRIPTORS = "no descriptors"
OPEN_SOMETHING = {"fds.add", "fds.send", "migration.to_file", "migration.from_file"}
"""Calls that open a file while the machine runs."""
STANDS_STILL = {
    "migration.to",
    "migration.start",
    "migration.from_file",
    "migration.wait",
    "migration.cancel",
}
"""Calls that wait for a QEMU whose guest does not run."""


def _impossible_for_fake(fault: Fault, point: Point) -> str | None:
    obeys_first = bool(fault.orders) and fault.orders[0].name == "as_qemu"
    names = {action.name for action in fault.orders}
    if point.hook or point.name == "launch: companion":
        return NO_MONITOR
    if point.kind is Kind.CALL:
        call = base(point.name)
        if call.startswith("migration.") and call not in COMMANDS:
            return NO_MIGRATION
        return NO_COMMAND if fault.of_reply and call not in COMMANDS else None
    if fault.settings:
        return NO_COMMAND  # nobody asks for something else meanwhile
    if point.at in PLACES and names & {"reply", "refuse"}:
        return NO_COMMAND
    if point.at in {"start", "greeting"} and "emit" in names:
        return NO_EVENTS
    if point.at == "start" and (fault.effect is Effect.LOSES_MONITOR or "say" in names):
        return NO_MONITOR
    if point.at == "sigterm" and fault.effect not in {Effect.ENDS, Effect.DOES_NOTHING, Effect.IS_SILENT}:
        return OBEYS
    if point.at == "quit" and obeys_first:
        return OBEYS
    return None


def _impossible_for_wrapper(fault: Fault, point: Point) -> str | None:
    if fault.name == "detaches QEMU":
        return None if point.at == "start" else ONLY_AT_START
    if not point.with_qemu:
        return NO_QEMU
    if point.kind is Kind.LAUNCH or point.at in {"system_powerdown", "sigterm"}:
        return NO_MONITOR  # a real QEMU does not wait there
    if fault.effect is Effect.DOES_NOTHING:
        return None if point.kind in {Kind.STOP, Kind.STOP_HOOK} else ONLY_AT_END
    return OBEYS if point.kind is Kind.STOP and fault.effect is Effect.ENDS else None


CELLS: list[Cell] = []
IMPOSSIBLE: dict[tuple[str, str], str] = {}
for _fault_name, _fault in FAULTS.items():
    for _point_name, _point in POINTS.items():
        _reason = impossible(_fault, _point)
        if _reason is None:
            CELLS.append(Cell(_fault, _point))
        else:
            IMPOSSIBLE[_fault_name, _point_name] = _reason


def climbs_the_ladder(cell: Cell) -> bool:
    """It needs the first rungs' shares of a long deadline: all their time, kept to."""
    fault, point = cell
    if point.at == "system_powerdown":
        return fault.effect is not Effect.ENDS
    return point.at == "sigterm" and fault.effect in {Effect.ENDS, Effect.KILLED, Effect.INTERRUPTED}


def covering() -> list[Cell]:
    """Few cells that touch every fault and every point that any cell has, the same ones each time."""
    per_fault = Counter(cell.fault.name for cell in CELLS)
    per_point = Counter(cell.point.name for cell in CELLS)
    chosen: list[Cell] = []

    def rank(cell: Cell) -> tuple[bool, int, str]:
        """First those with the least choice, else they end up alone; last those that take long."""
        least = min(per_fault[cell.fault.name], per_point[cell.point.name])
        return climbs_the_ladder(cell), least, cell.id

    order = sorted(CELLS, key=rank)
    faults: Counter[str] = Counter()
    points: Counter[str] = Counter()
    for enough in ((0, 0), (0, 1), (0, 99), (1, 0), (2, 0), (99, 0)):
        for cell in order:
            touched = faults[cell.fault.name], points[cell.point.name]
            if 0 in touched and touched[0] <= enough[0] and touched[1] <= enough[1]:
                chosen.append(cell)
                faults[cell.fault.name] += 1
                points[cell.point.name] += 1
    return chosen
