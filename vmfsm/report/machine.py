"""One launch of a machine: all that its recording tells."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from vmfsm.diagnosis import Diagnosis, Diagnostician
from vmfsm.jsonable import JSON, jsonable
from vmfsm.recording.picture import Picture

from .beside import Beside
from .facts import facts
from .lanes import Lanes
from .logs import Writing
from .sources import Source
from .values import number, text

_MOST_ENVIRONMENT = 200


class Launch(NamedTuple):
    """One that was read. All times are those of its recording's clock."""

    source: Source
    begin: float
    end: float
    lanes: Lanes
    snapshot: dict[str, JSON]
    """What records tell of its end."""
    diagnosis: Diagnosis


def read(source: Source, share: float, beside: Callable[[str], Writing | None], file: str | None) -> Launch:
    """Read all of it, once.

    :param share: of what a page may have, for this one.
    :param beside: makes a file for the whole text of a log, by the log's name.
    :param file: the recording, as the page may refer to it.
    :raises OSError: when it can't be read.
    """
    recording = source.recording
    picture, lanes, diagnostician = Picture(recording.header), Lanes(share, beside, file), Diagnostician()
    begin, end = float("inf"), float("-inf")
    tell_picture, lay, tell_diagnostician = picture.add, lanes.add, diagnostician.add
    for record in recording.records():
        tell_picture(record)
        lay(record)
        tell_diagnostician(record)
        at = record.at
        begin = min(begin, at)
        end = max(end, at)
    if begin > end:
        begin = end = picture.now
    lanes.close(end)
    read_from = {"files": list(recording.files), "problems": list(recording.problems)}
    snapshot = {**picture.snapshot(recording.time(picture.now)), "recording": jsonable(read_from)}
    return Launch(source, begin, end, lanes, snapshot, diagnostician.conclude(snapshot))


def told(
    launch: Launch, key: str, zero: float, beside: Beside, *, by_wall_clock: bool = False
) -> dict[str, JSON]:
    """As the data has it.

    :param zero: what the axis begins with, on the clock of this recording.
    :param by_wall_clock: which is known less well than within one host.
    """
    source, snapshot = launch.source, launch.snapshot
    lanes, logs = launch.lanes.told(zero)
    header = source.recording.header
    problems = [text(problem, 500) for problem in source.recording.problems]
    if launch.lanes.left_out:
        problems.append(f"{launch.lanes.left_out:,} records are of further consoles, which are not shown")
    if by_wall_clock:
        problems.append("it is of another host than the first, or another boot: only wall clocks place it")
    return {
        "key": key,
        "name": text(header["name"], 200),
        "launch": header["launch"] if type(header.get("launch")) is int else None,
        "test": source.test or None,
        "source": text(source.path, 4_000),
        "bundle": text(source.bundle, 4_000) or None,
        "begin": _t(launch.begin, zero),
        "end": _t(launch.end, zero),
        "state": text(snapshot["state"], 40),
        "reason": text(snapshot["reason"], 60) or None,
        "exit": launch.lanes.exit,
        "diagnosis": _diagnosis(launch.diagnosis, zero, logs),
        "facts": facts(source, snapshot),
        "command": text(snapshot["shell"], 16_000) or None,
        "environment": _environment(snapshot["environment"]),
        "plugins": _plugins(snapshot["plugins"]),
        "problems": [*problems],
        "lanes": lanes,
        "logs": logs,
        "files": [
            {"file": beside.relative(file.path), "what": file.what, "bytes": file.bytes}
            for file in source.files
        ],
        "missing": [{"what": what, "why": why} for what, why in source.missing],
        "screendump": source.screendump,
    }


def _t(at: float, zero: float) -> float:
    return round(at - zero, 6)


def _diagnosis(it: Diagnosis, zero: float, logs: list[JSON]) -> JSON:
    clues: list[JSON] = []
    for clue in it.clues:
        at = None if clue.at is None else _t(clue.at, zero)
        line, at = _line(clue.log, at, logs)
        said = text(clue.text, 1_000)
        clues.append({"text": said, "at": at, "lane": clue.lane, "log": clue.log, "line": line})
    return {
        "outcome": it.outcome,
        "kind": it.kind,
        "cause": text(it.cause, 2_000),
        "at": None if it.at is None else _t(it.at, zero),
        "clues": clues,
        "wait": None if it.wait is None else _wait(it.wait, zero),
    }


def _line(name: str | None, at: float | None, logs: list[Any]) -> tuple[int | None, float | None]:
    """Of what is told by a log's text: the last line by then that says something, and when it began."""
    if at is not None and name != "qmp":
        lines: list[Any] = next((log["lines"] for log in logs if log["id"] == name), [])
        for index in range(len(lines) - 1, -1, -1):
            began, said = lines[index]
            if began <= at and said.strip():
                return index, began
    return None, at


def _wait(wait: Mapping[str, JSON], zero: float) -> JSON:
    since, until, timeout = (number(wait.get(name)) for name in ("since", "until", "timeout"))
    words = {name: text(wait.get(name), 500) or None for name in ("operation", "thread", "caller", "outcome")}
    return {
        **words,
        "since": None if since is None else _t(since, zero),
        "until": None if until is None else _t(until, zero),
        "timeout": timeout,
    }


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
