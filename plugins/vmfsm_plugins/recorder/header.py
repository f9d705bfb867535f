"""What the first line of a recording says: of which launch it is, and where that took place."""

import functools
import os
import platform
import sys
import time
from collections.abc import Sequence

from vmfsm import Machine, Secrets

FORMAT, VERSION = "vmfsm-recording", 1


def header_of(machine: Machine, launch: int) -> dict[str, object]:
    """For one launch of `machine`; what only the file itself knows is added by that."""
    told = {
        "name": machine.name,
        "launch": launch,
        "command": _without_secrets(machine.command),  # which the machine learns as late as it is started
        "harness": {
            "pid": os.getpid(),
            "command": _own_command(),
            "cwd": _cwd(),
            "test": os.environ.get("PYTEST_CURRENT_TEST"),
        },
        **_surroundings(),
        "plugins": [plugin._asdict() for plugin in machine.plugins],
    }
    return {"format": FORMAT, "version": VERSION, **machine.secrets.redact_all(told)}


def clocks() -> dict[str, object]:
    """Both at once: `at` of a record is on the first, the second is in seconds since 1970, UTC."""
    return {"monotonic": time.monotonic(), "wall": time.time()}


def _cwd() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return None


@functools.cache
def _own_command() -> tuple[str, ...]:
    return _without_secrets(sys.orig_argv)


def _without_secrets(command: Sequence[str]) -> tuple[str, ...]:
    secrets = Secrets()
    secrets.learn_command(command)
    return tuple(map(secrets.redact, command))


@functools.cache
def _surroundings() -> dict[str, object]:
    system = os.uname()
    return {
        "host": {
            "name": system.nodename,
            "system": system.sysname,
            "kernel": system.release,
            "architecture": system.machine,
            "cpus": os.cpu_count(),
        },
        "python": platform.python_version(),
        "vmfsm": _vmfsm_version(),
    }


def _vmfsm_version() -> str | None:
    from importlib import metadata

    try:
        return metadata.version("vmfsm")
    except metadata.PackageNotFoundError:  # used from its sources
        return None
