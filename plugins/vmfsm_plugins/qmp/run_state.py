"""QEMU's run state, as far as its events tell it (QMP reference, `RunState`; QEMU's `softmmu/runstate.c`)."""

import re
from typing import Any

_IS_NAME = re.compile("[a-z0-9-]{1,64}").fullmatch

# Events that say why QEMU is about to stop; the STOP that follows does not.
_STOPS_AS = {
    ("GUEST_PANICKED", "pause"): "guest-panicked",
    ("WATCHDOG", "pause"): "watchdog",
    ("BLOCK_IO_ERROR", "stop"): "io-error",
}
_AFTER = {
    "RESUME": "running",
    "SHUTDOWN": "shutdown",
    "SUSPEND": "suspended",
    "WAKEUP": "running",
}
_MIGRATED = {
    "paused": "postmigrate",
    "finish-migrate": "postmigrate",
    "inmigrate": "paused",
}  # from here, to here with -S


def after_event(event: dict[str, Any], state: str | None, *, asleep: bool = False) -> str | None:
    """The run state after an event, from the one before it.

    :param asleep: the guest had suspended itself, whatever happened since: since QEMU 9.0 it may be stopped
        meanwhile, and sleeps on after `cont`.
    """
    name, data = event["event"], event.get("data", {})
    if name == "RESUME" and asleep:
        return "suspended"
    action = data.get("action")
    if isinstance(action, str) and (name, action) in _STOPS_AS:
        return _STOPS_AS[name, action]
    if name == "STOP":
        return "paused" if state in {"running", "suspended"} else state
    if name == "RESET":
        return state if state in {"running", "inmigrate", "finish-migrate"} else "prelaunch"
    if name == "MIGRATION":  # sent where the migration capability `events` is on
        return _MIGRATED.get(state or "", state) if data.get("status") == "completed" else state
    return _AFTER.get(name, state)


def after_status(status: object, state: str | None) -> str | None:
    """The run state after a reply to `query-status`."""
    said = status.get("status") if isinstance(status, dict) else None
    if isinstance(said, str) and not _IS_NAME(said):
        return state  # no QEMU says that; it is shown in messages
    # It is on its way there, and no event tells when it has arrived.
    arriving = said == "finish-migrate" and state == "postmigrate"
    return said if isinstance(said, str) and not arriving else state
