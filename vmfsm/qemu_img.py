"""Disk images for tests, made and looked at by the `qemu-img` tool (its man page has the facts).

    from vmfsm import qemu_img

    qemu_img.create("disk.qcow2", "64M")
    qemu_img.overlay("scratch.qcow2", "disk.qcow2")
    qemu_img.info("scratch.qcow2").virtual_size

Each call starts the tool, without a shell, and waits for it, `timeout` seconds at most (`None`: no limit);
from any thread, but it stops an asyncio loop that it is called in. A path is always a file of that name,
whatever it looks like: it is no option, URL, or `json:` for QEMU. Relative ones are relative to the
current directory, all of them.

Beside what they say themselves, all raise `ConfigError` for what is wrong with an argument, before anything
is started; `ImageError` when the tool is not there or fails; `MachineTimeout` at the deadline, when the tool
is killed.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from .deadline import Deadline
from .errors import ConfigError, ImageError, MachineTimeout, printable
from .paths import check_path

__all__ = ["ImageInfo", "create", "info", "overlay"]

Path = str | os.PathLike[str]
Options = Mapping[str, str | int | bool]
T = TypeVar("T")

_BINARY = "qemu-img"
_SIZE = re.compile(r"[0-9]+(\.[0-9]+)?[bkmgtpe]?", re.IGNORECASE | re.ASCII)
_WORD = re.compile(r"[a-z0-9][a-z0-9._-]*", re.IGNORECASE | re.ASCII)
_REAPING = 5.0
"""Seconds until a tool that was sent SIGKILL is given up: the kernel may hold it."""


class ImageInfo(NamedTuple):
    """What `info` tells of an image."""

    path: str
    """Absolute."""
    format: str
    virtual_size: int
    """Bytes that a guest sees."""
    actual_size: int
    """Bytes that the file occupies."""
    backing_file: str | None
    """Of an overlay: what it lies over; a path that QEMU resolved, or whatever else the image names.

    Bytes that are not UTF-8 are replaced.
    """
    backing_format: str | None
    """Of an overlay: as it is written in the image; `None` where it is not."""
    backing: "ImageInfo | None"
    """The same of the backing file, where the whole chain was asked for."""
    snapshots: tuple[str, ...]
    """The names of its internal snapshots."""
    encrypted: bool
    dirty: bool
    """The image says of itself that it was not closed (a qcow2 with lazy refcounts does)."""
    raw: Mapping[str, Any]
    """All that the tool said (QMP reference, `ImageInfo`)."""


def create(
    path: Path,
    size: int | str,
    *,
    format: str = "qcow2",  # noqa: A002 - the name of the field
    options: Options | None = None,
    overwrite: bool = False,
    timeout: float | None = 60,
    binary: Path = _BINARY,
) -> None:
    """Make an empty image.

    :param size: in bytes, or with a suffix of the tool, such as `"64M"` (M is 1024 * 1024).
    :param format: one that keeps an image in one file, such as `qcow2` or `raw`.
    :param options: of the format, such as `{"cluster_size": 65536, "lazy_refcounts": True}`.
    :param overwrite: `path` may be a file, which is replaced when the new one is whole.
    :raises ConfigError: when `path` is there already, too.

    When it raises, there is nothing new, and what was there is as before.
    """
    deadline = Deadline(timeout)
    target = _absolute(path, "path")
    arguments = ["-f", _check_word(format, "format"), *_options(options)]
    _make(target, arguments, [_check_size(size)], overwrite, deadline, binary)


def overlay(
    path: Path,
    backing: Path,
    *,
    backing_format: str | None = None,
    size: int | str | None = None,
    options: Options | None = None,
    overwrite: bool = False,
    timeout: float | None = 60,
    binary: Path = _BINARY,
) -> None:
    """Make a qcow2 image that holds only what differs from another image, which is never written to.

    :param backing: the other image. It is written into the new one as an absolute path, so the overlay may be
        moved, but `backing` may not.
    :param backing_format: of `backing`; the tool looks at it where it is not given, so give it where a guest
        may have written to a raw image.
    :param size: as of `create`; that of `backing` without it.

    Everything else is as of `create`.
    """
    deadline = Deadline(timeout)
    target, base = _absolute(path, "path"), _absolute(backing, "backing")
    if os.path.realpath(target) == os.path.realpath(base):
        raise ConfigError(f"an overlay cannot lie over itself: {target}", field="backing")
    arguments = ["-f", "qcow2", *_options(options)]
    sizes = [] if size is None else [_check_size(size)]
    _refuse_existing(target, overwrite)
    if backing_format is None:
        backing_format = _info(base, [], deadline, binary, lambda raw: str(raw["format"]))
    arguments += ["-b", base, "-F", _check_word(backing_format, "backing_format")]
    _make(target, arguments, sizes, overwrite, deadline, binary)


def info(
    path: Path,
    *,
    format: str | None = None,  # noqa: A002 - the name of the field
    backing_chain: bool = False,
    timeout: float | None = 60,
    binary: Path = _BINARY,
) -> ImageInfo:
    """What an image is.

    :param format: what it is taken for; the tool looks at it where this is not given.
    :param backing_chain: its backing files, too. Whatever they name is opened, so only for images you trust.

    Works while a machine uses the image (`--force-share`). It changes meanwhile then, so what is told may be
    out of date, or wrong where the machine is just changing that.
    """
    deadline = Deadline(timeout)
    image = _absolute(path, "path")
    arguments = [] if format is None else ["-f", _check_word(format, "format")]
    if backing_chain:
        told = _info(image, [*arguments, "--backing-chain"], deadline, binary, _chain_info)
    else:
        told = _info(image, arguments, deadline, binary, _image_info)
    return told._replace(path=image)  # the tool's has lost what is not UTF-8


def _chain_info(raws: list[Mapping[str, Any]]) -> ImageInfo:
    *others, lowest = raws
    told = _image_info(lowest)
    for raw in reversed(others):
        told = _image_info(raw, told)
    return told


def _image_info(raw: Mapping[str, Any], backing: ImageInfo | None = None) -> ImageInfo:
    info = ImageInfo(
        path=raw["filename"],
        format=raw["format"],
        virtual_size=raw["virtual-size"],
        actual_size=raw.get("actual-size", 0),
        backing_file=raw.get("full-backing-filename", raw.get("backing-filename")),
        backing_format=raw.get("backing-filename-format"),
        backing=backing,
        snapshots=tuple(snapshot["name"] for snapshot in raw.get("snapshots", ())),
        encrypted=raw.get("encrypted", False),
        dirty=raw.get("dirty-flag", False),
        raw=raw,
    )
    texts = (info.path, info.format, info.backing_file or "", info.backing_format or "", *info.snapshots)
    numbers = (info.virtual_size, info.actual_size)
    if not (all(isinstance(text, str) for text in texts) and all(type(number) is int for number in numbers)):
        raise TypeError("fields of other types")
    return info


# -- files --------------------------------------------------------------------------------------------------


def _make(
    target: str, arguments: list[str], sizes: list[str], overwrite: bool, deadline: Deadline, binary: Path
) -> None:
    _refuse_existing(target, overwrite)
    try:
        with _made_whole(target, overwrite) as unfinished:
            _run(binary, ["create", "-q", *arguments, unfinished, *sizes], deadline)
    except OSError as error:
        if isinstance(error, MachineTimeout):
            raise
        raise ImageError(f"{target} cannot be made: {error.strerror or error}") from error


def _refuse_existing(target: str, overwrite: bool) -> None:
    try:
        mode = os.lstat(target).st_mode
    except OSError:
        return  # not there; or making it will fail, and say why
    if not overwrite:
        raise _there(target)
    if not stat.S_ISREG(mode):
        raise ConfigError(f"{target} is no file, so it is not overwritten", field="path")


def _there(target: str) -> ConfigError:
    return ConfigError(f"{target} is there already; overwrite=True replaces it", field="path")


@contextlib.contextmanager
def _made_whole(target: str, overwrite: bool) -> Iterator[str]:
    """A path beside `target` for what is moved to it when the block has ended well."""
    reserved = False
    directory = tempfile.mkdtemp(prefix=".qemu-img-", dir=os.path.dirname(target))
    try:
        if not overwrite:
            try:
                os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            except FileExistsError:
                raise _there(target) from None
            reserved = True
        unfinished = os.path.join(directory, os.path.basename(target))
        yield unfinished
        os.replace(unfinished, target)
        reserved = False
    finally:
        if reserved:
            with contextlib.suppress(OSError):
                os.unlink(target)
        shutil.rmtree(directory, ignore_errors=True)


# -- the tool -----------------------------------------------------------------------------------------------


def _info(path: str, arguments: list[str], deadline: Deadline, binary: Path, read: Callable[[Any], T]) -> T:
    """What `read` makes of the tool's answer."""
    command = ["info", "--output=json", "--force-share", *arguments, path]
    output = _run(binary, command, deadline)
    try:
        return read(json.loads(output))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _failed(
            binary, command, "gave an answer that says nothing of an image", output, None
        ) from error


def _run(binary: Path, arguments: list[str], deadline: Deadline) -> str:
    """What the tool says on stdout."""
    command = [check_path(binary, field="binary"), *arguments]
    started: list[_Tool] = []
    try:
        try:
            process = _Tool(command, started)
        except OSError as error:
            raise _failed(binary, arguments, f"cannot be started: {error.strerror}", "", None) from error
        stdout, stderr = process.communicate(timeout=deadline.remaining())
    except subprocess.TimeoutExpired as late:
        timeout = MachineTimeout(f"{command[0]} {arguments[0]} timed out after {deadline.timeout:g} s")
        timeout.operation, timeout.timeout = f"qemu-img {arguments[0]}", deadline.timeout
        raise timeout from late
    finally:
        for tool in started:
            _end(tool)
    output = stderr.decode(errors="backslashreplace").strip()
    if process.returncode != 0:
        raise _failed(
            binary, arguments, f"failed with status {process.returncode}", output, process.returncode
        )
    if output and signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:  # Popen takes a lost status for 0
        raise _failed(binary, arguments, "failed with a status that could not be had", output, None)
    return stdout.decode(errors="surrogateescape")


class _Tool(subprocess.Popen[bytes]):
    """A tool that runs, in a session of its own.

    :param started: it is added here before it is: an interrupt may come when it runs already, and nobody
        else knows of it yet.
    """

    pid = 0  # as long as it was not started

    def __init__(self, command: list[str], started: "list[_Tool]") -> None:
        self.returncode = self.stdout = self.stderr = None
        started.append(self)
        super().__init__(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )


def _end(process: _Tool) -> None:
    """Let nothing be left of a tool: not even what it started, where it did not end by itself."""
    if process.pid and process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_REAPING)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _failed(
    binary: Path, arguments: list[str], what: str, output: str, exit_status: int | None
) -> ImageError:
    said = f": {printable(output)}" if output else ""
    error = ImageError(f"{os.fspath(binary)} {arguments[0]} {what}{said}")
    error.command, error.output, error.exit_status = (os.fspath(binary), *arguments), output, exit_status
    return error


# -- arguments ----------------------------------------------------------------------------------------------


def _absolute(path: object, field: str) -> str:
    """So it begins with no dash, and QEMU takes no colon in it for the end of a protocol."""
    return os.path.abspath(check_path(path, field=field))


def _check_size(size: object) -> str:
    if isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 2**63:
        return str(size)
    if isinstance(size, str) and _SIZE.fullmatch(size):
        return size
    raise ConfigError(
        f"size must be bytes as an int, or a number with one of the suffixes K, M, G, T, P, E, not {size!r}",
        field="size",
    )


def _check_word(value: object, field: str) -> str:
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        raise ConfigError(f"{field} must be the name of an image format, not {value!r}", field=field)
    return value


def _options(options: object) -> list[str]:
    if options is None:
        return []
    if not isinstance(options, Mapping):
        raise ConfigError(f"options must be a mapping, not {options!r}", field="options")
    words = []
    for name, value in options.items():
        if not isinstance(name, str) or not _WORD.fullmatch(name):
            raise ConfigError(
                f"options must have names of options of the format, not {name!r}", field="options"
            )
        if not isinstance(value, str | int):
            raise ConfigError(
                f"option {name!r} must be a str, an int or a bool, not {value!r}", field="options"
            )
        text = str(value) if not isinstance(value, bool) else ("off", "on")[value]
        words += ["-o", f"{name}={text.replace(',', ',,')}"]
    return words
