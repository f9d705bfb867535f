"""A QMP command's arguments, as people write them in a shell."""

import json
from collections.abc import Sequence
from typing import Any


def parse_arguments(words: Sequence[str]) -> dict[str, Any]:
    """The arguments of `NAME=VALUE …`, or of one JSON object.

    A value is what it is as JSON, or else a str: `size=1024` is a number, `on=true` a boolean, `device=ide0`
    and `device="42"` are text. Dots in a name lead into objects: `file.driver=null-co`.

    :raises ValueError: for what is neither.
    """
    if len(words) == 1 and words[0].lstrip().startswith("{"):
        try:
            arguments = json.loads(words[0])
        except json.JSONDecodeError as error:
            raise ValueError(f"the arguments are no JSON: {error}") from None
        return dict(arguments)
    arguments = {}
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


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text
