"""What users give as paths, checked for the shape; and names that fit where paths do not."""

import contextlib
import errno
import os
from collections.abc import Iterator

from .errors import ConfigError


def check_path(path: object, *, field: str = "path") -> str:
    """`path` as a `str`, where it has the shape of a path: a `str` or `os.PathLike`, not empty, without NUL.

    :param field: what it was given as, for the error.
    :raises ConfigError: where it has not.
    """
    name = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(name, str) or not name or "\0" in name:
        raise ConfigError(f"{field}: not a path (a str or os.PathLike, without NUL): {path!r}", field=field)
    return name


def in_full(directory: str | None) -> str | None:
    """A directory as an absolute path, this process's without one; `None` where that is gone."""
    try:
        return os.path.abspath(directory or ".")
    except OSError:
        return directory


LONGEST_ADDRESS = 107
"""Bytes of a socket's, unix(7)."""


@contextlib.contextmanager
def socket_name(path: str) -> Iterator[str]:
    """A name for `path` that fits into a socket's address, as long as the block lasts. Linux only.

    :raises OSError: where the directory is not there, or even the file's own name is too long.
    """
    if len(os.fsencode(path)) <= LONGEST_ADDRESS:
        yield path
        return
    directory, name = os.path.split(path)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        short = f"/proc/self/fd/{fd}/{name}"
        if len(os.fsencode(short)) > LONGEST_ADDRESS:
            raise OSError(errno.ENAMETOOLONG, "the file's name is too long for a socket", path)
        yield short
    finally:
        os.close(fd)
