"""What commands print: tables that fit the terminal, JSON, ages as people say them."""

import contextlib
import json
import os
import shutil
import sys
import textwrap
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import click

from vmfsm.errors import printable
from vmfsm.jsonable import jsonable

_GAP = "  "


def colors() -> bool | None:
    """Whether to print in colours by the environment; `None`: where the output goes to a terminal."""
    is_unwanted = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return False if is_unwanted else None


def print_json(value: object) -> None:
    """One document. ASCII alone, so that nothing in it reaches a terminal as it is."""
    click.echo(json.dumps(jsonable(value), indent=2))


def one_line(text: object) -> str:
    """Somebody else's words, safe and on one line."""
    return printable(str(text)).replace("\n", "\\n").replace("\t", " ")


def age(seconds: float) -> str:
    """How long ago, or for how long: `42 s`, `12 min`, `5 h`, `3 d`."""
    for limit, size, unit in ((100, 1, "s"), (100 * 60, 60, "min"), (48 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{int(seconds / size)} {unit}"
    return f"{int(seconds / 86400)} d"


def duration(seconds: float) -> str:
    """How long something took: `0.3 ms`, `12 ms`, `1.24 s`, then as an age."""
    if seconds < 1:
        milliseconds = seconds * 1e3
        return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.1f} ms"
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s" if seconds < 100 else age(seconds)


_PATIENCE = 1.0
"""Seconds after which it is said what takes so long."""


@contextlib.contextmanager
def progress(text: str) -> Iterator[None]:
    """Say on stderr what is going on, where that takes more than a second; a terminal is wiped afterwards."""
    is_terminal = sys.stderr is not None and sys.stderr.isatty()

    def say() -> None:
        click.echo(f"{text} ...", err=True, nl=not is_terminal)

    timer = threading.Timer(_PATIENCE, say)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        if is_terminal:
            click.echo("\r\x1b[K", err=True, nl=False, color=True)


def terminal_width() -> int | None:
    """Of what stdout goes to, in columns (`COLUMNS` overrides it); `None` where that is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else None


def paragraph(text: str, indent: str = "") -> str:
    """A text in lines that fit the terminal, further ones indented; elsewhere as it is."""
    width = terminal_width()
    if width is None:
        return indent + text
    further = indent + "    "
    return textwrap.fill(text, max(width, 20), initial_indent=indent, subsequent_indent=further)


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
    whole. Texts that are somebody else's have to be `one_line`d before.
    """
    width = terminal_width()
    cells = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
    present = list(range(len(columns)))
    widths = [
        max(map(cell_width, [column.title, *(row[n].text for row in cells)]))
        for n, column in enumerate(columns)
    ]
    if width is not None:
        present = _fitting_columns(columns, widths, width - len(indent))
    titles = [Cell(column.title, dim=True) for column in columns]
    for row in [titles, *cells] if any(column.title for column in columns) else cells:
        line = [_aligned(row[n], widths[n], columns[n].right) for n in present]
        click.echo(indent + _GAP.join(line).rstrip())


def _fitting_columns(columns: Sequence[Column], widths: list[int], width: int) -> list[int]:
    """Which columns there is room for; `widths` is changed for those that are cut."""
    present = list(range(len(columns)))

    def excess() -> int:
        return sum(widths[n] for n in present) + len(_GAP) * (len(present) - 1) - width

    while excess() > 0 and (worst := max(present, key=lambda n: (columns[n].rank, n))):
        if columns[worst].rank == 0:
            break
        if worst == present[-1] and widths[worst] - excess() >= _LEAST:
            break  # the last one may be cut instead
        present.remove(worst)
    if excess() > 0 and widths[present[-1]] > _LEAST:
        widths[present[-1]] = max(_LEAST, widths[present[-1]] - excess())
    while excess() > 0:
        widest = max(present, key=lambda n: widths[n])
        if widths[widest] <= 1:
            break
        widths[widest] -= 1
    return present


_LEAST = 12
"""Columns of a terminal that a text which is cut should keep."""


def _aligned(cell: Cell, width: int, right: bool) -> str:
    text = fitting(cell.text, width)
    space = " " * (width - cell_width(text))
    styled = click.style(text, fg=cell.fg, dim=cell.dim or None) if cell.fg or cell.dim else text
    return space + styled if right else styled + space
