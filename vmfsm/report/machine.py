"""One launch of a machine: all that its recording tells."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from vmfsm.jsonable import JSON, jsonable
from vmfsm.recording.picture import Picture
from vmfsm.reports import describe_exit
from vmfsm.timeline import Record

from .lanes import Lanes, Limits
from .logs import Writing
from .sources import Source
from .values import text

_MOST_ENVIRONMENT = 200
_LONGEST_FACT = 4_000


class Begun(NamedTuple):
    """A launch that was read, whose times are those of its recording's clock."""

    source: Source
    begin: float
    end: float
    lanes: Lanes
    snapshot: dict[str, JSON]
    ended: Record | None
    """The last change of its state."""
    failed_at: float | None


def read(source: Source, limits: Limits, beside: Callable[[str], Writing | None]) -> Begun:
    """Read all of it, once.

    :raises OSError: when it can't be read.
    """
    recording = source.recording
    picture = Picture(recording.header)
    lanes = Lanes(limits, beside)
    begin = end = failed_at = ended = None
    for record in recording.records():
        picture.add(record)
        lanes.add(record)
        at = record.at
        if begin is None or at < begin:
            begin = at
        if end is None or at > end:
            end = at
        if record.kind == "transition":
            ended = record
            if failed_at is None and record.data.get("dest") == "failed":
                failed_at = at
    begin = picture.now if begin is None else begin
    taken = recording.time(picture.now)
    snapshot = {**picture.snapshot(taken), **(source.snapshot or {})}
    return Begun(source, begin, begin if end is None else end, lanes, snapshot, ended, failed_at)


def told(begun: Begun, key: str, zero: float) -> dict[str, JSON]:
    """As the data has it.

    :param zero: what the axis begins with, on the clock of this recording.
    """
    source, snapshot = begun.source, begun.snapshot
    last = begun.ended.data if begun.ended is not None else {}
    lanes, logs = begun.lanes.told(zero, begun.end)
    header = source.recording.header
    return {
        "key": key,
        "name": text(header["name"], 200),
        "launch": jsonable(header.get("launch")),
        "source": source.path,
        "begin": round(begun.begin - zero, 6),
        "end": round(begun.end - zero, 6),
        "state": text(last.get("dest") or "configured", 40),
        "reason": text(last.get("reason"), 60) if last.get("reason") else None,
        "exit": _exit(snapshot.get("exit_status")),
        "diagnosis": _diagnosis(begun, zero),
        "facts": _facts(begun),
        "command": text(snapshot.get("shell"), 16_000) or None,
        "environment": _environment(snapshot.get("environment")),
        "plugins": _plugins(snapshot.get("plugins")),
        "problems": list(source.recording.problems),
        "lanes": lanes,
        "logs": logs,
        "files": [],
        "missing": [],
        "screendump": None,
    }


def _diagnosis(begun: Begun, zero: float) -> JSON:
    state = begun.ended.data.get("dest") if begun.ended is not None else None
    outcome = "ok" if state == "stopped" else "failed" if state == "failed" else "unfinished"
    at = None if begun.failed_at is None else round(begun.failed_at - zero, 6)
    cause = f"it ended as {state}"
    return {"outcome": outcome, "kind": outcome, "cause": cause, "at": at, "clues": [], "wait": None}


def _exit(status: JSON) -> str | None:
    is_status = isinstance(status, int) and not isinstance(status, bool)
    return f"QEMU {describe_exit(status)}" if is_status else None  # type: ignore[arg-type]


def _facts(begun: Begun) -> JSON:
    header, snapshot = begun.source.recording.header, begun.snapshot
    harness, host = header.get("harness"), header.get("host")
    harness = harness if isinstance(harness, dict) else {}
    host = host if isinstance(host, dict) else {}
    command = snapshot.get("command")
    facts: dict[str, object] = {
        "QEMU": command[0] if isinstance(command, list) and command else None,
        "test": harness.get("test"),
        "harness": _words(harness.get("command")),
        "harness's process": harness.get("pid"),
        "working directory": snapshot.get("cwd"),
        "host": host.get("name"),
        "kernel": _words([host.get("system"), host.get("kernel"), host.get("architecture")]),
        "CPUs": host.get("cpus"),
        "Python": header.get("python"),
        "vmfsm": header.get("vmfsm"),
        "recording": "\n".join(begun.source.recording.files),
    }
    return [
        {"name": name, "value": text(value, _LONGEST_FACT)}
        for name, value in facts.items()
        if value not in {None, ""}
    ]


def _words(value: object) -> str:
    return " ".join(text(one, 1_000) for one in value if one is not None) if isinstance(value, list) else ""


def _environment(value: JSON) -> dict[str, JSON]:
    items = list(value.items())[:_MOST_ENVIRONMENT] if isinstance(value, dict) else []
    return {text(name, 200): None if one is None else text(one, 2_000) for name, one in items}


def _plugins(value: JSON) -> list[JSON]:
    plugins = value[:100] if isinstance(value, list) else []
    return [
        {name: text(plugin.get(name), 100) or None for name in ("name", "distribution", "version")}
        for plugin in plugins
        if isinstance(plugin, Mapping)
    ]
