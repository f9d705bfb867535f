"""QMP commands as people write them, in a shell of theirs or in ours."""

import json
import re
import shlex
from collections.abc import Sequence
from typing import Any

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


def parse_command(line: str) -> tuple[str, dict[str, Any]]:
    """A command and its arguments, of one line: `COMMAND NAME=VALUE …`, `COMMAND {…}`, or as QMP has it,
    `{"execute": …, "arguments": {…}}`.

    :raises ValueError: for anything else.
    """
    line = line.strip()
    if line.startswith("{"):
        message = _object(line)
        name, arguments = message.get("execute"), message.get("arguments", {})
        if set(message) - {"execute", "arguments", "id"} or not isinstance(arguments, dict):
            raise ValueError('wanted: {"execute": COMMAND, "arguments": {...}}')
    else:
        name, _, rest = line.partition(" ")
        rest = rest.strip()
        arguments = parse_arguments([rest] if rest.startswith("{") else shlex.split(rest))
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"not the name of a command: {name!r}")
    return name, arguments


def parse_arguments(words: Sequence[str]) -> dict[str, Any]:
    """The arguments of `NAME=VALUE …`, or of one JSON object.

    A value is what it is as JSON, or else a str: `size=1024` is a number, `on=true` a boolean, `device=ide0`
    and `device="42"` are text. Dots in a name lead into objects: `file.driver=null-co`.

    :raises ValueError: for what is neither.
    """
    if len(words) == 1 and words[0].lstrip().startswith("{"):
        return _object(words[0])
    arguments: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not all(name.split(".")):
            raise ValueError(f"not an argument: {word!r} (wanted: NAME=VALUE, or one JSON object)")
        *path, last = name.split(".")
        inner = arguments
        for step in path:
            inner = inner.setdefault(step, {})
            if not isinstance(inner, dict):
                raise ValueError(f"argument {name!r}: {step!r} is a value already")
        if last in inner:
            raise ValueError(f"argument {name!r} is given twice")
        inner[last] = _value(text)
    return arguments


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON: {error}") from None
    assert isinstance(value, dict), "it begins with a brace"
    return value


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text
