"""`vmfsm shutdown` and `vmfsm kill`: machines are ended as their programs would end them, with all hooks."""

from typing import Any

import click

from .command import command, timeout_option
from .machines import EXITS, act_on, names_argument
from .output import one_line

_LIST = "Print one JSON document: a list of objects, one a machine."


def _ended(result: dict[str, Any]) -> str:
    reason = f" ({one_line(result['reason'])})" if result.get("reason") else ""
    status = result.get("exit_status")
    return f"{one_line(result.get('state'))}{reason}{'' if status is None else f', exit status {status}'}"


@command(
    json=_LIST,
    exits=EXITS,
    examples=(
        ("vmfsm shutdown boot-test", "end QEMU, gently first"),
        ("vmfsm shutdown --guest boot-test", "have the guest shut down (ACPI power button) before that"),
    ),
)
@names_argument
@click.option("--guest", is_flag=True, help="Ask the guest first, by the ACPI power button.")
@timeout_option(30.0, "For it to have ended; QEMU is killed before that is over.")
def shutdown(names: tuple[str, ...], guest: bool, timeout: float, as_json: bool) -> None:
    """End machines, gently first.

    It is what Machine.shutdown() does in their programs: QEMU is asked to quit, then terminated, then killed,
    and all clean-up runs. Who waits there for something of the machine is told that it has died.
    """
    act_on(names, lambda machine: machine.shutdown(guest=guest, timeout=timeout), _ended, as_json=as_json)


@command(
    json=_LIST,
    exits=EXITS,
    examples=(("vmfsm kill boot-test 4711/disk-test", "end two of them now"),),
)
@names_argument
@timeout_option(10.0, "For the clean-up after it.")
def kill(names: tuple[str, ...], timeout: float, as_json: bool) -> None:
    """Kill machines now.

    It is what Machine.kill() does in their programs: SIGKILL for QEMU, then all clean-up. A machine whose
    program has died is removed by vmfsm gc.
    """
    act_on(names, lambda machine: machine.kill(timeout=timeout), _ended, as_json=as_json)
