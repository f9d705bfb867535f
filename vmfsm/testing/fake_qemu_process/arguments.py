"""QEMU's command line as far as its monitors and consoles go: `qemu(1)`, "Character device options"."""

from __future__ import annotations

Properties = dict[str, str]

_CONSOLES = ("serial", "console", "debugcon", "vty")
"""In the names of the devices that are consoles: others with a `chardev` (`vhost-user-fs`) are none."""
_MONITORS = ("-qmp", "-qmp-pretty")
_KNOWN = ("-chardev", "-mon", "-serial", "-device", *_MONITORS)
_ON = ("on", "yes", "true", "y")
_OFF = ("off", "no", "false", "n")


class Refused(Exception):
    """What QEMU ends for before it does anything, with status 1 and this on stderr."""


class Chardev:
    """A character device.

    :param text: the arguments it stands in, for what is said about it.
    """

    def __init__(self, text: str, properties: Properties) -> None:
        self.text = text
        self.properties = properties
        self.in_use = False

    @property
    def backend(self) -> str:
        return self.properties.get("backend", "")

    def get(self, name: str) -> str | None:
        return self.properties.get(name)

    def flag(self, name: str, default: bool) -> bool:
        """:raises Refused: for a value that is none of a bool."""
        value = self.properties.get(name)
        if value is None or value in (*_ON, *_OFF):
            return default if value is None else value in _ON
        raise self.refused(f"Parameter '{name}' expects 'on' or 'off'")

    def refused(self, why: str) -> Refused:
        return Refused(f"{self.text}: {why}")


def parse(args: list[str]) -> tuple[list[Chardev], list[Chardev]]:
    """The sockets that are monitors, and those that are consoles.

    :raises Refused: where QEMU would not start.
    """
    chardevs: dict[str, Chardev] = {}
    monitors: list[tuple[str, str | Chardev]] = []
    consoles: list[tuple[str, str | Chardev]] = []
    for word, value in zip(args, args[1:], strict=False):  # noqa: RUF007 - an import less
        option = word[1:] if word.startswith("--") else word
        if option not in _KNOWN:
            continue
        text = f"{word} {value}"
        if option == "-chardev":
            chardev = Chardev(text, _split(value, "backend"))
            name = chardev.get("id")
            if name is None or name in chardevs:
                raise chardev.refused(
                    "chardev: no id specified" if name is None else f"Duplicate ID '{name}'"
                )
            chardevs[name] = chardev
        elif option == "-mon":
            properties = _split(value, "chardev")
            if properties.get("mode") == "control":
                monitors.append((text, properties.get("chardev", "")))
        elif option == "-device":
            properties = _device(value)
            if "chardev" in properties and any(part in properties.get("driver", "") for part in _CONSOLES):
                consoles.append((text, properties["chardev"]))
        else:
            (monitors if option in _MONITORS else consoles).append((text, _legacy(text, value)))
    found = _find(chardevs, monitors)
    for chardev in found:
        if chardev.backend not in ("socket", "null"):
            raise chardev.refused("FakeQEMU has monitors on sockets only")
    return _sockets(found), _sockets(_find(chardevs, consoles))


def _sockets(chardevs: list[Chardev]) -> list[Chardev]:
    """Those of them that are sockets, each for one user."""
    sockets = [chardev for chardev in chardevs if chardev.backend == "socket"]
    for chardev in sockets:
        if chardev.in_use:
            raise chardev.refused("it is in use already")
        chardev.in_use = True
    return sockets


def _find(chardevs: dict[str, Chardev], references: list[tuple[str, str | Chardev]]) -> list[Chardev]:
    """What is referred to, by id or as it is."""
    found = []
    for text, meant in references:
        if isinstance(meant, str) and meant not in chardevs:
            raise Refused(f'{text}: chardev "{meant}" not found')
        found.append(chardevs[meant] if isinstance(meant, str) else meant)
    return found


def _legacy(text: str, value: str) -> str | Chardev:
    """What `-serial` and `-qmp` take: the id of a character device, or one in short."""
    kind, _, rest = value.partition(":")
    if kind == "chardev":
        return rest
    if kind not in ("unix", "tcp"):
        return Chardev(text, {"backend": "null" if kind == "none" else kind})
    properties = {**_split(rest, "path"), "backend": "socket"}
    if kind == "tcp":
        host, _, port = properties.pop("path", "").rpartition(":")
        properties["host"], properties["port"] = host.strip("[]"), port
    return Chardev(text, properties)


def _device(value: str) -> Properties:
    """The properties of a `-device`, which may be JSON."""
    if not value.startswith("{"):
        return _split(value, "driver")
    import json

    try:
        return {str(name): str(given) for name, given in dict(json.loads(value)).items()}
    except ValueError as error:
        raise Refused(f"-device {value}: {error}") from error


def _split(value: str, first: str) -> Properties:
    """`name=value,…`, with commas doubled inside of values.

    A word without a value is a bool, `noname` one that is off; but the first is the value of `first`.
    """
    properties: Properties = {}
    for number, word in enumerate(value.replace(",,", "\0").split(",")):
        name, equals, given = word.replace("\0", ",").partition("=")
        if equals:
            properties[name] = given
        elif number == 0:
            properties[first] = name
        elif name.startswith("no"):
            properties[name[2:]] = "off"
        else:
            properties[name] = "on"
    return properties
