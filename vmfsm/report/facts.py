"""Where a launch took place, and with what: for people, by name."""

from collections.abc import Mapping

from vmfsm.jsonable import JSON

from .sources import Source
from .values import text

_LONGEST = 4_000


def facts(source: Source, snapshot: Mapping[str, JSON]) -> list[JSON]:
    """All that is known.

    :param snapshot: what the records tell; a bundle's own is asked for what they do not.
    """
    header = source.recording.header
    harness, host = _object(header.get("harness")), _object(header.get("host"))
    details = [_object(one.get("details")) for one in (snapshot, source.snapshot)]
    versions = [_object(one.get("qmp")).get("version") for one in details]
    command = snapshot.get("command")
    binary = snapshot.get("binary") or (command[0] if isinstance(command, list) and command else None)
    found: dict[str, object] = {
        "QEMU": next((version for version in versions if version), None),
        "binary": binary,
        "working directory": snapshot.get("cwd"),
        "host": host.get("name"),
        "kernel": _words([host.get("system"), host.get("kernel"), host.get("architecture")]),
        "CPUs": host.get("cpus"),
        "memory": host.get("memory"),
        "Python": header.get("python"),
        "vmfsm": header.get("vmfsm"),
        "test": source.test,
        "harness": _words(harness.get("command")),
        "harness's process": harness.get("pid"),
        "bundle": source.bundle,
        "bundle made for": source.why,
        "recording": "\n".join(source.recording.files),
    }
    named = ((name, text(value, _LONGEST)) for name, value in found.items())
    return [{"name": name, "value": value} for name, value in named if value]


def _object(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _words(value: object) -> str:
    return " ".join(text(one, 1_000) for one in value if one is not None) if isinstance(value, list) else ""
