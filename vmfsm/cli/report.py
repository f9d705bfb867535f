"""`vmfsm report`: what happened, as a page to look at, or as text."""

import importlib
import os
from typing import Any

import click

from .command import command
from .output import one_line, print_json, progress
from .status import Failure


@command(
    json="Print one JSON document: all that the page shows (docs/report.md).",
    examples=(
        ("vmfsm report recordings/boot-*.jsonl", "a page beside the recording"),
        ("vmfsm report recordings -o report.html", "all machines of a directory on one page"),
        ("vmfsm report good.jsonl bad.jsonl --compare", "two runs side by side: which step took longer"),
    ),
)
@click.argument("sources", metavar="RECORDING|BUNDLE|DIRECTORY...", nargs=-1, required=True)
@click.option("-o", "--output", metavar="FILE", type=click.Path(dir_okay=False), help="Where to write it.")
@click.option("--compare", is_flag=True, help="Compare two recordings.")
def report(sources: tuple[str, ...], output: str | None, compare: bool, as_json: bool) -> None:
    """Make a page that shows what happened to machines."""
    from vmfsm import report as reports

    with progress("reading recordings"):
        data = reports.data(sources, compare=compare)
    if as_json:
        print_json(data)
        return
    path = output or _beside(sources[0])
    with progress("making the page"):
        page = _render(data)
    with open(path, "w", encoding="utf-8") as file:
        file.write(page)
    click.echo(one_line(path))


def _render(data: dict[str, Any]) -> str:
    try:
        rendering = importlib.import_module("vmfsm.report.rendering")
    except ModuleNotFoundError as error:
        if error.name != "vmfsm.report.rendering":
            raise
        raise Failure("there is no page yet, only --json") from None
    return str(rendering.render(data))


def _beside(source: str) -> str:
    if os.path.isdir(source):
        return os.path.join(source, "report.html")
    return source.removesuffix(".jsonl") + ".html"
