"""What a machine was constructed with, checked for its shape; nothing here asks the system anything."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .errors import ConfigError
from .paths import check_path
from .redaction import redact_command

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@:-]{0,63}")

BEST = "best"
"""For `accel`: the best accelerator that works, chosen at the launch."""


class Config(NamedTuple):
    """The checked arguments of `Machine`."""

    binary: str
    args: tuple[str, ...]
    name: str
    wrapper: tuple[str, ...]
    env: dict[str, str | None]
    cwd: str | None
    display: str | None
    accel: str | None
    log_dir: str | None
    base_dir: str | None
    expected_exits: frozenset[int]


def check(
    binary: object,
    args: object,
    name: object,
    wrapper: object,
    env: object,
    cwd: object,
    display: object,
    accel: object,
    log_dir: object,
    base_dir: object,
    expected_exits: object,
) -> Config:
    """Check and copy them.

    :raises ConfigError: naming the parameter.
    """
    arguments = check_strings("args", args)
    refuse_daemonize(arguments)
    if display is not None and (not isinstance(display, str) or not display):
        raise ConfigError(
            f"display must be a str for QEMU's -display, or None, not {display!r}", field="display"
        )
    if accel is not None and (not isinstance(accel, str) or not accel or "\0" in accel):
        raise ConfigError(
            f"accel must be a str for QEMU's -accel, {BEST!r}, or None, not {accel!r}", field="accel"
        )
    return Config(
        check_path(binary, field="binary"),
        arguments,
        check_name(name),
        check_strings("wrapper", wrapper),
        check_environment(env),
        None if cwd is None else check_path(cwd, field="cwd"),
        display,
        accel,
        None if log_dir is None else check_path(log_dir, field="log_dir"),
        None if base_dir is None else check_path(base_dir, field="base_dir"),
        _statuses(expected_exits),
    )


def refuse_daemonize(args: Sequence[str]) -> None:
    """:raises ConfigError: for `-daemonize`, which makes QEMU somebody else's child."""
    for arg in args:
        if arg in {"-daemonize", "--daemonize"}:
            raise ConfigError(
                f"{arg}: a QEMU that detaches itself can be neither watched nor ended", field="args"
            )


def check_name(name: object) -> str:
    """A name that may be one of a file, too.

    :raises ConfigError: where it is none.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            f"name must be 1 to 64 letters, digits and any of '._+@:-' (it names files), not {name!r}",
            field="name",
        )
    return name


def check_strings(field: str, value: object) -> tuple[str, ...]:
    """A copy of a sequence of `str` for a command line.

    :raises ConfigError: naming `field`.
    """
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise ConfigError(f"{field} must be a sequence of str, not {type(value).__name__}", field=field)
    for item in value:
        if not isinstance(item, str) or "\0" in item:
            shown = redact_command([item])[0] if isinstance(item, str) else item
            raise ConfigError(f"{field} must hold only str without NUL, not {shown!r}", field=field)
    return tuple(value)


def check_environment(value: object) -> dict[str, str | None]:
    """A copy of differences to the environment.

    :raises ConfigError: naming what is wrong.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"env must be a mapping of differences, not {type(value).__name__}", field="env")
    for key, item in value.items():
        if not isinstance(key, str) or not key or "=" in key or "\0" in key:
            raise ConfigError(f"env has no variable of this name: {key!r}", field="env")
        if item is not None and (not isinstance(item, str) or "\0" in item):
            raise ConfigError(
                f"env[{key!r}] must be a str without NUL, or None to take it away",  # it may be a secret
                field=f"env[{key!r}]",
            )
    return dict(value)


def _statuses(value: object) -> frozenset[int]:
    if isinstance(value, str | bytes | int) or not hasattr(value, "__iter__"):
        raise ConfigError(
            f"expected_exits must be a sequence of exit statuses, not {value!r}", field="expected_exits"
        )
    statuses = tuple(value)
    for status in statuses:
        if isinstance(status, bool) or not isinstance(status, int) or not 0 <= status <= 255:
            raise ConfigError(f"expected_exits: not an exit status: {status!r}", field="expected_exits")
    return frozenset(statuses)
