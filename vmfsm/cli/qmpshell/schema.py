"""What `query-qmp-schema` tells: commands, their arguments, and the values these may have.

QEMU documentation, "QMP Introspection" (`SchemaInfo` in the QMP reference, and "How to use the QAPI code
generator", "Client JSON Protocol introspection").
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Member(NamedTuple):
    """An argument, or a member of an object."""

    name: str
    type: str
    """Of the schema."""
    optional: bool


class Schema:
    """Of one QEMU. Types are named by numbers in it, so that only looking them up says what they are."""

    def __init__(self, entries: Iterable[Mapping[str, Any]]) -> None:
        self._entries = {str(entry["name"]): entry for entry in entries}
        self.commands = self._of("command")
        """Their names, sorted."""
        self.events = self._of("event")

    def _of(self, meta: str) -> tuple[str, ...]:
        return tuple(sorted(name for name, one in self._entries.items() if one.get("meta-type") == meta))

    def arguments(self, name: str, given: Mapping[str, Any] | None = None) -> list[Member]:
        """Of a command, or the data of an event; with those that depend on what is `given` already.

        None for what is neither.
        """
        entry = self._entries.get(name, {})
        if entry.get("meta-type") not in {"command", "event"}:
            return []
        return self.members(str(entry.get("arg-type")), given or {})

    def members(self, type_name: str, given: Mapping[str, Any]) -> list[Member]:
        """Of an object type, required ones first. Of a union, with those of the variant that is given."""
        entry = self._object(type_name)
        found = [_member(one) for one in entry.get("members", ())]
        chosen = given.get(entry.get("tag", ""))
        for variant in entry.get("variants", ()):
            if variant.get("case") == chosen:
                inside = self._entries.get(str(variant.get("type")), {})
                found += [_member(one) for one in inside.get("members", ())]
        return sorted(found, key=lambda member: member.optional)

    def values(self, type_name: str) -> tuple[str, ...]:
        """What an argument of this type may be, where that is a few words."""
        entry = self._entries.get(type_name, {})
        match entry.get("meta-type"):
            case "enum":
                return tuple(map(str, entry.get("values", ())))
            case "builtin" if entry.get("json-type") == "boolean":
                return ("true", "false")
            case "alternate":
                return tuple(
                    value for one in entry.get("members", ()) for value in self.values(str(one["type"]))
                )
        return ()

    def describe(self, type_name: str) -> str:
        """A type in words."""
        entry = self._entries.get(type_name, {})
        match entry.get("meta-type"):
            case "builtin":
                return str(entry.get("json-type", type_name))
            case "enum":
                values = self.values(type_name)
                more = "|..." if len(values) > 6 else ""
                return "|".join(values[:6]) + more
            case "array":
                return f"list of {self.describe(str(entry.get('element-type')))}"
            case "alternate":
                return " or ".join(dict.fromkeys(self.describe(str(one["type"])) for one in entry["members"]))
        return "object"

    def is_object(self, type_name: str) -> bool:
        """Whether dots lead on behind an argument of this type."""
        return bool(self._object(type_name))

    def _object(self, type_name: str) -> Mapping[str, Any]:
        """The type, or the one of its alternatives, that is an object; nothing where there is none."""
        entry = self._entries.get(type_name, {})
        if entry.get("meta-type") == "object":
            return entry
        if entry.get("meta-type") == "alternate":
            found = (self._object(str(one["type"])) for one in entry.get("members", ()))
            return next(filter(None, found), {})
        return {}

    def result(self, command: str) -> str:
        """What a command returns, in words: the names of what is in it."""
        type_name = str(self._entries.get(command, {}).get("ret-type"))
        listed = self._entries.get(type_name, {}).get("meta-type") == "array"
        if listed:
            type_name = str(self._entries[type_name].get("element-type"))
        members = self.members(type_name, {})
        inside = ", ".join(member.name for member in members) if members else ""
        what = f"{{{inside}}}" if self.is_object(type_name) else self.describe(type_name)
        return f"list of {what}" if listed else what


def _member(entry: Mapping[str, Any]) -> Member:
    return Member(str(entry["name"]), str(entry["type"]), "default" in entry)
