"""What may come next in a command that is being typed, and what there is to know about it."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from .schema import Member, Schema


class Candidate(NamedTuple):
    """Something that may be typed here."""

    text: str
    """In place of the word that was begun."""
    about: str
    """In a few words."""


def candidates(schema: Schema, line: str) -> tuple[str, list[Candidate]]:
    """The word that was begun, as far as it is to be replaced, and what it may become.

    :param line: up to the cursor.
    """
    words = line.split(" ")
    begun = words[-1]
    if "{" in line or "'" in line or '"' in line:
        return begun, []  # JSON, or quoted: not taken apart here
    if len(words) == 1:
        names = [Candidate(name, "") for name in (*schema.commands, *BUILT_IN) if name.startswith(begun)]
        return begun, names
    if words[0] == "help":
        return begun, [
            Candidate(name, "") for name in (*schema.commands, *schema.events) if name.startswith(begun)
        ]
    given = _given(words[1:-1])
    name, equals, value = begun.partition("=")
    if equals:
        member = _find(schema, words[0], name, given)
        values = schema.values(member.type) if member is not None else ()
        return value, [Candidate(one, "") for one in values if one.startswith(value)]
    return begun, [one for one in _names(schema, words[0], begun, given) if one.text not in _taken(given)]


def signature(schema: Schema, line: str) -> str:
    """The arguments of the command that is being typed, optional ones in brackets; empty if it is none."""
    command = line.strip().split(" ")[0]
    if command not in schema.commands:
        return ""
    shown = [f"{one.name}: {schema.describe(one.type)}" for one in schema.arguments(command)]
    optional = [one.optional for one in schema.arguments(command)]
    return "  ".join(
        f"[{text}]" if is_optional else text for text, is_optional in zip(shown, optional, strict=True)
    )


BUILT_IN = {"help": "what a command does with which arguments", "exit": "leave; so does Ctrl-D"}
"""The shell's own commands."""


def describe(schema: Schema, name: str) -> list[str]:
    """A command or an event, in lines."""
    is_event = name in schema.events
    if not is_event and name not in schema.commands:
        return []
    members = schema.arguments(name)
    width = max((len(member.name) for member in members), default=0)
    lines = [f"{name} ({'event' if is_event else 'command'})"]
    for member in members:
        optional = ", optional" if member.optional else ""
        lines.append(f"  {member.name:{width}}  {schema.describe(member.type)}{optional}")
    if not is_event:
        lines.append(f"  returns {schema.result(name)}")
    return lines


def _given(words: list[str]) -> dict[str, Any]:
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def _taken(given: dict[str, Any]) -> set[str]:
    return {f"{name}=" for name in given}


def _names(schema: Schema, command: str, begun: str, given: dict[str, Any]) -> Iterator[Candidate]:
    *path, last = begun.split(".")
    members = schema.arguments(command, given)
    prefix = ""
    for step in path:
        prefix += f"{step}."
        inside = [one for one in members if one.name == step and schema.is_object(one.type)]
        if not inside:
            return
        members = schema.members(inside[0].type, _inside(given, prefix))
    for member in members:
        if member.name.startswith(last):
            end = "." if schema.is_object(member.type) else "="
            about = schema.describe(member.type) + (", optional" if member.optional else "")
            yield Candidate(f"{prefix}{member.name}{end}", about)


def _find(schema: Schema, command: str, name: str, given: dict[str, Any]) -> Member | None:
    *path, last = name.split(".")
    members = schema.arguments(command, given)
    prefix = ""
    for step in path:
        prefix += f"{step}."
        inside = [one for one in members if one.name == step]
        if not inside:
            return None
        members = schema.members(inside[0].type, _inside(given, prefix))
    return next((one for one in members if one.name == last), None)


def _inside(given: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in given.items() if name.startswith(prefix)}
