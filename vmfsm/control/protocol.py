"""What goes over a control socket: JSON, one object a line; `docs/control.md` has all of it."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vmfsm.errors import ConfigError

PROTOCOL = 1
"""The version: another one where what was valid is no more."""

LONGEST_REQUEST = 256 * 1024
"""Bytes of a line to the harness."""
LONGEST_ANSWER = 128 * 1024 * 1024
"""Bytes of a line from it: more than any monitor's reply."""
LONGEST_TIMEOUT = 24 * 3600.0
"""Seconds that may be asked for."""


class Peer(NamedTuple):
    """Who asks."""

    pid: int
    uid: int

    def __str__(self) -> str:
        return f"process {self.pid} of user {self.uid}"


def encode(message: Mapping[str, object]) -> bytes:
    """A line. :raises ValueError, TypeError: for what JSON has not."""
    return json.dumps(message, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """:raises ValueError: for what is no object of JSON."""
    try:
        message = json.loads(line, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(message, dict):
        raise ValueError("not an object")
    return message


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


class Fields:
    """Of a request. What is wrong with one is a `ConfigError` that names it."""

    def __init__(self, operation: str, given: Mapping[str, Any]) -> None:
        self._operation = operation
        self._left = dict(given)

    def text(self, name: str, default: str | None = None) -> str:
        """A str; one that must be given where there is no default."""
        value = self._left.pop(name, default)
        if not isinstance(value, str):
            raise self._wrong(name, "a string", value)
        try:
            value.encode()
        except UnicodeEncodeError:
            raise self._wrong(name, "text", value) from None  # half of a character
        return value

    def optional_text(self, name: str) -> str | None:
        """A str, or nothing."""
        if self._left.get(name) is None:
            self._left.pop(name, None)
            return None
        return self.text(name)

    def choice(self, name: str, choices: Sequence[str]) -> str:
        """One of these; the first where nothing is given."""
        value = self.text(name, choices[0])
        if value not in choices:
            raise self._wrong(name, f"one of {', '.join(choices)}", value)
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self._left.pop(name, default)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false", value)
        return value

    def whole(self, name: str, default: int, most: int) -> int:
        """From 0 to `most`."""
        value = self._left.pop(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise self._wrong(name, f"a whole number from 0 to {most}", value)
        return value

    def seconds(self, name: str, default: float) -> float:
        value = self._left.pop(name, default)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 <= value <= LONGEST_TIMEOUT or math.isnan(value):
            raise self._wrong(name, f"seconds, from 0 to {LONGEST_TIMEOUT:g}", value)
        return float(value)

    def mapping(self, name: str) -> dict[str, Any] | None:
        value = self._left.pop(name, None)
        if value is not None and not isinstance(value, dict):
            raise self._wrong(name, "an object", value)
        return value

    def which(self, name: str) -> "str | int":
        """A name, or a number."""
        value = self._left.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            del self._left[name]
            return value
        return self.text(name)

    def done(self) -> None:
        """There is to be nothing else."""
        for name in self._left:
            raise ConfigError(f"{self._operation}: there is no field {_shown(name)}", field=name)

    def _wrong(self, name: str, expected: str, value: object) -> ConfigError:
        said = "is missing" if value is None else f"is {_shown(value)}"
        return ConfigError(f"{self._operation}: {name} must be {expected}, but {said}", field=name)


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
