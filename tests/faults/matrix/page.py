"""What `docs/faults.md` has of the matrix: its lists and counts; run as a program, it prints that."""

from collections import Counter
from collections.abc import Iterable

from tests.faults.matrix.cells import CELLS, IMPOSSIBLE
from tests.faults.matrix.faults import FAULTS
from tests.faults.matrix.points import POINTS, Kind, Point


def table(*rows: Iterable[object]) -> str:
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    lines.insert(1, "| --- " * lines[0].count(" | ") + "| --- |")
    return "\n".join(lines)


def where(point: Point) -> str:
    if point.hook:
        return f"a hook: `{point.hook}`" + (", `async`" if point.is_async else "")
    if point.kind in {Kind.CALL, Kind.TOOL}:
        return "as [there](waiting.md)"
    return "a companion that is not ready yet" if not point.at else f"QEMU: `{point.at}`"


def text() -> str:
    calls = [name for name, point in POINTS.items() if point.kind in {Kind.CALL, Kind.TOOL}]
    own = [(f"`{name}`", where(point)) for name, point in POINTS.items() if name not in calls]
    faults = [(fault.by.value, fault.name, fault.effect.value) for fault in FAULTS.values()]
    reasons = Counter(IMPOSSIBLE.values()).most_common()
    return "\n\n".join(
        [
            "### The faults",
            table(("by", "fault", "what it amounts to"), *faults),
            "### The points",
            table(("point", "what is waited for"), *own),
            f"And {len(calls)} calls with a timeout, as [their list](waiting.md) has them.",
            "### The counts",
            table(
                ("", "number"),
                ("faults", len(FAULTS)),
                ("points", len(POINTS)),
                ("pairs", len(FAULTS) * len(POINTS)),
                ("cells", len(CELLS)),
                *((f"none, as {reason}", count) for reason, count in reasons),
            ),
        ]
    )


if __name__ == "__main__":
    print(text())
