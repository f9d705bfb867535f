"""`vmfsm screendump`: what is on a machine's screen, as a picture."""

import click

from vmfsm.control import ControlError

from .command import command, timeout_option
from .machines import EXITS, complete, find
from .output import one_line
from .status import Failure

_NO_SCREEN = "no console to take a screendump from"
"""QEMU's words; what else is called a console here has nothing to do with it."""


@command(
    exits=EXITS,
    examples=(
        ("vmfsm screendump boot-test", "to boot-test.png, in the current directory"),
        ("vmfsm screendump boot-test screen.ppm", "the file's name says what it is"),
    ),
)
@click.argument("name", shell_complete=complete)
@click.argument("file", required=False, type=click.Path(dir_okay=False))
@timeout_option(30.0, "For QEMU to write it.")
def screendump(name: str, file: str | None, timeout: float) -> None:
    """Write a picture of a machine's screen to a file.

    PNG, or PPM where FILE ends in .ppm. Its path is printed. QEMU writes it, with its rights. There is a
    screen where the machine has a graphics device, also with '-display none'.
    """
    with find(name) as machine:
        path = file or f"{machine.name}.png"
        form = "ppm" if path.lower().endswith(".ppm") else "png"
        try:
            written = machine.screendump(path, format=form, timeout=timeout)
        except ControlError as error:
            if _NO_SCREEN not in str(error):
                raise
            raise Failure(f"{machine.name}: it has no graphics device (-device VGA is one)") from None
        click.echo(one_line(written))
