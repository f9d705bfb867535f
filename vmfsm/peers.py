"""Who is at the other end of a Unix socket."""

import errno
import os
import socket
import struct

_CREDENTIALS = struct.Struct("3i")
"""`struct ucred` of Linux: pid, uid, gid."""


def check_peer(connection: socket.socket, *, pid: int | None = None) -> None:
    """Refuse a connection whose other end is another user's.

    It has to be this user's or root's, or of the session of process `pid`: QEMU's, behind a wrapper that
    changes the user, say. As of when it was connected, or listened to (unix(7), `SO_PEERCRED`). Only Unix
    sockets tell, and on Linux only: others are let pass.

    :raises PermissionError: where it is not.
    """
    if connection.family != socket.AF_UNIX or not hasattr(socket, "SO_PEERCRED"):
        return
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    peer, uid, _ = _CREDENTIALS.unpack(told)
    if uid in {os.geteuid(), 0} or (pid is not None and _session(peer) == pid):
        return
    raise PermissionError(errno.EACCES, f"somebody else is at the other end: process {peer} of user {uid}")


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid) if pid > 0 else None
    except OSError:
        return None
