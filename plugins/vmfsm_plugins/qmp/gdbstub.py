"""QEMU's gdbstub on demand: for gdb, at a machine that was not started for it."""

import errno
import os
from typing import Any

from vmfsm import ConfigError, escape

from .errors import QMPCommandError
from .request import make_request
from .session import Session

_LABEL = "gdb"
"""Of the stub's character device, also where it was made by `-s` or `-gdb`."""
_LONGEST_PATH = 107
"""Bytes of a path in Linux's `sockaddr_un` (unix(7)), without the NUL at its end."""
_EVERYWHERE = {"", "0.0.0.0", "[::]"}


async def gdbstub(session: Session, machine: str, path: str) -> str:
    """What gdb's `target remote` takes: of the stub that there is, or of a new one at `path`.

    See `QMP.gdbstub`.
    """
    there = await _address(session, machine)
    if there is not None:
        return there
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise OSError(errno.ENAMETOOLONG, f"too long for a socket (base_dir): {path}")
    device = f"unix:{escape(path)},server=on,wait=off".replace("\\", "\\\\").replace('"', '\\"')
    arguments = {"command-line": f'gdbserver "{device}"'}
    said = await session.execute(make_request("human-monitor-command", arguments))
    there = await _address(session, machine)
    if there is None:
        error = QMPCommandError(f"{machine}: gdbserver: {' '.join(said.split())}")
        error.error_class, error.description, error.command = "GenericError", said.strip(), "gdbserver"
        raise error
    return there


async def _address(session: Session, machine: str) -> str | None:
    chardevs: list[dict[str, Any]] = await session.execute(make_request("query-chardev"))
    device = next((one["filename"] for one in chardevs if one["label"] == _LABEL), None)
    if device is None:
        return None
    # "disconnected:tcp:0.0.0.0:1234,server=on", or with " <-> " and the other end where gdb is connected.
    kind, _, where = device.removeprefix("disconnected:").partition(":")
    where = where.rpartition(",server=on")[0]
    if kind == "tcp":
        host, _, port = where.rpartition(":")
        return f"{'localhost' if host in _EVERYWHERE else host}:{port}"
    if kind == "unix":
        return str(where)
    raise ConfigError(
        f"{machine}: QEMU has a gdbstub already, which is no socket: {device}",
        field="args",
        machine=machine,
    )
