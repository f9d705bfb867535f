"""Anything as JSON: what a record, an event or a plugin holds, for files and for other processes."""

import math
import os
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum

JSON = None | bool | int | float | str | list["JSON"] | dict[str, "JSON"]

_DEEPEST = 50


def jsonable(value: object) -> JSON:
    """`value`, or the nearest to it that JSON has. Never raises, and never waits.

    Sequences and sets become lists, enumerations their values, paths and bytes text (what is no UTF-8 as
    `\\\\xff`), numbers that JSON has not (NaN, infinity) text, keys text; of anything else, and of what is
    deeper than 50 levels, the `repr`.
    """
    return _jsonable(value, _DEEPEST)


def _jsonable(value: object, deepest: int) -> JSON:
    match value:
        case Enum():
            return _jsonable(value.value, deepest)
        case None | bool() | int():
            return value
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case float():
            return value if math.isfinite(value) else repr(value)
        case bytes() | bytearray():
            return value.decode("utf-8", "backslashreplace")
        case os.PathLike():
            return _jsonable(os.fspath(value), deepest)
        case Mapping() if deepest:
            return {_key(key): _jsonable(one, deepest - 1) for key, one in value.items()}
        case Sequence() | AbstractSet() if deepest:
            return [_jsonable(one, deepest - 1) for one in value]
    try:
        return _jsonable(repr(value), deepest)
    except Exception:  # noqa: BLE001 - somebody's `__repr__`
        return f"<{type(value).__name__}>"


def _key(key: object) -> str:
    text = _jsonable(key, 0)
    return text if isinstance(text, str) else str(text)
