"""Descriptors of this process that another one is to have."""

import os
from typing import Protocol

from .errors import ConfigError


class Closable(Protocol):
    """A socket or a file, say."""

    def fileno(self) -> int: ...
    def close(self) -> None: ...


def check_fd(fd: object, *, field: str = "fd") -> int:
    """`fd`, where it is the number of a descriptor that is open in this process.

    :param field: what it was given as, for the error.
    :raises ConfigError: where it is not.
    """
    if isinstance(fd, bool) or not isinstance(fd, int) or fd < 0:
        raise ConfigError(f"not a file descriptor: {fd!r}", field=field)
    try:
        os.fstat(fd)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"file descriptor {fd} is not open", field=field) from error
    return fd
