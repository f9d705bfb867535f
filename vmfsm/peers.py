"""Who is at the other end of a Unix socket."""

import errno
import os
import socket
import struct

from .proc import parent

_CREDENTIALS = struct.Struct("3i")
"""`struct ucred` of Linux: pid, uid, gid."""


def check_peer(connection: socket.socket, *, pid: int | None = None) -> None:
    """Refuse a connection whose other end is another user's.

    It has to be this user's or root's, or of the session of process `pid`, or have been started from there:
    QEMU, behind a wrapper that changes the user (su(1) changes the session, too). As of when it was
    connected, or listened to (unix(7), `SO_PEERCRED`). Only Unix sockets tell, and on Linux only: others are
    let pass.

    :raises PermissionError: where it is not.
    """
    if connection.family != socket.AF_UNIX or not hasattr(socket, "SO_PEERCRED"):
        return
    peer, uid = credentials(connection)
    if uid in {os.geteuid(), 0} or (pid is not None and _comes_from(peer, pid)):
        return
    raise PermissionError(errno.EACCES, f"somebody else is at the other end: process {peer} of user {uid}")


def credentials(connection: socket.socket) -> tuple[int, int]:
    """Pid and user of the other end of a Unix socket. Linux only."""
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(told)
    return pid, uid


def _comes_from(process: int, leader: int) -> bool:
    """It, or a process that it descends from, is in the session of `leader`."""
    try:
        while process > 0:
            if os.getsid(process) == leader:
                return True
            process = parent(process)
    except OSError:
        pass
    return False
