"""The plugin: a bundle for each launch that has failed, and for who asks for one."""

import asyncio
import contextlib
import functools
import os

from vmfsm import Machine, hookimpl, looking_on, printable
from vmfsm_plugins.blocking import in_thread

from .collecting import Collection, Wanted
from .folder import prepare
from .options import TIMEOUT, check_directory, check_flag, check_timeout

_PATIENCE = 2.0
"""Seconds that a launch waits for the file system of the directory."""
_TO_SAY = 0.5
"""Seconds that stderr may take."""
_SHARE = 0.8
"""Of the time that a caller gives, for what is made of it."""


class Bundles:
    """All that can be had of a machine, in a directory: `Machine.bundle` makes one on request.

    With a directory there is one for each launch that has failed (`Machine.failure`), made when it ends.

    :param directory: where they go; made where it is missing. Without it the one that the environment names
        in `VMFSM_BUNDLE`; where that names none there are none but on request.
    :param memory: with the guest's memory, which is as large as that.
    :param timeout: seconds that one may take, in all.
    :param report: with a page for a browser, where the extra `cli` is installed.
    :raises ConfigError: for what is wrong with any of these.
    """

    name = "bundle"
    after = ("*",)  # so that the clean-up of all others comes later
    looks_on = True

    def __init__(
        self,
        *,
        directory: "str | os.PathLike[str] | None" = None,
        memory: bool = False,
        timeout: float = TIMEOUT,
        report: bool = True,
    ) -> None:
        self._directory = check_directory(directory)
        self._memory = check_flag(memory, "options['bundle']['memory']")
        self._timeout = check_timeout(timeout)
        self._report = check_flag(report, "options['bundle']['report']")
        self.enabled = self._directory is not None  # else there is something to do on request only
        self._path: str | None = None
        self._is_prepared = False
        self._collection: Collection | None = None
        self._is_done = False
        self._one_at_a_time = asyncio.Lock()

    @property
    def path(self) -> str | None:
        """The bundle of the last launch, if that has failed, and there is one."""
        return self._path

    async def make(
        self,
        machine: Machine,
        directory: "str | os.PathLike[str] | None" = None,
        *,
        memory: bool = False,
        timeout: float = TIMEOUT,
    ) -> str:
        """See `Machine.bundle`. On the I/O thread only."""
        where = check_directory(directory, "directory") or self._directory or os.getcwd()
        wanted = Wanted(
            where,
            check_timeout(timeout, "timeout") * _SHARE,
            check_flag(memory, "memory") or self._memory,
            self._report,
        )
        collection = Collection(machine, wanted, machine.failure or "it was asked for")
        await collection.open()
        if collection.path is not None:
            await collection.begin()
            await collection.finish()
        if collection.path is None or collection.trouble is not None:
            raise OSError(f"no bundle could be made: {collection.trouble}")
        return collection.path

    @hookimpl
    async def pre_launch(self) -> None:
        if not self._is_prepared and self._directory is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    await in_thread(functools.partial(_prepare, self._directory))
                    self._is_prepared = True

    @hookimpl
    async def early_cleanup(self, machine: Machine) -> None:
        self._collection, self._is_done, self._path = None, False, None
        if machine.failure is not None:
            await self._begin(machine)

    @hookimpl
    async def post_shutdown(self, machine: Machine) -> None:
        if machine.failure is not None:
            collection = self._collection or await self._begin(machine)
            await collection.logs()

    @hookimpl
    async def launch_ended(self, machine: Machine) -> None:
        async with self._one_at_a_time:
            if machine.failure is None or self._is_done:
                return
            collection = self._collection or await self._begin(machine)
            try:
                await collection.finish()
            finally:  # also where the time is over
                is_last = self._collection is collection  # else another thread has launched it again
                if is_last:
                    self._collection, self._is_done = None, True
                if collection.path is None or collection.trouble is not None:
                    text = f"no bundle could be made: {collection.trouble}"
                else:
                    if is_last:
                        self._path = collection.path
                    cut = "" if collection.is_whole else " (not whole: there was no time)"
                    text = f"bundle: {collection.path}{cut}"
                await _say(printable(f"vmfsm: {machine.name}: {text}".replace("\n", " ")))

    async def _begin(self, machine: Machine) -> Collection:
        assert self._directory is not None
        wanted = Wanted(self._directory, self._timeout, self._memory, self._report)
        self._collection = Collection(machine, wanted, machine.failure or "")
        with looking_on(self.name):
            await self._collection.begin()
        return self._collection


def _prepare(directory: str) -> None:
    """:raises OSError: where no bundle can be made there."""
    try:
        prepare(directory)
    except OSError as error:
        whose = "option 'directory' of plugin 'bundle', or VMFSM_BUNDLE"
        raise OSError(error.errno, f"{whose}: {error.strerror}", directory) from error


async def _say(text: str) -> None:
    """On stderr, which may be a pipe that nobody reads."""
    with contextlib.suppress(TimeoutError, OSError, RuntimeError):
        async with asyncio.timeout(_TO_SAY):
            await in_thread(lambda: os.write(2, f"{text}\n".encode(errors="backslashreplace")))
