"""`vmfsm hold` and `vmfsm release`: the clock of a machine stands still, and goes on."""

import getpass

import click

from .command import command, timeout_option
from .machines import EXITS, act_on, names_argument
from .output import one_line

_ANSWER = "For the harness to answer."


@command(
    json="Print one JSON document: a list of objects, one a machine.",
    exits=EXITS,
    examples=(
        ("vmfsm hold boot-test", "no timeout of it runs out and nothing ends it, until it is released"),
        ("vmfsm hold boot-test --reason 'looking at the disk'", "say why; ps and inspect show it"),
    ),
)
@names_argument
@click.option("--reason", metavar="TEXT", help="Why, for others to see; otherwise who.")
@timeout_option(10.0, _ANSWER)
def hold(names: tuple[str, ...], reason: str | None, timeout: float, as_json: bool) -> None:
    """Hold machines: their deadlines stand still until they are released.

    No timeout of a wait runs out, and a shutdown waits for the release; the guest itself runs on (vmfsm qmp
    NAME stop pauses it). Use it to look at a machine that its test would end. Several holds add up; release
    ends all of them, and so does kill.
    """
    why = reason or f"{_user()} at a terminal"
    act_on(
        names,
        lambda machine: machine.hold(why, timeout=timeout),
        lambda result: f"held ({one_line(result['held'])})",
        as_json=as_json,
    )


@command(
    json="Print one JSON document: a list of objects, one a machine.",
    exits=EXITS,
    examples=(("vmfsm release boot-test", "deadlines go on with the time that was left"),),
)
@names_argument
@timeout_option(10.0, _ANSWER)
def release(names: tuple[str, ...], timeout: float, as_json: bool) -> None:
    """Release held machines, whoever holds them.

    Their deadlines go on with the time that was left when they were held.
    """
    act_on(names, lambda machine: machine.release(timeout=timeout), lambda _: "released", as_json=as_json)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"
