"""What users give as paths, checked for the shape; nothing here asks the system anything."""

import os

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
