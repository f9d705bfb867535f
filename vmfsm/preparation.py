"""Before a process exists: what only the system can say is checked, and the plan begun."""

import os
import shutil
import tempfile
from collections.abc import Mapping

from .config import Config, refuse_daemonize
from .plan import LaunchPlan
from .process import find_binary


def prepare(config: Config) -> LaunchPlan:
    """Check binary, wrapper and directories, make the private directory, and begin the plan of a launch.

    :raises OSError: a fitting one, saying what is wrong with which parameter.
    """
    env = _environment(config.env)
    for program in (*config.wrapper[:1], config.binary):
        find_binary(program, env.get("PATH"))
    if config.cwd is not None and not os.path.isdir(config.cwd):
        raise NotADirectoryError(f"cwd is not a directory: {config.cwd}")
    if config.log_dir is not None:
        _require_writable("log_dir", config.log_dir)
    base_dir = config.base_dir or tempfile.gettempdir()
    _require_writable("base_dir", base_dir)
    directory = tempfile.mkdtemp(prefix="vmfsm-", dir=base_dir)
    plan = LaunchPlan(list(config.wrapper), env, directory, config.log_dir)
    plan.contributor = "vmfsm"
    plan.defer(lambda: shutil.rmtree(directory))
    return plan


def compose_command(config: Config, plan: LaunchPlan) -> tuple[str, ...]:
    """The command line: the wrapper, QEMU, what plugins add, and last what the user asked for.

    :raises ConfigError: for a plugin's `-daemonize`.
    """
    refuse_daemonize(plan.args)
    display = () if config.display is None else ("-display", config.display)
    return (*plan.wrapper, config.binary, *display, *plan.args, *config.args)


def _environment(differences: Mapping[str, str | None]) -> dict[str, str]:
    env = dict(os.environ)
    for key, value in differences.items():
        if value is None:
            env.pop(key, None)
        else:
            env[key] = value
    return env


def _require_writable(field: str, directory: str) -> None:
    if not os.path.isdir(directory):
        raise NotADirectoryError(f"{field} is not a directory: {directory}")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(f"{field} is not writable: {directory}")
