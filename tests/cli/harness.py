"""Programs with machines, for the command line to look at from outside."""

import os
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import IO, Self

import pytest

from tests.cli.running import environment
from tests.waiting import until
from vmfsm import proc, registry

BEGINNING = """
import os, signal, sys, threading, time
from vmfsm import Machine, MachineTimeout, VMError, hookimpl
from vmfsm.testing import GUEST_ARGS

def idle(name, **parameters):
    return Machine("qemu-system-x86_64", ["-M", "none", "-nodefaults"], name=name, **parameters)

def guest(name, **parameters):
    return Machine("qemu-system-x86_64", GUEST_ARGS, name=name, **parameters)

def say(text="up"):
    print(text, flush=True)
"""


class Harness:
    """A program with machines, in a process of its own. It says lines; what it is told are lines, too."""

    def __init__(self, body: str, **env: str | None) -> None:
        script = BEGINNING + textwrap.dedent(body)
        self.process = subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(env),
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def hear(self, line: str = "up") -> Self:
        """Wait until it says `line`."""
        assert self._out.readline() == f"{line}\n"
        return self

    def is_silent(self, seconds: float) -> bool:
        """Whether it says nothing for so long."""
        return not select.select([self._out], [], [], seconds)[0]

    def tell(self, line: str = "") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    @property
    def _out(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def stop(self) -> None:
        """Have it stand still, SIGSTOP, and wait until it does."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def kill(self) -> None:
        """SIGKILL, and with it what it has started, of which nothing is left then."""
        self.process.kill()
        self.process.wait()
        until(lambda: not self.entries())

    def orphan(self) -> None:
        """SIGKILL, for its watchdog first: it leaves everything behind."""
        until(self._watchdogs)  # they have their names a moment later
        watchdogs = self._watchdogs()
        self.stop()
        for watchdog in watchdogs:
            watchdog.kill()
        self.process.kill()
        self.process.wait()

    def _watchdogs(self) -> list[proc.Identity]:
        living = [process.identity for process in proc.living()]
        children = [one for one in living if proc.parent(one.pid) == self.pid]
        return [child for child in children if _name(child.pid) == "vmfsm-watchdog"]

    def entries(self) -> list[registry.Entry]:
        return [entry for entry in registry.machines() if entry.harness.pid == self.pid]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()
        until(lambda: not registry.clean_up() and not self.entries())


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


MakeHarness = Callable[..., Harness]


@pytest.fixture
def harness(qemu: str) -> Iterator[MakeHarness]:
    """Runs programs with machines; nothing is left of them at the end."""
    made: list[Harness] = []

    def make(body: str, **env: str | None) -> Harness:
        made.append(Harness(body, **env))
        return made[-1]

    yield make
    for one in made:
        one.close()
