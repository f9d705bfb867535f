"""The options of the monitor, checked."""

import math
import os

from vmfsm import ConfigError, Deadline, check_path

from .boot_loop import Limit
from .transport import Address


def check_address(address: object) -> Address:
    """:raises ConfigError: for what is no address."""
    field = "options['qmp']['address']"
    match address:
        case None:
            return None
        case str() | os.PathLike():
            return check_path(address, field=field)
        case (str() as host, int() as port) if not isinstance(port, bool) and 0 <= port <= 65535:
            if _may_be_host(host):
                return host, port
    raise ConfigError(f"address must be a path, (host, port) or None, not {address!r}", field=field)


def _may_be_host(host: str) -> bool:
    try:
        host.encode("idna")  # as `socket.getaddrinfo` does
    except UnicodeError:
        return False
    return "\0" not in host


def check_timeout(timeout: float | None) -> float | None:
    """:raises ConfigError: for what is no number of seconds."""
    try:
        Deadline(timeout)
    except ConfigError as error:
        raise ConfigError(f"negotiate_{error}", field="options['qmp']['negotiate_timeout']") from None
    return timeout


def check_boot_loop(limit: object) -> Limit | None:
    """:raises ConfigError: for what is no number of resets and seconds."""
    match limit:
        case None:
            return None
        case (int() as most, int() | float() as seconds) if not isinstance(most, bool):
            if most >= 0 and not isinstance(seconds, bool) and 0 < seconds < math.inf:
                return most, float(seconds)
    raise ConfigError(
        f"boot_loop must be (a number of resets, seconds) or None, not {limit!r}",
        field="options['qmp']['boot_loop']",
    )
