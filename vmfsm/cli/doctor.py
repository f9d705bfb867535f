"""`vmfsm doctor`: what runs here, what is missing, and what to do about it."""

import concurrent.futures
import os
import time
from collections.abc import Sequence

import click

from vmfsm.capability import Capabilities, capabilities
from vmfsm.errors import VMError

from . import health
from .command import command, timeout_option
from .health import Check, Grade
from .output import one_line, paragraph, print_json, progress
from .status import ExitStatus, Failure
from .table import Cell, Column, print_table

_COLORS = {Grade.OK: "green", Grade.LACKS: "yellow", Grade.FAILS: "red"}


@command(
    json="Print one JSON document: {runs: BOOL, checks: [{section, name, grade, detail, advice}, ...]}.",
    exits={
        ExitStatus.DONE: "machines can be run here",
        ExitStatus.FAILED: "they can't; or a BINARY that was named does not work",
    },
    examples=(
        ("vmfsm doctor", "everything: each qemu-system-* in PATH, tools, permissions, limits"),
        ("vmfsm doctor qemu-system-x86_64", "ask only this QEMU"),
        ("vmfsm doctor --json | jq '.checks[] | select(.grade != \"ok\")'", "what is wrong, for a program"),
    ),
)
@click.argument("binaries", metavar="[BINARY]...", nargs=-1)
@timeout_option(60.0, "For all QEMUs together to answer.")
def doctor(binaries: tuple[str, ...], timeout: float, as_json: bool) -> None:
    """Say what runs here, what is missing, and what to do about it.

    An accelerator counts as working when a guest of some instructions has run under it to its end, so a
    /dev/kvm that opens and then gets no guest anywhere is told from one that works. BINARY: a QEMU, by path
    or by name; without any, all qemu-system-* in PATH are asked, several at a time.
    """
    asked = _ask_all(binaries or health.qemus(), timeout)
    qemus = [check for check, _ in asked] or [health.no_qemu()]
    kvm = [found.refused.get("kvm") for _, found in asked if found is not None]
    rest = health.checks(next(filter(None, kvm), None))
    # Of those that were named all have to work, of those that there are one.
    enough = all if binaries else any
    qemus_work = enough(check.grade is Grade.OK for check in qemus)
    runs = qemus_work and all(check.grade is not Grade.FAILS for check in rest)
    checks = qemus + rest
    if as_json:
        print_json(
            {
                "runs": runs,
                "checks": [{**check._asdict(), "grade": check.grade.value} for check in checks],
            }
        )
    else:
        print_checks(checks)
    if not runs:
        raise Failure("not all of these QEMUs work here" if binaries else "machines can't be run here")


def _ask_all(binaries: Sequence[str], timeout: float) -> list[tuple[Check, Capabilities | None]]:
    """Ask QEMUs what works, as many at a time as there are processors."""
    deadline = time.monotonic() + timeout

    def ask(binary: str) -> tuple[Check, Capabilities | None]:
        try:
            found = capabilities(binary, timeout=max(0.01, deadline - time.monotonic()))
        except VMError as error:
            return Check("QEMU", binary, Grade.FAILS, str(error).partition("\n")[0]), None
        return _judged(binary, found), found

    what = binaries[0] if len(binaries) == 1 else f"{len(binaries)} QEMUs"
    threads = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
    with progress(f"asking {one_line(what)} what works here"), threads:
        return list(threads.map(ask, binaries))


def _judged(binary: str, found: Capabilities) -> Check:
    version = ".".join(map(str, found.version))
    refused = "; ".join(f"{name} does not work: {why}" for name, why in found.refused.items())
    if found.best is None:
        return Check("QEMU", binary, Grade.FAILS, f"{version}  no accelerator works", refused)
    working = ", ".join(found.accelerators)
    return Check("QEMU", binary, Grade.OK, f"{version}  {working}  {found.binary}", refused)


def print_checks(checks: Sequence[Check]) -> None:
    """A table a section, and below what to do; what is the same for several is said once."""
    columns = (Column(""), Column(""), Column(""))
    for section in dict.fromkeys(check.section for check in checks):
        click.secho(section, bold=True)
        rows: list[list[str | Cell]] = []
        for check in (check for check in checks if check.section == section):
            mark = Cell(check.grade.value, fg=_COLORS[check.grade])
            rows.append([mark, one_line(check.name), one_line(check.detail)])
        print_table(columns, rows, indent="  ")
    click.echo()
    for advice in dict.fromkeys(check.advice for check in checks if check.advice):
        names = ", ".join(one_line(check.name) for check in checks if check.advice == advice)
        click.echo(paragraph(f"{names}: {one_line(advice)}"))
