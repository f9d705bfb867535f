"""The sockets of character devices (qemu(1), "-chardev socket")."""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

    from .arguments import Chardev

_LONGEST_NAME = 108
"""Bytes of a name in Linux's `sockaddr_un` (unix(7))."""


def open_socket(chardev: Chardev) -> int:
    """The socket of `chardev`: inherited, one that listens, or one that is connected.

    :raises Refused: as QEMU does.
    """
    listens = chardev.flag("server", False)
    try:
        if chardev.get("path") is not None:
            return _at_path(chardev, listens).detach()
        if chardev.get("port") is not None:
            return _at_port(chardev, listens).detach()
        fd = int(chardev.get("fd") or "")
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise chardev.refused(f"File descriptor '{fd}' is not a socket")
    except ValueError as error:
        raise chardev.refused(f"Unable to parse FD number {chardev.get('fd') or ''}") from error
    except OSError as error:
        raise chardev.refused(f"Failed to {'bind' if listens else 'connect'} socket: {error}") from error
    return fd


def _at_path(chardev: Chardev, listens: bool) -> socket.socket:
    import socket

    address = (chardev.get("path") or "").encode(errors="surrogateescape")
    is_abstract = chardev.flag("abstract", False)
    if is_abstract:
        address = b"\0" + address
        if not chardev.flag("tight", True):
            address = address.ljust(_LONGEST_NAME, b"\0")
    made = socket.socket(socket.AF_UNIX)
    try:
        if not listens:
            made.connect(address)
            return made
        if not is_abstract and os.path.lexists(address):
            os.unlink(address)  # as QEMU does: who did not end well has left it
        made.bind(address)
        made.listen(1)
    except BaseException:
        made.close()
        raise
    return made


def _at_port(chardev: Chardev, listens: bool) -> socket.socket:
    """At the first address that will do."""
    import socket

    v4, v6 = (chardev.flag(name, False) for name in ("ipv4", "ipv6"))
    family = socket.AF_UNSPEC if v4 == v6 else socket.AF_INET if v4 else socket.AF_INET6
    host, port = chardev.get("host") or None, chardev.get("port")
    flags = socket.AI_PASSIVE if listens else 0
    found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=flags)
    found.sort(key=lambda each: each[0] != socket.AF_INET)  # a client of "localhost" tries both
    problem = OSError("no address")
    for kind, _, _, _, address in found:
        made = socket.socket(kind, socket.SOCK_STREAM)
        try:
            if not listens:
                made.connect(address)
                return made
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
            made.listen(1)
        except OSError as error:
            made.close()
            problem = error
        else:
            return made
    raise problem
