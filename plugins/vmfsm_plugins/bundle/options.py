"""The options of bundles, checked."""

import os

from vmfsm import ConfigError, Deadline, check_path

VARIABLE = "VMFSM_BUNDLE"
"""The environment variable that names the directory where no option does."""
TIMEOUT = 10.0
LEAST_TIMEOUT = 0.1


def check_directory(given: object, field: str = "options['bundle']['directory']") -> str | None:
    """Where bundles go, as an absolute path: `given`, else what the environment says; `None`: nowhere.

    :raises ConfigError: for what is no path.
    """
    if given is None:
        said = os.environ.get(VARIABLE)
        return os.path.abspath(check_path(said, field=VARIABLE)) if said else None
    return os.path.abspath(check_path(given, field=field))


def check_timeout(given: object, field: str = "options['bundle']['timeout']") -> float:
    """:raises ConfigError: for what is no number of seconds, or too few to do anything in."""
    if given is None:
        raise ConfigError("timeout must be a number of seconds: a bundle is bounded", field=field)
    seconds = Deadline(given).timeout  # type: ignore[arg-type]  # it says what is wrong
    assert seconds is not None
    if seconds < LEAST_TIMEOUT:
        raise ConfigError(f"timeout must be at least {LEAST_TIMEOUT:g} s, not {given!r}", field=field)
    return seconds


def check_flag(given: object, name: str) -> bool:
    """:raises ConfigError: for what is neither `True` nor `False`."""
    if not isinstance(given, bool):
        raise ConfigError(f"{name} must be True or False, not {given!r}", field=name)
    return given
