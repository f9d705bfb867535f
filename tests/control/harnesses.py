"""Programs with machines, in processes of their own, that tests ask through their control sockets."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from typing import Self

from tests.waiting import LIMIT, until
from vmfsm import control, registry

# A machine with the tiny guest; "up" is said when that is. `wait()` returns when the test lets it go on.
BEGINNING = """
import gc, os, pdb, signal, sys, threading, time, weakref
from vmfsm import Machine
from vmfsm.testing import GUEST_ARGS

def machine(name="guest", **more):
    return Machine("qemu-system-x86_64", more.pop("args", GUEST_ARGS), name=name, **more)

def say(what):
    os.write(1, what.encode() + b"\\n")

def wait():
    assert sys.stdin.readline()
"""
RUNNING = """
vm = machine()
with vm:
    vm.launch()
    vm.console.expect("ready")
    say("up")
"""


class Program:
    """A harness that runs `BEGINNING` and `body`."""

    def __init__(self, body: str, env: "dict[str, str] | None" = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", BEGINNING + body],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def said(self, expected: str = "up") -> Self:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode().strip()
        if line != expected:
            self.process.kill()
            raise AssertionError(f"{line!r}: {self.process.communicate()[1].decode()}")
        return self

    def go_on(self, line: str = "") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def find(self, name: str = "guest") -> control.Client:
        return control.find(f"{self.pid}/{name}", timeout=LIMIT)

    @property
    def socket(self) -> str:
        (harness,) = [harness for harness in control.harnesses() if harness.pid == self.pid]
        return harness.path

    def end(self) -> tuple[int, str]:
        """Let it end; its status, and what it wrote to stderr."""
        with contextlib.suppress(BrokenPipeError):
            _, said = self.process.communicate(timeout=LIMIT)
        return self.process.returncode, said.decode()

    def discard(self) -> None:
        """Whatever it does."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)
        self.process.kill()
        self.process.communicate()
        # Its watchdog has buried it: before, the registry must not go.
        until(lambda: not any(f"_{self.pid}_" in name for name in os.listdir(registry.directory())))


def doing(body: str) -> str:
    """A harness that does `body` while its machine runs."""
    return RUNNING + textwrap.indent(textwrap.dedent(body), "    ")


@contextlib.contextmanager
def program(body: str, env: "dict[str, str] | None" = None) -> Iterator[Program]:
    ran = Program(body, env)
    try:
        yield ran
    finally:
        ran.discard()


def seconds(since: float) -> float:
    return time.monotonic() - since
