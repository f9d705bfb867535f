"""`vmfsm report`: what happened, as a page to look at, as text, or for programs."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import click

from .command import command
from .output import colors, one_line, print_json, progress, terminal_width
from .status import Failure


@command(
    json="Print one JSON document: all that the page shows (docs/report.md).",
    examples=(
        ("vmfsm report recordings/boot-test-*.jsonl", "a page beside the first one, with all machines"),
        ("vmfsm report bundles/boot-test-20261122T005316Z-4711-1", "of what a failure has left"),
        ("vmfsm report recordings -o report.html", "of all recordings in a directory"),
        ("vmfsm report good.jsonl bad.jsonl --compare -o both.html", "two runs: which step took longer"),
        ("vmfsm report failed.jsonl --text", "in short, for terminals and logs"),
        ("vmfsm report recordings --junit junit.xml", "for CI pages: the cause, at each test"),
    ),
)
@click.argument(
    "sources", metavar="RECORDING|BUNDLE|DIRECTORY...", nargs=-1, required=True, type=click.Path()
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Where to write the page; else that is beside the first RECORDING, or in the BUNDLE or DIRECTORY.",
)
@click.option("--text", "as_text", is_flag=True, help="Print it as text: the cause first.")
@click.option(
    "--junit",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Add causes to the test cases of this JUnit XML, or make one; the page only with -o, then.",
)
@click.option("--compare", is_flag=True, help="Compare two recordings: what took how long in each.")
def report(
    sources: tuple[str, ...],
    output: str | None,
    as_text: bool,
    junit: str | None,
    compare: bool,
    as_json: bool,
) -> None:
    """Make a page that shows what happened to machines.

    It is one HTML file that needs nothing else, for any browser; its path is printed. RECORDING is a file
    that the plugin recorder has written, finished or not; BUNDLE a directory that the plugin bundle made;
    DIRECTORY one that has any number of both. All machines are on one axis of time. Text that is too long for
    the page is put beside it, whole.
    """
    from vmfsm import report as reports

    if as_text and as_json:
        raise click.UsageError("--text and --json exclude each other")
    is_printed = as_text or as_json
    path = output or (None if is_printed or junit else reports.page_of(sources[0]))
    for file in filter(None, (path, junit)):
        _check_directory(file)
    is_shown = is_printed or compare or path is not None
    with _tidy_when_ended(), progress("reading recordings"):
        data: dict[str, Any] = (
            reports.data(sources, compare=compare, page=path) if is_shown else reports.outcomes(sources)
        )
    for one in data["passed_over"]:
        click.echo(f"vmfsm report: {one_line(one['path'])} is passed over: {one_line(one['why'])}", err=True)
    if junit is not None:
        _add_to_junit(junit, data, path)
    if path is not None:
        with progress("making the page"):
            _write(path, _page(data))
    if as_json:
        print_json(data)
    elif as_text:
        _print(data)
    else:
        for written in filter(None, (path, junit)):
            click.echo(one_line(written))


def _page(data: dict[str, Any]) -> str:
    from vmfsm.report.rendering import render

    return render(data)


def _print(data: dict[str, Any]) -> None:
    from vmfsm.report.text import render

    click.echo(render(data, width=terminal_width(), colour=True), color=colors())


def _add_to_junit(path: str, data: dict[str, Any], page: str | None) -> None:
    from vmfsm.report import junit

    left = junit.add(path, data, page=page)
    if left:
        names = ", ".join(map(one_line, left[:5])) + (", ..." if len(left) > 5 else "")
        click.echo(f"vmfsm report: {one_line(path)} does not have the tests of {names}", err=True)


def _check_directory(path: str) -> None:
    """Say at once that a file can't be written, rather than when all has been read."""
    directory = os.path.dirname(path) or "."
    if not os.path.isdir(directory):
        raise Failure(f"{path}: there is no directory {directory}")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise Failure(f"{path}: nothing may be written to {directory}", hint="-o FILE writes it elsewhere")


def _write(path: str, text: str) -> None:
    from vmfsm.report import NewFile

    with _tidy_when_ended(), NewFile(path) as file:
        file.write(text)


@contextlib.contextmanager
def _tidy_when_ended() -> Iterator[None]:
    """SIGTERM, as of a CI system that cancels a job, leaves no part of a file: the block is left by it."""
    is_ours = threading.current_thread() is threading.main_thread()
    if not is_ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
