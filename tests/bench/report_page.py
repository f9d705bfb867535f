"""The page of a report on 100 MB of recording: how long the browser takes to show it, and to draw it anew.

One is full of a console's lines, the other of QMP, each within the records of a real test that fails. "Open"
is from a fresh window until the lanes are drawn; "redraw" is a zoom or a move, until the frame after it.
"""

import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Browser
from vmfsm_plugins.recorder.lines import line_of

from tests.report import runs
from tests.report.browser import Watched, browser
from tests.report.pages import page_of
from vmfsm import Record, recording

from .measuring import Figure, Goal, Side, by_turns

ROUNDS, QUICK = 10, 2
MEGABYTES = 100
SECONDS = 600.0
"""How long the recorded test would have taken."""

_TWO_FRAMES = "requestAnimationFrame(() => requestAnimationFrame(done))"
_DRAWN = f"() => new Promise((done) => {_TWO_FRAMES})"
_REDRAW = f"""async () => {{
    const begin = performance.now();
    const steps = [() => zoomBy(2), () => pan(0.2), () => zoomBy(4), () => pan(-0.1), () => zoomBy(1 / 8)];
    for (const step of steps) {{
        step();
        await new Promise((done) => {_TWO_FRAMES});
    }}
    return (performance.now() - begin) / steps.length;
}}"""


def measure(rounds: int) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="vmfsm-bench-") as name:
        directory = Path(name)
        test = runs.hanging(directory / "test")
        pages = {}
        for what, filling in (("console", _console), ("qmp", _qmp)):
            large = _filled(test, directory / f"{what}.jsonl", filling)
            pages[what] = page_of(directory / f"{what}.html", large)
        with browser(directory / "browser") as running:
            sides = {what: _side(running, page) for what, page in pages.items()}
            samples = by_turns(rounds, **sides)
    return [
        *(
            Figure(f"open, {MEGABYTES} MB of {what}", "s", samples[what]["open"], goal=Goal("itself", 3))
            for what in pages
        ),
        *(Figure(f"redraw, {MEGABYTES} MB of {what}", "ms", samples[what]["redraw"]) for what in pages),
    ]


def _side(browser: Browser, page: Path) -> Side:
    def once() -> dict[str, float]:
        begin = time.perf_counter()
        with Watched(browser, viewport={"width": 1600, "height": 900}) as watched:
            opened = watched.open(page)
            opened.evaluate(_DRAWN)
            taken = time.perf_counter() - begin
            return {"open": taken, "redraw": float(opened.evaluate(_REDRAW))}

    return once


def _filled(test: Path, path: Path, filling: Callable[[float], list[Record]]) -> Path:
    """The recording `test` with so much more in the midst of it."""
    records = list(recording.read(str(test)).records())
    at = next(number for number, record in enumerate(records) if record.data.get("step") == "say hello")
    begin = records[at].at
    with open(path, "wb") as file:
        with open(test, "rb") as original:
            file.write(original.readline())
        file.writelines(line_of(record) for record in records[: at + 1])
        while (size := file.tell()) < MEGABYTES * 1_000_000:
            now = begin + SECONDS * size / (MEGABYTES * 1_000_000)
            file.writelines(line_of(record) for record in filling(now))
        file.writelines(line_of(record._replace(at=record.at + SECONDS)) for record in records[at + 1 :])
    return path


_numbers = itertools.count()


def _console(at: float) -> list[Record]:
    number = next(_numbers)
    lines = (f"[{number:8d}.{n}] one line of many, as they are when a guest boots\r\n" for n in range(10))
    return [Record("console", at, {"console": "console", "text": "".join(lines)})]


def _qmp(at: float) -> list[Record]:
    number = 1_000 + next(_numbers)
    told = {"command": "query-block", "id": number}
    event = {"event": "BLOCK_JOB_READY", "data": {"device": f"disk{number}", "len": number, "type": "mirror"}}
    return [
        Record("qmp-command", at, {**told, "arguments": []}),
        Record("qmp-reply", at + 0.0001, {**told, "seconds": 0.0001}),
        Record("qmp-event", at + 0.0002, event),
    ]
