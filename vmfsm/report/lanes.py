"""The records of one launch, laid on lanes."""

from collections.abc import Callable, Mapping
from typing import Any

from vmfsm.jsonable import JSON
from vmfsm.reports import describe_exit
from vmfsm.timeline import Record

from .comparing import Spent
from .items import Item, Lane
from .logs import Line, Log, Writing, told
from .monitor import Conversation, Monitor
from .values import detail, number, text

_ITEMS = 2_400
"""On a lane."""
_LOGS = 1_200_000
"""Bytes of JSON: for the first log but the monitor's, half of it for the second, a third for the next."""
_MOST_CONSOLES = 20
_MOST_MARKS = 20
_MOST_SPENT = 5_000
LOOK_ON = frozenset({"bundle", "recorder"})
"""Plugins whose time is no machine's."""
_STATES = {
    "launching": "busy",
    "running": "good",
    "quitting": "warn",
    "stopped": "neutral",
    "failed": "bad",
}
_WAYS = {"qmp": "vmfsm asks QEMU to quit", "SIGTERM": "vmfsm sends SIGTERM", "SIGKILL": "vmfsm sends SIGKILL"}
_ORDER = (
    "state",
    "steps",
    "hooks",
    "companions",
    "waits",
    "holds",
    "process",
    "verdicts",
    "notes",
    "qmp",
    "events",
    "migration",
)
"""Above consoles, QEMU's output, and what is of plugins."""


class Lanes:
    """Those of one machine, filled record by record, in bounded memory.

    Records may be anybody's: whatever is in one that is not as documented is left out, or shown as it is.

    :param share: of what a browser opens at once, for this machine.
    :param beside: makes a file for the whole text of a log, by the log's name.
    :param file: the recording, as the page may refer to it.
    """

    def __init__(self, share: float, beside: Callable[[str], Writing | None], file: str | None) -> None:
        self._most = max(int(_ITEMS * share), 40)
        self._bytes = max(int(_LOGS * share), 20_000)
        self._beside = beside
        self._lanes: dict[str, Lane] = {}
        conversation = Conversation(share, file)
        self._logs: dict[str, Log | Conversation] = {"qmp": conversation}
        self._monitor = monitor = Monitor(
            self._lane("qmp", "Monitor (QMP)"), self._lane("events", "Events", "points"), conversation
        )
        self._consoles: dict[str, Log] = {}
        self.spent: list[Spent] = []
        """The first so many steps, hooks, waits and states that are over, or were at the end."""
        self._marks = 0
        self._state: Item | None = None
        self._migration: Item | None = None
        self.exit: str | None = None
        """How QEMU ended, and whose signal it was."""
        self._exited: float | None = None
        self._has_failed = False
        self.left_out = 0
        """Records of consoles for which there was no lane any more."""
        self._handlers: dict[str, Callable[[float, Mapping[str, Any]], None]] = {
            "transition": self._on_transition,
            "hook-begin": self._on_hook_begin,
            "hook": self._on_hook,
            "wait-begin": self._on_wait_begin,
            "wait": self._on_wait,
            "step-begin": self._on_step_begin,
            "step": self._on_step,
            "note": self._on_note,
            "hold": self._on_hold,
            "release": self._on_release,
            "companion": self._on_companion,
            "companion-ready": self._on_companion_ready,
            "companion-exit": self._on_companion_exit,
            "spawn": self._on_process("QEMU is started", "busy"),
            "adopt": self._on_process("QEMU is taken over", "busy"),
            "started": self._on_process("QEMU runs", "good"),
            "stop": self._on_stop,
            "exit": self._on_exit,
            "verdict": self._on_verdict,
            "failure": self._on_failure,
            "qmp-greeting": self._on_process("the monitor is connected", "good"),
            "qmp-command": monitor.command,
            "qmp-reply": monitor.reply,
            "qmp-event": monitor.event,
            "console": self._on_console,
            "output": self._on_output,
            "migration": self._on_migration,
        }

    def add(self, record: Record) -> None:
        """The next one."""
        kind, at, data = record
        handler = self._handlers.get(kind)
        if handler is not None:
            handler(at, data)
        else:
            self._on_other(kind, at, data)

    def close(self, end: float) -> None:
        """Nothing is added any more."""
        if self._state is not None:
            is_over = self._state.label in {"stopped", "failed"}
            if not is_over:
                self._over("state", self._state, end)
            self._lane("state", "State").add(self._state._replace(end=end if is_over else None), matters=True)
        if self._migration is not None:
            self._lane("migration", "Migration").add(self._migration._replace(end=end), matters=True)
        self._monitor.close(self._exited)
        if self._has_failed and "steps" in self._lanes:
            steps = self._lanes["steps"]
            for item in steps.take_open():
                self._over("step", item, end)
                steps.add(item._replace(tone="bad"), matters=True)
        for kind, key in (("step", "steps"), ("hook", "hooks"), ("wait", "waits")):
            for item in self._lanes[key].open if key in self._lanes else ():
                self._over(kind, item, end)
        for lane in self._lanes.values():
            lane.close()
        for log in self._logs.values():
            log.close()

    def told(self, begin: float) -> tuple[list[JSON], list[JSON]]:
        """Lanes and logs as the data has them, after `close`; in seconds since `begin`."""
        logs: list[JSON] = []
        of_text: list[JSON] = []
        places: dict[str, dict[int, int]] = {}
        for key, log in self._logs.items():
            if not log.total:
                continue
            kept = log.kept()
            places[key] = {line.number: place for place, line in enumerate(kept)}
            title = _title(key, is_only=len(self._consoles) == 1)
            logs.append({"id": key, "title": title, **told(kept, log.total, begin), "file": log.file})
            if isinstance(log, Log):
                of_text.append(_text_lane(key, title, log, begin, kept, self._most))
        lanes = [
            lane.told(begin, places.get("qmp", {}).get)
            for lane in sorted(self._lanes.values(), key=_place)
            if lane.total
        ]
        return [*lanes, *of_text], logs

    # -- lanes and logs -------------------------------------------------------------------------------------

    def _lane(self, key: str, title: str, shape: str = "spans") -> Lane:
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(key, title, shape, self._most)
        return lane

    def _over(self, kind: str, item: Item, end: float) -> None:
        if len(self.spent) < _MOST_SPENT:
            self.spent.append(Spent(kind, item.label, item.at, max(end - item.at, 0.0)))

    def _log(self, key: str) -> Log:
        log = self._logs.get(key)
        if not isinstance(log, Log):
            budget = max(self._bytes // len(self._logs), 20_000)
            log = self._logs[key] = Log(budget, lambda: self._beside(key))
        return log

    def _mark(self) -> None:
        """Something went wrong: whatever is near is to be kept."""
        self._marks += 1
        if self._marks <= _MOST_MARKS:
            for lane in self._lanes.values():
                lane.mark()
            for log in self._logs.values():
                log.mark()

    # -- the machine ----------------------------------------------------------------------------------------

    def _on_transition(self, at: float, data: Mapping[str, Any]) -> None:
        dest = text(data.get("dest"), 40)
        if self._state is not None:
            self._lane("state", "State").add(self._state._replace(end=at), matters=True)
            self._over("state", self._state, at)
        told = detail(data, "dest")
        self._state = Item(at, dest, _STATES.get(dest, "neutral"), told)
        if dest in {"quitting", "failed"}:
            self._mark()

    def _on_hook_begin(self, at: float, data: Mapping[str, Any]) -> None:
        self._lane("hooks", "Hooks").begin(_key(data, "hook", "plugin"), Item(at, _hook(data), "busy"))

    def _on_hook(self, at: float, data: Mapping[str, Any]) -> None:
        lane = self._lane("hooks", "Hooks")
        item = lane.end(_key(data, "hook", "plugin")) or Item(_began(at, data), _hook(data))
        error = data.get("error")
        told = detail(data, "hook", "plugin")
        if str(data.get("plugin")) in LOOK_ON:
            told["by"] = text(data["plugin"])
        else:
            self._over("hook", item, at)
        lane.add(item._replace(end=at, tone="bad" if error else "neutral", detail=told), matters=bool(error))

    def _on_wait_begin(self, at: float, data: Mapping[str, Any]) -> None:
        item = Item(at, _operation(data), "neutral" if data.get("by") else "busy", detail(data, "operation"))
        self._lane("waits", "Waits").begin(_key(data, "operation", "thread", "caller"), item)

    def _on_wait(self, at: float, data: Mapping[str, Any]) -> None:
        lane = self._lane("waits", "Waits")
        item = lane.end(_key(data, "operation", "thread", "caller"))
        if item is None:
            item = Item(_began(at, data), _operation(data))
        if not data.get("by"):
            self._over("wait", item, at)
        is_bad = data.get("outcome") != "done" and not data.get("by")
        told = {**(item.detail or {}), **detail(data, "operation")}
        lane.add(item._replace(end=at, tone="bad" if is_bad else "neutral", detail=told), matters=is_bad)
        if is_bad:
            self._mark()

    def _on_step_begin(self, at: float, data: Mapping[str, Any]) -> None:
        item = Item(at, text(data.get("step"), 120), "busy", detail(data, "step"))
        self._lane("steps", "Steps of the test").begin(_key(data, "step", "thread"), item)

    def _on_step(self, at: float, data: Mapping[str, Any]) -> None:
        lane = self._lane("steps", "Steps of the test")
        item = lane.end(_key(data, "step", "thread"))
        if item is None:
            item = Item(_began(at, data), text(data.get("step"), 120))
        self._over("step", item, at)
        is_bad = bool(data.get("error"))
        told = {**(item.detail or {}), **detail(data, "step")}
        lane.add(item._replace(end=at, tone="bad" if is_bad else "good", detail=told), matters=is_bad)

    def _on_note(self, at: float, data: Mapping[str, Any]) -> None:
        item = Item(at, text(data.get("text"), 200), "neutral", detail(data, "text"), is_point=True)
        self._lane("notes", "Notes", "points").add(item)

    def _on_hold(self, at: float, data: Mapping[str, Any]) -> None:
        label = text(data.get("reason") or f"by {text(data.get('by'), 60)}", 120)
        item = Item(at, label, "held", detail(data))
        self._lane("holds", "Held").begin(_key(data, "by"), item)

    def _on_release(self, at: float, data: Mapping[str, Any]) -> None:
        lane = self._lane("holds", "Held")
        item = lane.end(_key(data, "by")) or Item(_began(at, data), "held", "held")
        lane.add(item._replace(end=at))

    # -- processes ------------------------------------------------------------------------------------------

    def _on_process(self, label: str, tone: str) -> Callable[[float, Mapping[str, Any]], None]:
        def add(at: float, data: Mapping[str, Any]) -> None:
            told = detail(data, "environment")
            self._lane("process", "Process", "points").add(Item(at, label, tone, told, is_point=True))

        return add

    def _on_stop(self, at: float, data: Mapping[str, Any]) -> None:
        way = text(data.get("way"), 60)
        label = _WAYS.get(way, f"vmfsm asks for the end by {way}")
        item = Item(at, label, "bad" if way == "SIGKILL" else "warn", detail(data), is_point=True)
        self._lane("process", "Process", "points").add(item, matters=True)

    def _on_exit(self, at: float, data: Mapping[str, Any]) -> None:
        status = data.get("status")
        tone = "neutral" if status == 0 and status is not False else "bad"
        self._exited = at
        is_status = isinstance(status, int) and not isinstance(status, bool)
        self.exit = f"QEMU {describe_exit(status, data.get('sent'))}" if is_status else None
        item = Item(at, self.exit or "QEMU has ended", tone, detail(data), is_point=True)
        self._lane("process", "Process", "points").add(item, matters=True)
        if tone == "bad":
            self._mark()

    def _on_companion(self, at: float, data: Mapping[str, Any]) -> None:
        item = Item(at, text(data.get("companion"), 80), "busy", detail(data, "companion"))
        self._lane("companions", "Companions").begin(_key(data, "companion"), item)

    def _on_companion_ready(self, at: float, data: Mapping[str, Any]) -> None:
        label = f"{text(data.get('companion'), 80)} is ready"
        item = Item(at, label, "good", detail(data, "companion"), is_point=True)
        self._lane("companions", "Companions").add(item)

    def _on_companion_exit(self, at: float, data: Mapping[str, Any]) -> None:
        lane = self._lane("companions", "Companions")
        item = lane.end(_key(data, "companion")) or Item(at, text(data.get("companion"), 80))
        told = {**(item.detail or {}), **detail(data, "companion")}
        lane.add(item._replace(end=at, tone="neutral", detail=told))

    # -- what went wrong ------------------------------------------------------------------------------------

    def _on_verdict(self, at: float, data: Mapping[str, Any]) -> None:
        item = Item(at, text(data.get("verdict"), 80), "bad", detail(data), is_point=True)
        self._lane("verdicts", "Verdicts", "points").add(item, matters=True)
        self._mark()

    def _on_failure(self, at: float, data: Mapping[str, Any]) -> None:
        self._has_failed = True
        item = Item(at, text(data.get("error"), 200), "bad", detail(data), is_point=True)
        self._lane("verdicts", "Verdicts", "points").add(item, matters=True)
        self._mark()

    # -- what is said ---------------------------------------------------------------------------------------

    def _on_console(self, at: float, data: Mapping[str, Any]) -> None:
        given = data.get("console")
        name = given if isinstance(given, str) else text(given)
        log = self._consoles.get(name)
        if log is None:
            if len(self._consoles) == _MOST_CONSOLES:
                self.left_out += 1
                return
            log = self._consoles[name] = self._log(f"console:{text(name, 60)}")
        said = data.get("text")
        if isinstance(said, str):
            log.feed(at, said)

    def _on_output(self, at: float, data: Mapping[str, Any]) -> None:
        said = data.get("text")
        if isinstance(said, str):
            self._log("output").feed(at, said)

    def _on_migration(self, at: float, data: Mapping[str, Any]) -> None:
        status = text(data.get("status"), 60)
        item = self._migration
        if item is not None and item.label == status:
            return
        if item is not None:
            self._lane("migration", "Migration").add(item._replace(end=at))
        tone = {"completed": "good", "failed": "bad", "cancelled": "warn"}.get(status, "busy")
        self._migration = Item(at, status, tone, detail(data, "status"))

    def _on_other(self, kind: str, at: float, data: Mapping[str, Any]) -> None:
        is_loss = kind in {"dropped", "console-lost", "console-file", "log-file"}
        label = text(kind, 60)
        item = Item(at, label, "warn" if is_loss else "neutral", detail(data), is_point=True)
        self._lane("other", "Other records", "points").add(item, matters=is_loss)


def _text_lane(key: str, title: str, log: Log, begin: float, kept: list[Line], most: int) -> JSON:
    """Where something was said: its density, and some of the lines."""
    some = list(enumerate(kept))[:: len(kept) // (most // 4) + 1]
    items: list[JSON] = [
        {
            "t": round(line.at - begin, 6),
            "label": text(line.text.strip(), 100),
            "tone": "neutral",
            "row": 0,
            "detail": {},
            "line": place,
        }
        for place, line in sorted(some, key=lambda one: one[1].at)
    ]
    return {
        "id": key,
        "title": title,
        "shape": "density",
        "items": items,
        "total": log.total,
        "left_out": log.total - len(items),
        "density": log.density.told(begin),
    }


def _title(key: str, *, is_only: bool) -> str:
    """Of a log. A machine's only console is simply that, unless it has a name of its own."""
    if key.startswith("console:"):
        name = key.removeprefix("console:")
        return "Console" if is_only and name == "console" else f"Console {name}"
    return "Monitor (QMP)" if key == "qmp" else "QEMU's output"


def _place(lane: Lane) -> int:
    return _ORDER.index(lane.key) if lane.key in _ORDER else len(_ORDER)


def _key(data: Mapping[str, Any], *names: str) -> object:
    return tuple(_plain(data.get(name)) for name in names)


def _plain(value: object) -> object:
    """Something that a `dict` takes as a key, and that is short."""
    return value if value is None or (type(value) is str and len(value) < 200) else text(value)


def _operation(data: Mapping[str, Any]) -> str:
    """What is waited for, and by whom if not by the test."""
    operation = text(data.get("operation"), 120)
    return f"{operation} (by {text(data['by'], 40)})" if data.get("by") else operation


def _hook(data: Mapping[str, Any]) -> str:
    return f"{text(data.get('hook'), 60)} ({text(data.get('plugin'), 60)})"


def _began(at: float, data: Mapping[str, Any]) -> float:
    """Of what is over, and of whose begin there is no record."""
    return at - max(number(data.get("seconds")) or 0.0, 0.0)
