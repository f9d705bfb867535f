"""A plot of what was measured, as an SVG that needs nothing but a browser."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 720, 150
"""Of one panel's area."""
_LEFT, _TOP, _GAP = 80, 40, 60
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e")


class Panel(NamedTuple):
    """Some columns over another one that grows."""

    title: str
    unit: str
    over: str
    columns: Sequence[str]


def svg(title: str, rows: Sequence[Mapping[str, float]], panels: Sequence[Panel]) -> str:
    """The panels below each other. Each begins at 0, so that what grows little does not look like much."""
    width, height = _LEFT + _WIDTH + 20, _TOP + len(panels) * (_HEIGHT + _GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        _text(_LEFT, 18, title, "start", weight="bold"),
    ]
    for number, panel in enumerate(panels):
        parts += _panel(panel, rows, _TOP + number * (_HEIGHT + _GAP) + 10)
    return "\n".join([*parts, "</svg>\n"])


def _panel(panel: Panel, rows: Sequence[Mapping[str, float]], top: int) -> list[str]:
    most = max(max(row[column] for row in rows) for column in panel.columns) or 1.0
    last = rows[-1][panel.over]
    bottom = top + _HEIGHT
    parts = [
        f'<path d="M{_LEFT} {top}V{bottom}H{_LEFT + _WIDTH}" fill="none" stroke="black"/>',
        _text(_LEFT, top - 6, f"{panel.title}{f' ({panel.unit})' if panel.unit else ''}", "start"),
        _text(_LEFT - 6, top + 8, f"{most:,.4g}" if most < 1e4 else f"{most:,.0f}", "end"),
        _text(_LEFT - 6, bottom, "0", "end"),
        _text(_LEFT + _WIDTH, bottom + 14, f"{last:,.0f} {panel.over}", "end"),
    ]
    for number, column in enumerate(panel.columns):
        colour = _COLOURS[number % len(_COLOURS)]
        points = " ".join(
            f"{_LEFT + row[panel.over] / last * _WIDTH:.1f},{bottom - row[column] / most * _HEIGHT:.1f}"
            for row in rows
        )
        parts += [
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>',
            _text(_LEFT + 10 + number * 140, bottom + 30, column, "start", fill=colour),
        ]
    return parts


def _text(x: int, y: int, text: str, anchor: str, *, fill: str = "black", weight: str = "normal") -> str:
    style = (
        f'font-family="sans-serif" font-size="11" text-anchor="{anchor}" fill="{fill}" font-weight="{weight}"'
    )
    return f'<text x="{x}" y="{y}" {style}>{escape(text)}</text>'
