"""What is in a record, which may be anybody's, as small values that JSON has."""

import json
from collections.abc import Mapping

from vmfsm.jsonable import JSON, jsonable

_LONGEST = 300
_MOST = 16
_BIGGEST = 1e15


def number(value: object) -> float | None:
    """A number that can be reckoned with, or nothing."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if -_BIGGEST < value < _BIGGEST else None


def text(value: object, most: int = _LONGEST) -> str:
    """As text, of about `most` characters; where something was left out it says so."""
    if type(value) is str and len(value) <= most and value.isascii():
        return value
    if not isinstance(value, str):
        value = value if value is None else _as_text(value)
        value = "" if value is None else value
    return shortened(value, most)


def shortened(value: str, most: int) -> str:
    """As much of it as that, from its beginning and its end; valid Unicode."""
    if len(value) > most:
        end = most // 5
        left_out = len(value) - most
        value = f"{value[: most - end]} […{left_out:,} characters left out…] {value[-end:]}"
    return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()


def detail(data: Mapping[str, object], *without: str) -> dict[str, JSON]:
    """What a record says besides: each value short, and not too many."""
    told: dict[str, JSON] = {}
    for name, value in data.items():
        if value is None or name in without:
            continue
        if len(told) == _MOST:
            told["…"] = f"and {len(data) - _MOST} more"
            break
        if type(value) is str and len(value) <= _LONGEST and value.isascii():
            told[text(name, 60)] = value
        elif type(value) is bool or (type(value) in {int, float} and number(value) is not None):
            told[text(name, 60)] = value  # type: ignore[assignment]
        else:
            told[text(name, 60)] = text(value)
    return told


def _as_text(value: object) -> str:
    if isinstance(value, bool | int | float):
        return str(jsonable(value))
    return json.dumps(jsonable(value), ensure_ascii=False, separators=(", ", ": "))
