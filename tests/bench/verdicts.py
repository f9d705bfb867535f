"""How fast a stream is searched for verdicts, and what that makes of the rate at which a console is drained.

The engine alone is fed what a console would be, by chunks of 64 KiB; its floor copies the chunks. The console
is that of the benchmark `console`, with the plugin; its floor is the same without.
"""

import functools
import time

from vmfsm_plugins.streams.drain import MOST
from vmfsm_plugins.verdicts.patterns import Pattern
from vmfsm_plugins.verdicts.rules import CONSOLE, RULES
from vmfsm_plugins.verdicts.scanner import Scanner

from . import console
from .measuring import Figure, Goal, by_turns

ROUNDS, QUICK = 15, 3
_CHUNKS = 256
_PATTERNS = tuple(
    Pattern.compile(text) for rule in RULES.values() if CONSOLE in rule.sources for text in rule.patterns
)
_TEXTS = {
    "lines of 88 bytes": b"x" * 87 + b"\n",
    "a kernel's messages": b"[    0.512345] pci 0000:00:01.1: reg 0x20: [io  0xc000-0xc00f], BAR 4\r\n",
    "all printable bytes": bytes(range(32, 127)) + b"\n",
    "colours": b"[\x1b[0;32m  OK  \x1b[0m] Reached target Local File Systems.\r\n",
    "nothing but panics": b"Kernel panic - not syncing: once more\n",
    "the worst there is": b"Oops\n#",
}


def measure(rounds: int) -> list[Figure]:
    figures = []
    for name, line in _TEXTS.items():
        chunk = (line * (MOST // len(line) + 1))[:MOST]
        scan = functools.partial(
            _scan, chunk, _CHUNKS if rounds > QUICK and name != "the worst there is" else 8
        )
        samples = by_turns(rounds, vmfsm=scan)
        figures.append(Figure(f"searched, {name}", "MB/s", samples["vmfsm"]["rate"]))
    for name, length in console.LINES.items():
        samples = by_turns(
            rounds,
            vmfsm=functools.partial(console.drain, length),
            floor=functools.partial(console.drain, length, "verdicts"),
        )
        mine, floor = samples["vmfsm"]["rate"], samples["floor"]["rate"]
        goal = Goal("itself", 100, at_least=True)
        figures.append(Figure(f"console watched, {name}", "MB/s", mine, floor, goal))
    return figures


def _scan(chunk: bytes, times: int) -> dict[str, float]:
    scanner = Scanner(_PATTERNS, most=200)
    begin = time.perf_counter()
    for _ in range(times):
        scanner.feed(chunk)
    return {"rate": times * len(chunk) / 1e6 / (time.perf_counter() - begin)}
