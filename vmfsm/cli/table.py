"""Tables without lines and boxes: aligned, as wide as the terminal at most."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import click

from .output import terminal_width

_GAP = "  "
_LEAST = 12
"""Columns of a terminal that the last text of a row should keep, where it is cut."""


def cell_width(text: str) -> int:
    """The columns that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def fitting(text: str, width: int) -> str:
    """`text`, cut with an ellipsis where it is wider."""
    if cell_width(text) <= width:
        return text
    while text and cell_width(text) >= width:
        text = text[:-1]
    return text + "…" if width > 0 else ""


class Column(NamedTuple):
    """A column of a table."""

    title: str
    rank: int = 0
    """Where there is not enough room, columns are left out, the highest rank first; those of rank 0 never."""
    right: bool = False
    """Numbers and ages are aligned to the right."""


class Cell(NamedTuple):
    """A text with a colour of click's."""

    text: str
    fg: str | None = None
    dim: bool = False


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str | Cell]], indent: str = "") -> None:
    """Print rows, aligned; on a terminal, no wider than that.

    What does not fit at all is cut: the last column first, and then the widest. Output that goes elsewhere is
    whole. Columns without any text are left out. Somebody else's texts have to be `one_line`d before.
    """
    width = terminal_width()
    cells = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
    present = [n for n in range(len(columns)) if any(row[n].text for row in cells)]
    widths = [
        max(map(cell_width, [column.title, *(row[n].text for row in cells)]))
        for n, column in enumerate(columns)
    ]
    if width is not None:
        present = _fitting_columns(columns, present, widths, width - len(indent))
    titles = [Cell(column.title, dim=True) for column in columns]
    for row in [titles, *cells] if any(column.title for column in columns) else cells:
        line = [_aligned(row[n], widths[n], columns[n].right) for n in present]
        click.echo(indent + _GAP.join(line).rstrip())


def _fitting_columns(
    columns: Sequence[Column], candidates: Sequence[int], widths: list[int], width: int
) -> list[int]:
    """Which of the columns there is room for; `widths` is changed for those that are cut."""
    present = list(candidates)

    def excess() -> int:
        return sum(widths[n] for n in present) + len(_GAP) * (len(present) - 1) - width

    while excess() > 0:
        worst = max(present, key=lambda n: (columns[n].rank, n))
        can_be_cut = worst == present[-1] and widths[worst] - excess() >= _LEAST
        if columns[worst].rank == 0 or can_be_cut:
            break
        present.remove(worst)
    if excess() > 0:
        last = present[-1]
        widths[last] = min(widths[last], max(_LEAST, widths[last] - excess()))
    while excess() > 0 and max(widths[n] for n in present) > 1:
        widths[max(present, key=lambda n: widths[n])] -= 1
    return present


def _aligned(cell: Cell, width: int, right: bool) -> str:
    text = fitting(cell.text, width)
    space = " " * (width - cell_width(text))
    styled = click.style(text, fg=cell.fg, dim=cell.dim or None) if cell.fg or cell.dim else text
    return space + styled if right else styled + space
