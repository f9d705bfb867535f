"""What records tell of a machine: the same picture that a living one gives of itself."""

import collections
import datetime
import os
from collections.abc import Mapping
from typing import Any

from vmfsm.jsonable import JSON, jsonable
from vmfsm.snapshot import VERSION, shell_line
from vmfsm.timeline import Record

_MOST_TRANSITIONS = 100
_MOST_HOOKS = 200
_MOST_RECORDS = 50
_MOST_RECORDS_ARE = frozenset({"qmp-command", "qmp-reply"})
"""Of these kinds, of which nothing else is told: no time is lost on them."""
_MOST_VERDICTS = 20
_MOST_WAITS = 100
_MOST_CONSOLES = 50
_MOST_EVENTS = 20
_MOST_LINES = 20
_MOST_TEXT = 16 * 1024


class Picture:
    """Made of the records of one launch, one after the other, in bounded memory.

    Records may be anybody's: whatever is in one that is not as documented is not shown.
    """

    def __init__(self, header: Mapping[str, Any]) -> None:
        self._header = header
        self.now: float = header["clocks"]["monotonic"]
        """When the last record was made."""
        self._history: collections.deque[Record] = collections.deque(maxlen=_MOST_TRANSITIONS)
        self._hooks: collections.deque[JSON] = collections.deque(maxlen=_MOST_HOOKS)
        self._running: dict[object, Record] = {}
        self._waits: dict[object, Record] = {}
        self._holds: list[Record] = []
        self._timeline: collections.deque[Record] = collections.deque(maxlen=_MOST_RECORDS)
        self._verdicts: collections.deque[Record] = collections.deque(maxlen=_MOST_VERDICTS)
        self._events: collections.deque[JSON] = collections.deque(maxlen=_MOST_EVENTS)
        self._consoles: dict[str, str] = {}
        self._output = ""
        self._command: JSON = jsonable(header.get("command") or [])
        self._cwd = self._directory(None)
        self._environment: dict[str, str | None] = {}
        self._pid: JSON = None
        self._paths: dict[str, JSON] = dict.fromkeys(("directory", "log_dir", "base_dir"))
        self._version: JSON = None
        self._exit_status: JSON = None
        self._failure: JSON = None

    def add(self, record: Record) -> None:
        """The next one."""
        kind, at, data = record
        self.now = max(at, self.now) if self._timeline else at
        self._timeline.append(record)
        if kind in _MOST_RECORDS_ARE:
            return
        match kind:
            case "transition":
                self._history.append(record)
                if data.get("dest") in ("stopped", "failed"):
                    self._paths["directory"] = None  # it was removed
                if data.get("event") == "launch":
                    self._failure = None
            case "hook-begin":
                _remember(self._running, _key(data, "hook", "plugin"), record)
            case "hook":
                self._running.pop(_key(data, "hook", "plugin"), None)
                self._hooks.append(_chosen(data, "hook", "plugin", "seconds", "error"))
            case "wait-begin":
                _remember(self._waits, _key(data, "operation", "thread", "caller"), record)
            case "wait":
                self._waits.pop(_key(data, "operation", "thread", "caller"), None)
            case "hold":
                self._holds = [*self._holds[-_MOST_WAITS + 1 :], record]
            case "release":
                self._release(data.get("by"), at, data.get("seconds"))
            case "spawn" | "adopt":
                self._command = jsonable(data.get("command"))
                self._pid = jsonable(data.get("pid"))
                self._cwd = self._directory(data.get("cwd"))
                self._environment = _texts(data.get("environment"))
            case "started":
                self._pid = jsonable(data.get("pid"))
                paths = data.get("paths")
                self._paths = _chosen(paths if isinstance(paths, dict) else {}, *self._paths)
            case "qmp-greeting":
                self._version = jsonable(data.get("version"))
            case "exit":
                self._pid = None
                self._exit_status = jsonable(data.get("status"))
            case "verdict":
                self._verdicts.append(record)
            case "failure":
                self._failure = self._failure or jsonable(data.get("error"))
            case "qmp-event":
                self._events.append(jsonable(data))
            case "console":
                self._hear(str(data.get("console")), str(data.get("text", "")))
            case "output":
                self._output = (self._output + str(data.get("text", "")))[-_MOST_TEXT:]

    def snapshot(self, taken: datetime.datetime) -> dict[str, JSON]:
        """As `Machine.snapshot` has it."""
        header = self._header
        command = self._command if isinstance(self._command, list) else []
        last = self._history[-1] if self._history else None
        running = next(reversed(self._running.values()), None)
        return {
            "version": VERSION,
            "taken": taken.isoformat(),
            "name": header["name"],
            "state": jsonable(last.data.get("dest")) if last else "configured",
            "reason": jsonable(last.data.get("reason")) if last else None,
            "since": self.now - last.at if last else 0.0,
            "held": "; ".join(_why(record.data) for record in self._holds) or None,
            "failure": self._failure,
            "launches": jsonable(header.get("launch")),
            "history": self._told_history(),
            "hooks": list(self._hooks),
            "running_hook": f"{running.data.get('hook')} of plugin {running.data.get('plugin')!r}"
            if running
            else None,
            "command": command,
            "shell": shell_line([str(word) for word in command], self._cwd, self._environment),
            "environment": dict(self._environment),
            "cwd": self._cwd,
            "pid": self._pid,
            "exit_status": self._exit_status,
            "harness": jsonable(header.get("harness")),
            "waits": [self._told_wait(record) for record in self._waits.values()],
            "timeline": [self._told(record) for record in self._timeline],
            "verdicts": [self._told(record) for record in self._verdicts],
            "paths": dict(self._paths),
            "plugins": jsonable(header.get("plugins") or []),
            "details": self._details(),
        }

    def _release(self, by: object, at: float, seconds: object) -> None:
        """One thread may hold a machine more than once."""
        its = [record for record in self._holds if record.data.get("by") == by]
        if its:
            began = at - seconds if isinstance(seconds, int | float) else at
            self._holds.remove(min(its, key=lambda record: abs(record.at - began)))

    def _directory(self, given: object) -> str | None:
        harness = self._header.get("harness")
        own = harness.get("cwd") if isinstance(harness, dict) else None
        if not isinstance(own, str):
            return given if isinstance(given, str) else None
        return os.path.join(own, given) if isinstance(given, str) else own

    def _hear(self, console: str, text: str) -> None:
        if console in self._consoles or len(self._consoles) < _MOST_CONSOLES:
            self._consoles[console] = (self._consoles.get(console, "") + text)[-_MOST_TEXT:]

    def _told(self, record: Record) -> dict[str, JSON]:
        return {"kind": record.kind, "at": self.now - record.at, "data": jsonable(record.data)}

    def _told_history(self) -> list[JSON]:
        ends = [*(record.at for record in self._history), self.now][1:]
        return [
            {
                **_chosen(record.data, "event", "source", "dest", "reason"),
                "at": self.now - record.at,
                "seconds": end - record.at,
            }
            for record, end in zip(self._history, ends, strict=True)
        ]

    def _told_wait(self, record: Record) -> JSON:
        seconds, timeout = self.now - record.at, record.data.get("timeout")
        remaining = timeout - seconds if isinstance(timeout, int | float) else None
        told = _chosen(record.data, "operation", "timeout", "thread", "caller")
        return {**told, "seconds": seconds, "remaining": remaining}

    def _details(self) -> dict[str, JSON]:
        details: dict[str, JSON] = {}
        if self._events or self._version is not None:
            details["qmp"] = {"version": self._version, "events": list(self._events)}
        if self._consoles:
            details["console"] = {name: {"lines": _lines(text)} for name, text in self._consoles.items()}
        if self._output:
            details["logs"] = {"lines": _lines(self._output)}
        return details


def _why(hold: Mapping[str, object]) -> str:
    return str(hold.get("reason") or f"by {hold.get('by')}")


def _remember(records: dict[object, Record], key: object, record: Record) -> None:
    if key in records or len(records) < _MOST_WAITS:
        records[key] = record


def _key(data: Mapping[str, object], *names: str) -> tuple[str, ...]:
    return tuple(str(data.get(name)) for name in names)


def _chosen(data: Mapping[str, object], *names: str) -> dict[str, JSON]:
    return {name: jsonable(data.get(name)) for name in names}


def _texts(value: object) -> dict[str, str | None]:
    items = value.items() if isinstance(value, dict) else ()
    return {name: text for name, text in items if text is None or isinstance(text, str)}


def _lines(text: str) -> list[JSON]:
    return list(text.splitlines()[-_MOST_LINES:])
