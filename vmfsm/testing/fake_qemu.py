"""A process to be run in QEMU's place, that does what QEMU does, and misbehaves where it is told to."""

import contextlib
import marshal
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from vmfsm.deadline import Deadline
from vmfsm.errors import ConfigError, MachineTimeout, TransitionError

from . import actions
from .actions import Action

_NAME: Final = "qemu-system-fake"
_RUN = "import sys; sys.path.append(sys.argv.pop(1)); from fake_qemu_process.qemu import main; main()"
_REAPING: Final = 10.0
"""Seconds until processes that were sent SIGKILL are given up: the kernel may hold them."""
_OUTLIVES = 60.0
"""Seconds until what outlives the process that made it ends by itself."""
_LIKE_QEMU: Final = (actions.as_qemu(),)

Actions = Iterable[Action]


class FakeQEMU:
    """A program that takes QEMU's arguments and speaks QMP and serial, and does what it is told at points.

        with FakeQEMU(on={"quit": []}) as fake, Machine(fake.binary) as vm:
            ...

    What is not told otherwise is as of QEMU. Any number of machines may run it, one after the other and at
    once. For what can be done at a point: `vmfsm.testing.actions`.

    :param start: before it does anything at all.
    :param greeting: when somebody has connected to a monitor, each time.
    :param ready: when the first negotiation is over, once; where it has no monitor, after `start`.
    :param on: by command, when that comes; also commands that QEMU does not have.
    :param sigterm: when SIGTERM, SIGINT or SIGHUP comes.
    :param lines: by line, when that comes on a console (without the white space around it).
    :param reads_console: `False`: never read from the consoles.
    :param version: QEMU's, in the greeting.
    :raises ConfigError: for what is wrong with any of these; nothing is started or made then.

    The program exists, in a private directory, inside of the `with` block. Its end kills what is left of
    its processes, and raises `MachineTimeout` where that takes more than 10 seconds. Where the end does not
    come, since this process is killed, they end by themselves about a minute later, and remove the program.
    """

    def __init__(
        self,
        *,
        start: Actions = (),
        greeting: Actions = _LIKE_QEMU,
        ready: Actions = (),
        on: Mapping[str, Actions] | None = None,
        sigterm: Actions = _LIKE_QEMU,
        lines: Mapping[str, Actions] | None = None,
        reads_console: bool = True,
        version: tuple[int, int, int] = (9, 8, 7),
    ) -> None:
        if not isinstance(reads_console, bool):
            raise ConfigError(f"reads_console must be a bool, not {reads_console!r}", field="reads_console")
        self._behaviour = {
            "start": _encode("start", start),
            "greeting": _encode("greeting", greeting),
            "ready": _encode("ready", ready),
            "on": _encode_each("on", {} if on is None else on),
            "sigterm": _encode("sigterm", sigterm),
            "lines": _encode_each("lines", _check_lines({} if lines is None else lines)),
            "reads_console": reads_console,
            "version": _check_version(version),
            "patience": _OUTLIVES,
        }
        self._directory: str | None = None
        self._fifo: int | None = None
        """Open for writing as long as the program is in use: by that its processes know."""
        self._use = threading.Lock()

    def __enter__(self) -> Self:
        if not self._use.acquire(blocking=False):
            raise TransitionError("this FakeQEMU is in use already: make another one", event="enter")
        try:
            self._directory = tempfile.mkdtemp(prefix="vmfsm-fake-")
            self._write()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._kill()
        finally:
            self._remove()

    @property
    def binary(self) -> str:
        """The path of the program.

        :raises TransitionError: outside of the `with` block.
        """
        if self._directory is None:
            raise TransitionError("this FakeQEMU is not there: use it in a with statement", event="binary")
        return os.path.join(self._directory, _NAME)

    @property
    def pids(self) -> frozenset[int]:
        """The processes of it that live: what runs as QEMU, and what that has forked (proc(5)).

        :raises TransitionError: outside of the `with` block.
        """
        behaviour, binary = os.fsencode(self._behaviour_file), os.fsencode(self.binary)
        found = set()
        for name in filter(str.isdecimal, os.listdir("/proc")):
            with contextlib.suppress(OSError):  # it is gone meanwhile, or somebody else's
                words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")  # nothing for a zombie
                if behaviour in words or words[1:2] == [binary]:  # the latter before the shell's exec
                    found.add(int(name))
        return frozenset(found)

    @property
    def _behaviour_file(self) -> str:
        return os.path.join(os.path.dirname(self.binary), "behaviour")

    def _write(self) -> None:
        fifo = os.path.join(os.path.dirname(self.binary), "maker")
        os.mkfifo(fifo, 0o600)
        self._fifo = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
        with open(self._behaviour_file, "wb") as behaviour:
            marshal.dump(self._behaviour, behaviour)
        # A shell script, since what stands behind #! must be short and without spaces.
        run = [sys.executable, "-I", "-S", "-c", _RUN, str(Path(__file__).parent), self._behaviour_file]
        # Written by another process: what this one has open for writing, the children that other threads
        # start have open, too, for a moment, and then it cannot be executed (execve(2), ETXTBSY).
        text = f'#!/bin/sh\nexec {shlex.join(run)} "$@"\n'
        write = 'printf %s "$2" > "$1"'  # nothing that PATH would have to have
        subprocess.run(
            ["/bin/sh", "-c", write, "sh", self.binary, text], check=True, stdin=subprocess.DEVNULL
        )
        os.chmod(self.binary, 0o700)

    def _remove(self) -> None:
        directory, self._directory = self._directory, None
        fifo, self._fifo = self._fifo, None
        try:
            if fifo is not None:
                os.close(fifo)
            if directory is not None:
                shutil.rmtree(directory)
        finally:
            self._use.release()

    def _kill(self) -> None:
        """All that is left, and what that starts meanwhile.

        :raises MachineTimeout: when the kernel does not let go of it; it was sent SIGKILL even so.
        """
        deadline = Deadline(_REAPING)
        while pids := self.pids:
            if deadline.expired:
                raise MachineTimeout(f"{self.binary}: processes {sorted(pids)} do not end by SIGKILL")
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    pidfd = os.pidfd_open(pid)
                    try:
                        if pid in self.pids:  # asked only now: the descriptor holds on to whoever has the pid
                            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                            ended = select.poll()
                            ended.register(pidfd, select.POLLIN)
                            ended.poll(1000 * (deadline.remaining() or 0))
                    finally:
                        os.close(pidfd)


def _encode(point: str, given: Actions) -> list[tuple[object, ...]]:
    """A list of actions as the process wants it.

    :raises ConfigError: naming the point.
    """
    listed = list(given) if isinstance(given, Iterable) and not isinstance(given, Action) else [None]
    encoded: list[tuple[object, ...]] = []
    for action in listed:
        if not isinstance(action, Action):
            raise ConfigError(
                f"{point} must be a list of actions, of vmfsm.testing.actions, not {given!r}", field=point
            )
        if action.name in actions.ONLY_AT_COMMANDS and not point.startswith("on["):
            raise ConfigError(f"{point}: there is no command to answer", field=point)
        encoded.append((action.name, *action.values))
    return encoded


def _encode_each(point: str, given: Mapping[str, Actions]) -> dict[str, list[tuple[object, ...]]]:
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise ConfigError(f"{point} must be a mapping of str to lists of actions, not {given!r}", field=point)
    return {key: _encode(f"{point}[{key!r}]", value) for key, value in given.items()}


def _check_lines(lines: Mapping[str, Actions]) -> Mapping[str, Actions]:
    """:raises ConfigError: for a line that never comes, as white space around it is not looked at."""
    for line in lines if isinstance(lines, Mapping) else ():
        if isinstance(line, str) and (line != line.strip() or "\n" in line or "\r" in line):
            raise ConfigError(f"lines: {line!r} is no line without white space around it", field="lines")
    return lines


def _check_version(version: object) -> tuple[int, int, int]:
    match version:
        case (int(major), int(minor), int(micro)) if min(major, minor, micro) >= 0:
            return int(major), int(minor), int(micro)
    raise ConfigError(f"version must be three numbers, not {version!r}", field="version")
