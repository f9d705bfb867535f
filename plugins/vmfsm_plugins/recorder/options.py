"""The options of the recorder, checked."""

import os
from typing import NamedTuple

from vmfsm import ConfigError, check_path

VARIABLE = "VMFSM_RECORD"
"""The environment variable that names the directory where no option does."""
MAX_BYTES = 64 * 1024 * 1024
FILES = 8
_LEAST_OF_A_FILE = 16 * 1024


class Limits(NamedTuple):
    """How much is kept of one launch."""

    bytes_a_file: int
    files: int


def check_directory(given: object) -> str | None:
    """Where to record, as an absolute path: `given`, else what the environment says; `None`: nowhere.

    :raises ConfigError: for what is no path.
    """
    if given is None:
        said = os.environ.get(VARIABLE)
        return os.path.abspath(check_path(said, field=VARIABLE)) if said else None
    return os.path.abspath(check_path(given, field="options['recorder']['directory']"))


def check_limits(max_bytes: object, files: object) -> Limits:
    """:raises ConfigError: for what is no number, and where a file would have next to nothing."""
    field = "options['recorder']"
    if not isinstance(files, int) or isinstance(files, bool) or files < 2:
        raise ConfigError(
            f"files must be an int of at least 2, for the beginning and the end, not {files!r}",
            field=f"{field}['files']",
        )
    if not isinstance(max_bytes, int) or isinstance(max_bytes, bool):
        raise ConfigError(f"max_bytes must be an int, not {max_bytes!r}", field=f"{field}['max_bytes']")
    if max_bytes < files * _LEAST_OF_A_FILE:
        raise ConfigError(
            f"max_bytes must be at least {_LEAST_OF_A_FILE} for each of {files} files, not {max_bytes}",
            field=f"{field}['max_bytes']",
        )
    return Limits(max_bytes // files, files)
