"""A QMP command as it is sent, made of what the caller gave."""

import itertools
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from vmfsm import ConfigError

# For the whole process, so that a reply that comes late can be that to no other command, on no connection.
_numbers = itertools.count(1)


class Request(NamedTuple):
    number: int
    """Its `id`."""
    command: str
    data: bytes
    arguments: tuple[str, ...]
    """Their names."""

    @property
    def operation(self) -> str:
        """What it is called in messages."""
        return f"execute({self.command!r})"


def make_request(
    command: str,
    arguments: Mapping[str, Any] | None = None,
    kw: Mapping[str, Any] | None = None,
    *,
    key: str = "execute",
) -> Request:
    """Check and encode a command. From any thread.

    :raises ConfigError: for what is no command, and for arguments that are given twice or are no JSON.
    """
    # Messages have no values, in which there may be secrets.
    if not isinstance(command, str) or not command:
        what = "''" if command == "" else type(command).__name__
        raise ConfigError(f"command must be the name of a command, not {what}", field="command")
    if arguments is not None and not isinstance(arguments, Mapping):
        raise ConfigError(f"arguments must be a mapping, not {type(arguments).__name__}", field="arguments")
    number = next(_numbers)
    message: dict[str, Any] = {key: command, "id": number}
    names: tuple[str, ...] = ()
    if arguments or kw:
        message["arguments"] = merged = _merge(command, arguments or {}, kw or {})
        names = tuple(map(str, merged))
    try:
        data = json.dumps(message, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"the arguments of {command} are no JSON: {error}", field="arguments") from error
    return Request(number, command, data, names)


def _merge(command: str, arguments: Mapping[str, Any], kw: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(arguments)
    for name, value in kw.items():
        argument = name.replace("_", "-")
        if argument in merged:
            raise ConfigError(f"argument {argument!r} of {command} is given twice", field="arguments")
        merged[argument] = value
    return merged
