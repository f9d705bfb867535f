"""The words of a diagnosis: short, on one line, and harmless on a terminal, whoever's they are."""

import os
import re

from vmfsm.errors import cut, printable

_LONGEST_QUOTE = 120
_LONGEST_CALLER = 80
_LONGEST_TEXT = 600
_LOOKED_AT = 2_000
"""Characters of somebody's text that are looked at for a quotation."""
_BREAK = re.compile(r"[\n\t]+")
_CONTROL_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[()][0-9A-Za-z]|[=>78cDEHM])")
"""What colours a line or moves the cursor (ECMA-48): nobody wants to read it."""


def plain(text: object) -> str:
    """Somebody's text on one line, without what only a terminal understands; its blanks are kept."""
    shown = printable(_CONTROL_SEQUENCE.sub("", str(text)[:_LOOKED_AT]))
    return " ".join(filter(None, map(str.strip, _BREAK.split(shown))))


def line(text: object) -> str:
    """The same, as long as a text of ours may be."""
    return cut(plain(text), _LONGEST_TEXT)


def quoted(text: object) -> str:
    """Somebody's words, as such."""
    return f"'{cut(plain(text), _LONGEST_QUOTE)}'"


def seconds(value: float) -> str:
    """How long: `3 ms`, `0.57 s`, `2.1 s`, `28.4 s`, `312 s`."""
    value = max(0.0, value)
    if value < 0.1:
        return f"{value * 1000:.0f} ms"
    if value < 1:
        return f"{value:.2f} s"
    return f"{value:.1f} s" if value < 100 else f"{value:.0f} s"


def times(number: int, what: str) -> str:
    """`1 reset`, `7 resets`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def where(caller: object, directory: object) -> str:
    """A caller's `path:line`, without the directory that its program runs in."""
    path = plain(caller)
    if isinstance(directory, str) and directory:
        path = path.removeprefix(directory.rstrip(os.sep) + os.sep)
    return path if len(path) <= _LONGEST_CALLER else f"…{path[-_LONGEST_CALLER + 1 :]}"
