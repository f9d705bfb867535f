"""`Machine.snapshot`: all that is known of a machine at one moment. Nobody is asked, nothing waited for."""

import datetime
import os
import re
import shlex
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from .errors import describe
from .iothread import IOThread
from .jsonable import JSON, jsonable
from .lifecycle import INITIAL, Event, Transition
from .paths import in_full
from .process import differences
from .process import environment as compose
from .redaction import redact_command, redact_environment
from .timeline import Record

if TYPE_CHECKING:
    from .launch import Launch
    from .machine import Machine

VERSION = 1
"""Of the fields (`docs/snapshot.md`): another one when a field changes its meaning or goes."""
_OUR_SOCKET = re.compile(r"^socket,id=([^,]+),fd=\d+(?:,.*)?$", re.DOTALL)
_MOST_TRANSITIONS = 100
_MOST_RECORDS = 50


def take(machine: "Machine") -> dict[str, JSON]:
    """The picture, without the machine's secrets: see `Machine.snapshot`."""
    # What has times in it first, so that nothing has happened after now.
    history, records = machine.history, machine.timeline
    verdicts, waits = machine._verdicts, machine._waits.in_progress()
    now = time.monotonic()
    config, launch = machine._config, machine._launch
    changed = None if launch is None else launch.environment
    environment = redact_environment(differences(compose(config.env)) if changed is None else changed)
    command = redact_command(machine.command)
    cwd = (launch and launch.cwd) or in_full(config.cwd)
    picture = {
        "version": VERSION,
        "taken": datetime.datetime.now().astimezone().isoformat(),
        "name": machine.name,
        **_life(history, machine._lifecycle.created, now),
        "held": machine.held,
        "failure": machine.failure,
        "launches": sum(transition.event is Event.LAUNCH for transition in history),
        "hooks": [] if launch is None else list(launch.hooks_ended),
        "running_hook": None if launch is None else launch.running_hook,
        "command": command,
        "shell": shell_line(command, cwd, environment),
        "environment": environment,
        "cwd": cwd,
        "pid": machine.pid,
        "exit_status": machine.exit_status,
        "harness": _harness(machine),
        "waits": [wait.shown(now) for wait in waits],
        "timeline": [_record(record, now) for record in records[-_MOST_RECORDS:]],
        "verdicts": [_record(record, now) for record in verdicts],
        "paths": {
            "directory": _private_directory(launch),
            "log_dir": config.log_dir,
            "base_dir": config.base_dir,
        },
        "plugins": [info._asdict() for info in machine.plugins],
        "details": _details(machine),
    }
    return cast("dict[str, JSON]", machine.secrets.redact_all(jsonable(picture)))


def shell_line(command: Sequence[str], cwd: str | None, environment: Mapping[str, str | None]) -> str:
    """A line for a shell that starts the same program in the same place.

    Where QEMU has a socket of ours as a character device, which a shell has not, it has none (`null`) there.
    """
    taken_away = [word for name, value in environment.items() if value is None for word in ("-u", name)]
    given = [f"{name}={value}" for name, value in environment.items() if value is not None]
    env = ["env", *taken_away, *given] if environment else []
    line = shlex.join([*env, *(_OUR_SOCKET.sub(r"null,id=\1", word) for word in command)])
    return line if cwd is None else f"cd {shlex.quote(cwd)} && {line}"


def _life(history: tuple[Transition, ...], created: float, now: float) -> dict[str, object]:
    """Of one history, so that state, reason and history agree with each other."""
    last = history[-1] if history else None
    ends = [transition.at for transition in history[1:]] + [now]
    rows = [
        {
            "event": transition.event,
            "source": transition.source,
            "dest": transition.dest,
            "reason": transition.reason,
            "at": now - transition.at,
            "seconds": end - transition.at,
        }
        for transition, end in zip(history, ends, strict=bool(history))
    ]
    return {
        "state": last.dest if last else INITIAL,
        "reason": last.reason if last else None,
        "since": now - (last.at if last else created),
        "history": rows[-_MOST_TRANSITIONS:],
    }


def _record(record: Record, now: float) -> dict[str, object]:
    return {"kind": record.kind, "at": now - record.at, "data": record.data}


def _harness(machine: "Machine") -> dict[str, object]:
    return {
        "pid": machine._pid_of_owner,
        "command": redact_command(sys.orig_argv),
        "cwd": in_full(None),
        "test": os.environ.get("PYTEST_CURRENT_TEST"),
    }


def _private_directory(launch: "Launch | None") -> str | None:
    """While it is there."""
    if launch is None or launch.plan is None or launch.final is not None:
        return None
    return launch.plan.directory


def _details(machine: "Machine") -> dict[str, object]:
    return {
        implementation.plugin: part
        for implementation in machine._plugins.implementations("snapshot")
        if (part := _part(machine, implementation.function, implementation.arguments)) is not None
    }


def _part(machine: "Machine", function: object, arguments: tuple[str, ...]) -> JSON:
    """What a plugin has to show; what is wrong with it costs nothing but that."""
    try:
        part = function(*(machine for _ in arguments))  # type: ignore[operator]
        if part is not None and not isinstance(part, Mapping):
            raise TypeError(f"a snapshot's part is a mapping or None, not {type(part).__name__}")
        return None if part is None else jsonable(dict(part))
    except BaseException as error:
        is_interrupt = not isinstance(error, Exception) and not IOThread.is_current()
        if is_interrupt and threading.current_thread() is threading.main_thread():
            raise  # it is the caller's
        return {"error": describe(error)}
