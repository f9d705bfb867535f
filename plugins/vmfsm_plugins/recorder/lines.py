"""Records as lines of JSON, in ASCII: nothing that a guest printed acts on the terminal that shows a file."""

import json

from vmfsm import Record, jsonable

LONGEST = 1024 * 1024
"""Bytes of a line. Of a record that is longer only the short values are kept."""
_SHORT = 1_000
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def line_of(record: Record) -> bytes:
    """The line of one record. Never raises, whatever a plugin has put into it."""
    kind, at, data = record
    if type(data) is dict:
        try:
            text = _encode({"at": round(at, 6), "kind": kind, "data": data})
            if "\\ud" not in text and len(text) < LONGEST:
                return f"{text}\n".encode("ascii")
        except Exception:  # noqa: BLE001 - it holds what JSON has not; `data` is anybody's
            pass
    # There it is, or half a pair of surrogates, which not every reader of JSON takes.
    text = as_object(data)
    head = as_object({"at": round(at, 6), "kind": str(jsonable(kind))})[:-1]
    if len(head) + len(text) > LONGEST:
        text = as_object(_short(data, len(text)))
    return f'{head},"data":{text}}}\n'.encode("ascii")


def as_object(data: object) -> str:
    """`data`, or the nearest to it that JSON has, as an object of JSON. Never raises."""
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
