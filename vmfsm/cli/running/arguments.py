"""What of QEMU's own arguments a person should know about, since vmfsm adds some, too."""

import itertools
import re
from collections.abc import Sequence

_STDIO = re.compile(r"(^|[:,=])stdio($|,)")
_CHARACTER_DEVICES = {
    "-serial",
    "-monitor",
    "-qmp",
    "-qmp-pretty",
    "-parallel",
    "-debugcon",
    "-chardev",
    "-mon",
}


def refuse_stdio(args: Sequence[str]) -> None:
    """QEMU has no terminal here: its standard input is empty, and its output a log.

    :raises ValueError: for a serial port or monitor that is to be there.
    """
    for option, value in itertools.pairwise(args):
        if "-" + option.lstrip("-") in _CHARACTER_DEVICES and _STDIO.search(value):
            raise ValueError(
                f"{option} {value}: QEMU's stdin and stdout are not the terminal here. Leave it out: the "
                "first serial port is on the terminal anyway, and `vmfsm qmp NAME` talks to the monitor"
            )


def remarks(args: Sequence[str], *, console: bool) -> list[str]:
    """What is not wrong, but may be not what somebody meant.

    :param console: the first serial port is a console of vmfsm's.
    """
    said = []
    words = ["-" + word.lstrip("-") if word.startswith("-") else word for word in args]
    if console and "-serial" in words:
        said.append(
            "-serial among QEMU's arguments is another port: the first one is the console "
            "(--console none leaves that out)"
        )
    return said
