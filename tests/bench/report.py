"""The figures as a table for people, and as JSON for programs."""

from collections.abc import Mapping, Sequence
from typing import Any

from .measuring import Figure, Spread

HEADINGS = ("figure", "vmfsm", "floor", "compared", "goal", "")


def table(figures: Sequence[Figure]) -> str:
    """In Markdown: medians, with what the middle 80 % of the samples lie between."""
    rows = [HEADINGS, *(_row(figure) for figure in figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
    lines.insert(1, "| " + " | ".join("-" * max(3, width) for width in widths) + " |")
    return "\n".join(lines)


def _row(figure: Figure) -> tuple[str, ...]:
    verdict = {True: "met", False: "MISSED", None: ""}[figure.met]
    return (
        figure.name,
        f"{_shown(figure.samples)} {figure.unit}".rstrip(),
        f"{_shown(figure.floor)} {figure.unit}".rstrip() if figure.floor else "",
        _compared(figure),
        figure.goal.describe(figure.unit).rstrip() if figure.goal else "",
        verdict,
    )


def _compared(figure: Figure) -> str:
    if figure.goal and figure.goal.compared == "difference":
        return f"+ {_shown(figure.differences)} {figure.unit}"
    return f"x {_shown(figure.ratios, 3)}" if figure.ratios else ""


def _shown(samples: Sequence[float], digits: int | None = None) -> str:
    spread = Spread.of(samples)
    if digits is None:
        digits = 0 if spread.median >= 100 or spread.median == int(spread.median) else 2
    return f"{spread.median:.{digits}f} ({spread.p10:.{digits}f}–{spread.p90:.{digits}f})"  # noqa: RUF001


def as_json(facts: Mapping[str, str], figures: Mapping[str, Sequence[Figure]]) -> dict[str, Any]:
    """All of it: every sample, in the order of the rounds."""
    return {
        "facts": facts,
        "benchmarks": {name: [_figure(figure) for figure in of_one] for name, of_one in figures.items()},
    }


def _figure(figure: Figure) -> dict[str, Any]:
    return {
        "name": figure.name,
        "unit": figure.unit,
        "goal": figure.goal and figure.goal.describe(figure.unit),
        "met": figure.met,
        **{
            what: {**Spread.of(samples)._asdict(), "samples": samples}
            for what, samples in (
                ("vmfsm", figure.samples),
                ("floor", figure.floor),
                ("ratio", figure.ratios),
                ("difference", figure.differences),
            )
            if samples
        },
    }
