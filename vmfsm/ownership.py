"""Whose the processes and files of this process's launches are, so that they do not outlive it.

Each launch is marked, in the environment of its processes, and registered, before the first of them exists.
A watchdog, started with the first launch, kills and removes what is left when this process has ended. Linux
only; elsewhere launches are owned by nobody.
"""

import asyncio
import functools
import itertools
import logging
import os
import subprocess
import sys
from collections.abc import Callable

from . import proc, registry, watchdog
from .caller import Job
from .iothread import IOThread
from .perprocess import per_process
from .present import is_shown
from .process import REAP, Process
from .redaction import redact_command
from .workers import Workers

_LOGGER = logging.getLogger("vmfsm.ownership")

_ATTEMPTS = 3
"""How often a watchdog that ends is started again, in all: something kills it, or it cannot work here."""

_SERVE_AFTER = 0.02
"""Seconds."""

_NEEDED = ("LD_LIBRARY_PATH",)
"""What a watchdog has in its environment."""


class Ownership:
    """Of this process. On the I/O thread only."""

    def __init__(self) -> None:
        self._harness: proc.Identity | None = None
        self._token = os.urandom(6).hex()
        self._numbers = itertools.count(1)
        self._ledger: registry.Ledger | None = None
        self._path = ""
        self._watchdog: Process | None = None
        self._attempts = 0
        self._is_served = False

    @classmethod
    def get(cls) -> "Ownership":
        return per_process(cls)

    @property
    def descriptor(self) -> int | None:
        """The one that this process has open for the registry, for good. From any thread."""
        return None if self._ledger is None else self._ledger.descriptor

    def own(self, name: str, directory: str) -> "Owned":
        """A launch begins: whatever is made or started for it does not outlive this process from now on.

        :param directory: its private one, which is not made yet.
        """
        if self._harness is None and sys.platform == "linux":
            try:
                proc.pid_namespace()  # so that the next line is about this process
                self._harness = proc.identify(os.getpid())
            except OSError as error:  # what hinders it may be over the next time
                _LOGGER.warning(
                    "%s: not owned: %s. QEMU will outlive this process if that is killed", name, error
                )
        mark = f"{self._token}-{next(self._numbers)}"
        if self._harness is not None and not self._path:
            self._path = self._find_registry(name)
        self._watch()  # first: what is registered has somebody to remove it
        owned = Owned(mark, self._open_ledger(name))
        owned.begin(name, directory)
        if not self._is_served:
            # QEMU is starting then: no launch waits for this.
            IOThread.get().loop.call_later(_SERVE_AFTER, self.serve)
        return owned

    def serve(self) -> None:
        """Answer those who ask at the control socket from now on."""
        if self._is_served or self._ledger is None:
            return
        self._is_served = True
        if is_shown():
            from .control.server import Server

            Server.get().listen(self._ledger.socket)

    def _find_registry(self, name: str) -> str:
        try:
            return registry.directory()
        except OSError as error:
            _LOGGER.warning("%s: not registered: %s", name, error)
            return ""

    def _open_ledger(self, name: str) -> registry.Ledger | None:
        if self._ledger is None and self._harness is not None and self._path:
            try:
                self._ledger = registry.Ledger(
                    self._path, registry.Harness(*self._harness, redact_command(sys.orig_argv)), self._token
                )
            except OSError as error:
                _LOGGER.warning("%s: not registered: %s", name, error)
        return self._ledger

    def _watch(self) -> None:
        """Start the watchdog, unless it runs."""
        if self._harness is None or self._watchdog is not None or self._attempts == _ATTEMPTS:
            return
        package = os.path.dirname(os.path.abspath(__file__))
        arguments = (watchdog.PROGRAM, package, *map(str, self._harness), self._path, self._token)
        try:
            if not sys.executable or getattr(sys, "frozen", False):
                self._attempts = _ATTEMPTS
                raise OSError("there is no Python interpreter for it")
            self._watchdog = Process.spawn(
                (sys.executable, "-I", "-S", "-c", *arguments),
                executable=sys.executable,
                # An interpreter may need its libraries; a mark would be that of who launched the harness.
                env={name: os.environ[name] for name in _NEEDED if name in os.environ},
                cwd=None,
                fds=(),
                inherit_fds=False,
                output=None,
                on_exit=self._ended,
            )
            self._attempts += 1  # not before: what hinders a start may be over the next time
        except (OSError, subprocess.SubprocessError) as error:
            _LOGGER.warning("no watchdog: %s. QEMU will outlive this process if that is killed", error)

    def _ended(self, status: int | None) -> None:
        self._watchdog = None
        if self._attempts == _ATTEMPTS:
            how = "was killed" if status is None or status < 0 else f"ended with status {status}"
            _LOGGER.warning(
                "no watchdog: the last one %s. QEMU will outlive this process if that is killed", how
            )
        self._watch()


class Owned:
    """One launch. On the I/O thread only. A registry that can't be written keeps nobody from anything."""

    def __init__(self, mark: str, ledger: registry.Ledger | None) -> None:
        self.environment = {registry.MARK: mark}
        """What all its processes have."""
        self._companions: list[proc.Identity] = []
        self._mark = mark
        self._ledger = ledger

    def begin(self, name: str, directory: str) -> None:
        """It is about to be made."""
        self._tell(lambda ledger: ledger.begin(self._mark, name=name, directory=directory))

    def has_process(self, pid: int, sockets: list[str], directories: list[str]) -> None:
        """QEMU was started."""

        def tell(ledger: registry.Ledger) -> None:
            identity = proc.identify(pid)
            if identity is not None:
                ledger.update(
                    self._mark,
                    pid=pid,
                    start_time=identity.start_time,
                    sockets=sockets,
                    directories=directories,
                )

        self._tell(tell)

    def has_companion(self, pid: int) -> None:
        """A companion was started."""

        def tell(ledger: registry.Ledger) -> None:
            identity = proc.identify(pid)
            if identity is not None:
                self._companions.append(identity)
                ledger.update(self._mark, companions=self._companions)

        self._tell(tell)

    async def kill_left(self) -> None:
        """Kill what is left of its processes, wherever those have gone. Waits `REAP` seconds at most."""
        if sys.platform == "linux":
            io = IOThread.get()
            job = Job(io, self, functools.partial(registry.kill_marked, self._mark))
            Workers.get().submit(job.run)
            await asyncio.wait({job.done}, timeout=REAP)  # the workers may all be held up by hooks

    def end(self) -> None:
        """Nothing of it is left."""
        self._tell(lambda ledger: ledger.end(self._mark))

    def _tell(self, tell: Callable[[registry.Ledger], object]) -> None:
        try:
            if self._ledger is not None:
                tell(self._ledger)
        except OSError as error:  # the disk is full, say; the mark still tells whose the processes are
            _LOGGER.warning("the registry can't be written: %s", error)
