"""What commands print: JSON, ages as people say them, other people's words."""

import contextlib
import json
import os
import shutil
import sys
import textwrap
import threading
from collections.abc import Iterator

import click

from vmfsm.errors import printable
from vmfsm.jsonable import jsonable


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
    """How long something took: `0.3 ms`, `12 ms`, `1.2 s`, `42 s`, then as an age."""
    milliseconds = seconds * 1e3
    if milliseconds < 0.05:
        return "0 s"
    if seconds < 1:
        return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.1f} ms"
    return f"{seconds:.1f} s" if seconds < 10 else age(seconds)


_PATIENCE = 1.0
"""Seconds after which it is said what takes so long."""


@contextlib.contextmanager
def progress(text: str) -> Iterator[None]:
    """Say on stderr, to people at a terminal, what is going on where that takes more than a second."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield
        return

    def say() -> None:
        click.echo(f"{text} ...", err=True, nl=False)

    timer = threading.Timer(_PATIENCE, say)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
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
