"""The result of a run, for programs."""

import json
from typing import Any

from vmfsm import ConfigError, Machine, jsonable

from .outcome import Outcome
from .session import Session

VERSION = 1


def document(session: Session, outcome: Outcome, status: int) -> dict[str, Any]:
    """What `--result` writes; docs/run.md tells of its fields."""
    machine = session.machine
    return {
        "version": VERSION,
        "outcome": outcome.word,
        "status": status,
        "message": outcome.message,
        "seconds": round(session.seconds, 3),
        "machine": machine.name,
        "state": machine.state.value,
        "reason": machine.reason.value if machine.reason else None,
        "exit_status": machine.exit_status,
        "command": jsonable(machine.secrets.redact_all({"command": machine.command})["command"]),
        "steps": [
            {
                "step": str(done.step),
                "kind": done.step.kind,
                "met": done.met,
                "seconds": round(done.seconds, 3),
            }
            for done in session.done
        ],
        "verdicts": _verdicts(machine),
        "recording": session.recording,
    }


def _verdicts(machine: Machine) -> list[Any]:
    try:
        seen = machine.verdicts.seen
    except ConfigError:
        return []
    return [{"kind": one.kind, "where": one.where, "what": jsonable(one.what)} for one in seen]


def dump(result: dict[str, Any], *, indent: int | None = None) -> str:
    """As JSON, ASCII only, so that nothing in it moves anybody's cursor."""
    return json.dumps(result, indent=indent)
