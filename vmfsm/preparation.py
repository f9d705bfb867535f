"""Before a process exists: what only the system can say is checked, and the plan begun."""

import base64
import contextlib
import functools
import os
import shutil
import tempfile
from collections.abc import Callable

from .caller import Job
from .config import Config, refuse_daemonize
from .iothread import IOThread
from .plan import LaunchPlan
from .process import environment, find_binary
from .workers import Workers

private_directories: set[str] = set()
"""Of all machines of this process: those that are there, or could not be removed."""


def prepare(config: Config, begin: Callable[[str], object]) -> LaunchPlan:
    """Check binary, wrapper and directories, make the private directory, and begin the plan of a launch.

    :param begin: is told of the directory before that is made, so that it is somebody's at any moment.
    :raises OSError: a fitting one, saying what is wrong with which parameter.
    """
    env = environment(config.env)
    for program in (*config.wrapper[:1], config.binary):
        find_binary(program, env.get("PATH"))
    if config.cwd is not None and not os.path.isdir(config.cwd):
        raise NotADirectoryError(f"cwd is not a directory: {config.cwd}")
    if config.log_dir is not None:
        _require_writable("log_dir", config.log_dir)
    base_dir = config.base_dir or _temporary_directory()
    _require_writable("base_dir", base_dir)
    directory = os.path.join(os.path.abspath(base_dir), f"vmfsm-{_random_name()}")
    begin(directory)
    try:
        os.mkdir(directory, 0o700)
    except OSError as error:  # a file system without room, say, or one of the kernel's own
        raise OSError(f"base_dir: no directory can be made in {base_dir}: {error.strerror}") from error
    private_directories.add(directory)
    plan = LaunchPlan(list(config.wrapper), env, directory, config.log_dir)
    plan.contributor = "vmfsm"
    plan.defer(functools.partial(_remove, directory))
    return plan


def _random_name() -> str:
    return base64.urlsafe_b64encode(os.urandom(6)).decode()


def _temporary_directory() -> str:
    """The system's. :raises OSError: also where only the descriptor is missing that looking for it takes."""
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        os.close(os.open("/", os.O_RDONLY))  # if that is what it is, this says so
        raise


def compose_command(config: Config, plan: LaunchPlan) -> tuple[str, ...]:
    """The command line: the wrapper, QEMU, what plugins add, and last what the user asked for.

    :raises ConfigError: for a plugin's `-daemonize`.
    """
    refuse_daemonize(plan.args)
    display = () if config.display is None else ("-display", config.display)
    accel = () if config.accel is None else ("-accel", config.accel)
    is_relative = bool(plan.wrapper and os.path.dirname(config.binary))
    binary = os.path.abspath(config.binary) if is_relative else config.binary  # a wrapper starts in `cwd`
    return (*plan.wrapper, binary, *display, *accel, *plan.args, *config.args)


async def _remove(directory: str) -> None:
    if not _remove_flat(directory):
        job = Job(IOThread.get(), directory, functools.partial(shutil.rmtree, directory))
        Workers.get().submit(job.run)
        error = await job.done
        if error is not None:
            raise error
    private_directories.discard(directory)


def _remove_flat(directory: str) -> bool:
    """Remove the private directory here and now if it holds but a few files, as it mostly does."""
    try:
        names = os.listdir(directory)
        if len(names) > 16:
            return False
        for name in names:
            os.unlink(os.path.join(directory, name))
        os.rmdir(directory)
    except OSError:  # it holds directories, say, or somebody else removes what is in it, or all of it
        with contextlib.suppress(OSError):
            os.rmdir(directory)  # it is empty, and there was no descriptor to look into it
        return not os.path.lexists(directory)
    return True


def _require_writable(field: str, directory: str) -> None:
    if not os.path.isdir(directory):
        raise NotADirectoryError(f"{field} is not a directory: {directory}")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(f"{field} is not writable: {directory}")
