"""Records as lines of JSON, in ASCII: nothing that a guest printed acts on the terminal that shows a file."""

import json
import math

from vmfsm import Record, jsonable

LONGEST = 1024 * 1024
"""Bytes of a line. Of a record that is longer only the short values are kept."""
_SHORT = 1_000
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def line_of(record: Record) -> bytes:
    """The line of one record. Never raises, whatever a plugin has put into it."""
    return as_line(record.kind, record.at, record.data)


def as_line(kind: object, at: float, data: object) -> bytes:
    """See `line_of`."""
    text = as_object(data)
    head = f'{{"at":{at if math.isfinite(at) else 0:.6f},"kind":{_encode(str(jsonable(kind)))},"data":'
    if len(head) + len(text) > LONGEST:
        text = _encode(_short(data, len(text)))
    return f"{head}{text}}}\n".encode("ascii")


def as_object(data: object) -> str:
    """As a JSON object. Never raises."""
    try:
        text = _encode(data)
        if text.startswith("{") and "\\ud" not in text:
            return text
    except Exception:  # noqa: BLE001 - it holds what JSON has not; `data` is anybody's
        pass
    # There it is, or half a pair of surrogates, which not every reader of JSON takes.
    try:
        value = jsonable(data)
        return _encode(value if isinstance(value, dict) else {"value": value})
    except Exception as error:  # noqa: BLE001 - changed while it was looked at, say
        return _encode({"unreadable": type(error).__name__})


def _short(data: object, size: int) -> dict[str, object]:
    value = jsonable(data)
    short = {}
    if isinstance(value, dict):
        short = {key[:_SHORT]: one for key, one in value.items() if len(_encode(one)) <= _SHORT}
    return {**(short if len(short) <= 100 else {}), "left_out": size}
