"""Anything as JSON: what a record, an event or a plugin holds, for files and for other processes."""

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum

JSON = None | bool | int | float | str | list["JSON"] | dict[str, "JSON"]

_DEEPEST = 50
_MOST_VALUES = 100_000
_MOST_BITS = 1024
"""Of a whole number: as many as a `double` has room for, with which many programs read JSON."""


def jsonable(value: object) -> JSON:
    """`value`, or the nearest to it that JSON has. Never raises, and never waits.

    Sequences and sets become lists, enumerations their values, paths and bytes text (what is no UTF-8 as
    `\\\\xff`), numbers that JSON has not (NaN, infinity) or that few can read (of more than 1024 bits, in
    hexadecimal) text, keys text; of anything else the `repr`. Of what is deeper than 50 levels, and of what
    another thread changes meanwhile, there is the name of its type, `<dict>`, and what comes after 100,000
    values is left out.
    """
    return _Copying().copy(value, _DEEPEST)


class _Copying:
    """One copy, with an end: what holds something twice, which does that again, would have none."""

    def __init__(self) -> None:
        self._left = _MOST_VALUES

    def copy(self, value: object, deepest: int) -> JSON:
        self._left -= 1
        try:
            match value:
                case Enum():
                    return self.copy(value.value, deepest)
                case None | bool():
                    return value
                case int():
                    return value if value.bit_length() <= _MOST_BITS else hex(value)
                case str():
                    return value.encode("utf-8", "backslashreplace").decode()
                case float():
                    return value if math.isfinite(value) else repr(value)
                case bytes() | bytearray():
                    return value.decode("utf-8", "backslashreplace")
                case os.PathLike():
                    return self.copy(os.fspath(value), deepest)
                case Mapping() | Sequence() | AbstractSet():
                    return self._container(value, deepest - 1)
            return repr(value).encode("utf-8", "backslashreplace").decode()
        except Exception:  # noqa: BLE001 - somebody's `__repr__`, say
            return f"<{type(value).__name__}>"

    def _container(
        self, value: Mapping[object, object] | Sequence[object] | AbstractSet[object], deepest: int
    ) -> JSON:
        if deepest < 0:
            return f"<{type(value).__name__}>"  # its `repr` might have no end
        if isinstance(value, Mapping):
            items = itertools.takewhile(self._has_room, value.items())
            return {_key(key): self.copy(one, deepest) for key, one in items}
        return [self.copy(one, deepest) for one in itertools.takewhile(self._has_room, value)]

    def _has_room(self, _: object) -> bool:
        return self._left > 0


def _key(key: object) -> str:
    text = str(key) if isinstance(key, tuple | frozenset) else _Copying().copy(key, 0)
    return text if isinstance(text, str) else str(text)
