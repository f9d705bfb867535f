"""The options of consoles, checked, and the arguments that QEMU gets for them."""

import codecs
import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vmfsm import ConfigError, check_path

DEFAULT_BUFFER = 1024 * 1024
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@:-]{0,63}")
_NUMBERED = re.compile(r"\.[0-9]+\Z")
_PORTS = frozenset({"virtconsole", "virtserialport"})
_BUS = "vmfsm-console-bus"


class Options(NamedTuple):
    """The options of one console: see `Consoles`."""

    device: str | None = None
    index: int = 0  # type: ignore[assignment]  # hides a method of tuple
    log: "str | os.PathLike[str] | None" = None
    timestamps: bool = False
    encoding: str = "utf-8"
    newline: str = "\n"
    buffer: int = DEFAULT_BUFFER


def check(flat: Mapping[str, object], several: Mapping[str, object]) -> dict[str, Options]:
    """The consoles by name: the one that `flat` is about, or `several`.

    :raises ConfigError: naming the option.
    """
    if not several:
        return {"console": _check_one(flat, "options['console']")}
    consoles = {}
    for name, values in several.items():
        field = f"options['console'][{name!r}]"
        if not isinstance(values, Mapping):
            raise _unknown(name, field)
        if _NUMBERED.search(name):
            raise ConfigError(
                f"plugin 'console': the name of a console may not end in '.' and a number, as the files of "
                f"later launches do, but {name!r} does",
                field=field,
            )
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"plugin 'console': the name of a console must be 1 to 64 letters, digits and any of "
                f"'._+@:-' (it names a file), not {name!r}",
                field=field,
            )
        consoles[name] = _check_one(values, field)
    for option, value in flat.items():
        if value != Options._field_defaults[option]:
            raise ConfigError(
                f"plugin 'console': option {option!r} belongs to one console, and several are named "
                f"({', '.join(several)}): give it to one of them",
                field=f"options['console'][{option!r}]",
            )
    _check_clashes(consoles)
    return consoles


def _unknown(option: object, field: str) -> ConfigError:
    return ConfigError(
        f"plugin 'console' has no option {option!r} (it has: {', '.join(Options._fields)}; "
        "or a mapping of these for each of several consoles)",
        field=field,
    )


def _check_one(values: Mapping[str, object], field: str) -> Options:
    def require(option: str, fine: bool, wanted: str) -> None:
        if not fine:
            raise ConfigError(
                f"option {option!r} of plugin 'console' must be {wanted}, not {values.get(option)!r}",
                field=f"{field}[{option!r}]",
            )

    for option in values:
        if option not in Options._fields:
            raise _unknown(option, f"{field}[{option!r}]")
    options = Options(**values)  # type: ignore[arg-type]  # checked below
    device, index, log, buffer = options.device, options.index, options.log, options.buffer
    require("device", device is None or (isinstance(device, str) and device != ""), "a device or None")
    if device is not None:
        require("device", re.search("[{\0]|(^|,)chardev=", device) is None, "'DEVICE[,PROPERTY=VALUE]...'")
    require("index", type(index) is int and 0 <= index < 64, "an int, at least 0 and below 64")
    if log is not None:
        check_path(log, field=f"{field}['log']")
    require("timestamps", isinstance(options.timestamps, bool), "a bool")
    require("encoding", isinstance(options.encoding, str) and _is_encoding(options.encoding), "an encoding")
    require("newline", isinstance(options.newline, str), "a str")
    require("newline", _encodes(options.newline, options.encoding), f"a str that {options.encoding} encodes")
    require("buffer", type(buffer) is int and buffer > 0, "a positive number of bytes")
    if options.timestamps:
        fine = "\n0".encode(options.encoding) == b"\n0"
        require(
            "timestamps", fine, f"False with an encoding like {options.encoding}, whose lines can't be told"
        )
    return options


def _is_encoding(name: str) -> bool:
    try:
        codecs.getincrementaldecoder(name)("replace").decode(b"")
        "".encode(name)
    except (LookupError, ValueError, TypeError, AssertionError):  # none, or one of something else than text
        return False
    return True


def _encodes(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeError:
        return False
    return True


def check_against_log(consoles: Mapping[str, Options], log: "str | os.PathLike[str] | None") -> None:
    """QEMU's own log may not be in the same file as a console.

    :raises ConfigError: naming the option.
    """
    for name, options in consoles.items():
        if log is not None and options.log is not None and _file(log) == _file(options.log) != os.devnull:
            raise ConfigError(
                f"plugin 'console': {name!r} and plugin 'logs' both write to {_file(log)} "
                "(options 'log' and 'path')",
                field=f"options['console'][{name!r}]['log']",
            )


def _file(path: "str | os.PathLike[str]") -> str:
    return os.path.realpath(path)


def _check_clashes(consoles: Mapping[str, Options]) -> None:
    taken: dict[int, str] = {}
    files: dict[str, str] = {}
    for name, options in consoles.items():
        path = _file(options.log) if options.log is not None else None
        if path is not None and path != os.devnull and files.setdefault(path, name) != name:
            raise ConfigError(
                f"plugin 'console': {files[path]!r} and {name!r} both write to {path} (option 'log')",
                field=f"options['console'][{name!r}]['log']",
            )
        if options.device is None:
            other = taken.setdefault(options.index, name)
            if other is not name:
                raise ConfigError(
                    f"plugin 'console': {other!r} and {name!r} are both serial port {options.index} "
                    "(option 'index')",
                    field=f"options['console'][{name!r}]['index']",
                )


def arguments(consoles: Sequence[tuple[Options, int]]) -> list[str]:
    """QEMU's arguments for consoles whose other ends it inherits as descriptors."""
    chardevs: list[str] = []
    devices: list[str] = []
    serial: dict[int, str] = {}
    ports = 0
    for number, (options, fd) in enumerate(consoles):
        chardev = f"vmfsm-console-{number}"
        chardevs += ["-chardev", f"socket,id={chardev},fd={fd}"]
        if options.device is None:
            serial[options.index] = f"chardev:{chardev}"
            ports = max(ports, options.index + 1)
        else:
            ports = max(ports, options.index)
            device = options.device
            if device.split(",")[0] in _PORTS and ",bus=" not in device:
                if not devices or _BUS not in " ".join(devices):
                    devices += ["-device", f"virtio-serial,id={_BUS}"]
                device += f",bus={_BUS}.0"
            devices += ["-device", f"{device},chardev={chardev}"]
    for index in range(ports):
        chardevs += ["-serial", serial.get(index, "null")]
    return chardevs + devices
