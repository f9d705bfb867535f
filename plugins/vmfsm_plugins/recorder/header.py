"""What the first line of a recording says: of which launch it is, and where that took place."""

import functools
import os
import platform
import sys
import time

from vmfsm import Machine, Secrets

FORMAT, VERSION = "vmfsm-recording", 1


def header_of(machine: Machine, launch: int) -> dict[str, object]:
    """For one launch of `machine`; what only the file itself knows is added by that."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "name": machine.name,
        "launch": launch,
        "command": machine.secrets.redact_all(machine.command),
        "harness": {
            "pid": os.getpid(),
            "command": machine.secrets.redact_all(_own_command()),
            "cwd": _cwd(),
            "test": os.environ.get("PYTEST_CURRENT_TEST"),
        },
        **_surroundings(),
        "plugins": [machine.secrets.redact_all(plugin._asdict()) for plugin in machine.plugins],
    }


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
    secrets = Secrets()
    secrets.learn_command(sys.orig_argv)
    return tuple(map(secrets.redact, sys.orig_argv))


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
