"""`vmfsm gdb`: a debugger for the guest of a machine that runs."""

import os
import shlex

import click

from .command import command, timeout_option
from .machines import EXITS, find, name_argument
from .output import print_json
from .status import Failure


@command(
    json="Print one JSON document: {target: TEXT, command: [...]}.",
    exits=EXITS,
    examples=(
        ("vmfsm gdb boot-test", "print the command that attaches gdb"),
        ("vmfsm gdb boot-test --exec -- vmlinux", "attach gdb now, with the kernel's symbols"),
        (
            "vmfsm gdb boot-test --exec -- -batch -ex 'info registers'",
            "execute a command of gdb's, and leave",
        ),
        ("vmfsm hold boot-test && vmfsm gdb boot-test --exec", "and no timeout ends the test meanwhile"),
    ),
)
@name_argument
@click.argument("arguments", metavar="[-- GDB_ARGUMENTS...]", nargs=-1)
@click.option("--exec", "execute", is_flag=True, help="Become gdb, attached.")
@timeout_option(30.0, "For QEMU to add the stub.")
def gdb(name: str, arguments: tuple[str, ...], execute: bool, timeout: float, as_json: bool) -> None:
    """Have QEMU take gdb in, and print the command that attaches it.

    The stub is added to the running QEMU through its monitor, at a socket in the machine's private directory,
    and stays. gdb stops the guest while it is attached: hold the machine before (vmfsm hold NAME), so that
    its timeouts stand still. Arguments behind -- are gdb's.
    """
    with find(name) as machine:
        target = machine.gdbstub(timeout=timeout)
    # First, since there may be commands among the arguments; files are loaded before commands anyway.
    line = ["gdb", "-ex", f"target remote {target}", *arguments]
    if as_json:
        print_json({"target": target, "command": line})
    elif execute:
        try:
            os.execvp(line[0], line)
        except OSError as error:
            raise Failure(f"gdb: {error.strerror}", hint=f"the stub is at {target}") from None
    else:
        click.echo(shlex.join(line))
