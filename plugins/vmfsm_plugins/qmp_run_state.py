"""QEMU's run state, as far as its events tell it (QMP reference, `RunState`; QEMU's `softmmu/runstate.c`)."""

from typing import Any

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


def after_event(event: dict[str, Any], state: str | None) -> str | None:
    """The run state after an event, from the one before it."""
    name = event["event"]
    action = event.get("data", {}).get("action")
    if (name, action) in _STOPS_AS:
        return _STOPS_AS[name, action]
    if name == "STOP":
        return "paused" if state in {"running", "suspended", None} else state
    if name == "RESET" and state not in {"running", "inmigrate", "finish-migrate", "suspended"}:
        return "prelaunch"
    return _AFTER.get(name, state)
