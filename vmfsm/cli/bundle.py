"""`vmfsm bundle`: all that can be had of machines, for later, and for others."""

import click

from .command import command, timeout_option
from .machines import EXITS, act_on, names_argument
from .output import one_line

_INSTEAD = """
only its harness can make a bundle; where it is recorded (VMFSM_RECORD), its recording tells what happened:
vmfsm report DIRECTORY"""


@command(
    json="Print one JSON document: a list of objects, one a machine.",
    exits=EXITS,
    examples=(
        ("vmfsm bundle boot-test", "into the harness's VMFSM_BUNDLE, else into its current directory"),
        ("vmfsm bundle boot-test -o /tmp/failed --memory", "into /tmp/failed, with the guest's memory"),
    ),
)
@names_argument
@click.option(
    "-o", "--output", metavar="DIRECTORY", type=click.Path(file_okay=False), help="Where to make them."
)
@click.option("--memory", is_flag=True, help="With the guest's memory.")
@timeout_option(10.0, "For all that is in one; at least 0.1.", least=0.1)
def bundle(names: tuple[str, ...], output: str | None, memory: bool, timeout: float, as_json: bool) -> None:
    """Put all that can be had of machines into directories.

    Logs, the recording, registers, devices, a picture of the screen, and a README.txt that says where to look
    first. The path of each is printed. Their programs write them, as their users; the machines go on.
    """
    act_on(
        names,
        lambda machine: {"path": machine.bundle(output, memory=memory, timeout=timeout)},
        lambda result: one_line(result["path"]),
        as_json=as_json,
        named=len(names) > 1,
        instead=_INSTEAD,
    )
