"""How fast a console is drained while its text is kept, filed and recorded, when a process floods it.

From the byte that starts the flood to the end of `wait`, when all of it was taken and the machine has ended.
The floor is a loop that receives from the same process and throws away what it got.
"""

import functools
import socket
import subprocess
import sys
import time

from vmfsm import Machine

from . import flooder
from .measuring import Figure, Goal, by_turns

ROUNDS, QUICK = 15, 3
MEGABYTES = 48
LINES = {"lines of 88 bytes": 88, "lines of 10 bytes": 10, "no newline": 0}
AT_ONCE = 64 * 1024
"""Bytes that the floor receives at once."""
_READY = "ready\n"
_SIZE = MEGABYTES * 1_000_000


def measure(rounds: int) -> list[Figure]:
    figures = []
    for name, length in LINES.items():
        samples = by_turns(
            rounds, vmfsm=functools.partial(drain, length), floor=functools.partial(_receive, length)
        )
        mine, floor = samples["vmfsm"]["rate"], samples["floor"]["rate"]
        goal = Goal("itself", 100, at_least=True)
        figures.append(Figure(f"console drained, {name}", "MB/s", mine, floor, goal))
    return figures


def _flooder(length: int) -> list[str]:
    return [sys.executable, flooder.__file__, str(_SIZE), str(length)]


def drain(length: int, *block: str) -> dict[str, float]:
    """Have it done by a machine without these plugins."""
    with Machine(sys.executable, wrapper=_flooder(length), block=["qmp", "fdpass", *block]) as machine:
        machine.launch()
        machine.console.expect(_READY)
        begin = time.perf_counter()
        machine.console.send(b"g")
        machine.wait()
        seconds = time.perf_counter() - begin
        assert machine.console.mark() == len(_READY) + _SIZE, "some of it was lost"
    return {"rate": MEGABYTES / seconds}


def _receive(length: int) -> dict[str, float]:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            fd = theirs.fileno()
            process = subprocess.Popen([*_flooder(length), f"fd={fd}"], pass_fds=[fd])
        while ours.recv(len(_READY)) != _READY.encode():
            pass
        begin = time.perf_counter()
        ours.sendall(b"g")
        received = 0
        while data := ours.recv(AT_ONCE):
            received += len(data)
        process.wait()
        seconds = time.perf_counter() - begin
        assert received == _SIZE
    return {"rate": MEGABYTES / seconds}
