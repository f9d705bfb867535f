"""External snapshots: from now on the guest writes to new files that lie over its disks.

Facts: QMP reference, `transaction` and `blockdev-snapshot-sync`.
"""

import contextlib
import functools
import itertools
import os
import stat
from collections.abc import AsyncIterator, Mapping
from typing import Any

from vmfsm import ConfigError, check_path
from vmfsm_plugins.blocking import in_thread
from vmfsm_plugins.qmp import QMPCommandError

from .disks import Disk, Disks

Path = str | os.PathLike[str]

_numbers = itertools.count(1)


def check_files(files: object) -> dict[str, str]:
    """The files by disk, as absolute paths: QEMU takes these for nothing but files.

    :raises ConfigError: for what is no mapping of such.
    """
    if not isinstance(files, Mapping) or not files:
        raise ConfigError(f"files must be a mapping of disks to new files, not {files!r}", field="files")
    paths = {}
    for disk, path in files.items():
        if not isinstance(disk, str) or not disk:
            raise ConfigError(f"files must name disks by a str, not {disk!r}", field="files")
        name = check_path(path, field="files")
        if not _is_text(name):
            raise ConfigError(f"the file for disk {disk!r} must be text for QMP, not {path!r}", field="files")
        paths[disk] = os.path.abspath(name)
    if len(set(paths.values())) < len(paths):
        raise ConfigError("each disk needs a file of its own", field="files")
    return paths


def _is_text(name: str) -> bool:
    with contextlib.suppress(UnicodeEncodeError):
        name.encode()
        return True
    return False


def assign(disks: Disks, files: Mapping[str, str]) -> dict[str, Disk]:
    """The disks that are named.

    :raises ConfigError: for one that is not there, is named twice, or that QEMU knows by a relative path.
    """
    assigned: dict[str, Disk] = {}
    for name in files:
        disk = disks.find(name, "files")
        if disk.node in {other.node for other in assigned.values()}:
            raise ConfigError(f"disk {name!r} is named twice in files", field="files")
        # QEMU writes it into the new file, and would take it for relative to that.
        if not os.path.isabs(disk.file) and ":" not in disk.file.partition("/")[0]:
            raise ConfigError(
                f"disk {name!r} was given to QEMU as {disk.file!r}; it must be an absolute path for this",
                field="files",
            )
        assigned[name] = disk
    return assigned


def make_transaction(disks: Mapping[str, Disk], files: Mapping[str, str]) -> tuple[list[Any], dict[str, str]]:
    """The actions of the transaction, and the nodes that will be the disks."""
    nodes = {name: f"vmfsm-overlay-{next(_numbers)}" for name in disks}
    actions = [
        {
            "type": "blockdev-snapshot-sync",
            "data": {
                "node-name": disk.node,
                "snapshot-file": files[name],
                "snapshot-node-name": nodes[name],
                "format": "qcow2",
            },
        }
        for name, disk in disks.items()
    ]
    return actions, nodes


@contextlib.asynccontextmanager
async def reserved(paths: list[str], *, overwrite: bool) -> AsyncIterator[None]:
    """Make these files, which QEMU would overwrite unasked; where the block fails, they are removed.

    Unless QEMU has put something into them and did not refuse: it may have ended after the guest wrote there.

    :raises ConfigError: where one is there already, or cannot be made.
    """
    made = await in_thread(functools.partial(_make, paths, overwrite=overwrite), _remove_empty)
    try:
        yield
    except BaseException as error:
        remove = _remove if isinstance(error, QMPCommandError) else _remove_empty
        await in_thread(functools.partial(remove, made))
        raise


def _make(paths: list[str], *, overwrite: bool) -> list[str]:
    """Make those of these files that are not there; which those are.

    :raises ConfigError: where one is there already, or cannot be made.
    """
    made: list[str] = []
    try:
        for path in paths:
            try:
                if overwrite and stat.S_ISREG(os.lstat(path).st_mode):
                    continue
            except OSError:
                pass  # it is not there; or making it fails, and says why
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            except FileExistsError:
                advice = "it is no file" if overwrite else "overwrite=True replaces it"
                raise ConfigError(f"{path} is there already; {advice}", field="files") from None
            except OSError as error:
                raise ConfigError(f"{path} cannot be made: {error.strerror}", field="files") from error
            made.append(path)
    except BaseException:
        _remove(made)
        raise
    return made


def _remove(paths: list[str]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _remove_empty(paths: list[str]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            if os.path.getsize(path) == 0:
                os.unlink(path)
