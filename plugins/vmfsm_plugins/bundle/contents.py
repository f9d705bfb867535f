"""What a bundle has and what it lacks, and doing the one or the other within a bound."""

import asyncio
import json
import os
import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from vmfsm import Machine, jsonable, printable
from vmfsm_plugins.blocking import in_thread

from .folder import Folder

T = TypeVar("T")

_NO_ANSWER = "the file system of the bundle does not answer"


class File(NamedTuple):
    """One that is there."""

    file: str
    what: str
    bytes: int


class Contents:
    """The files of one bundle. On the I/O thread only, which never waits for a disk.

    :param machine: its secrets are in none of the texts.
    """

    def __init__(self, machine: Machine, folder: Folder) -> None:
        self.folder = folder
        self.files: list[File] = []
        self.missing: list[tuple[str, str]] = []
        """What could not be had, and why."""
        self.doomed: list[str] = []
        """Names of files that are not whole, and to be removed."""
        self._late: threading.Event | None = None
        """Set when what nobody waits for any more is over after all."""
        self._machine = machine

    @property
    def hangs(self) -> bool:
        """The file system does: nobody waits for it any more."""
        return self._late is not None and not self._late.is_set()

    def lack(self, what: str, why: str) -> None:
        """It could not be had."""
        self.missing.append((what, printable(self._machine.secrets.redact(why)).strip()))

    async def text(self, name: str, what: str, text: str) -> bool:
        """Have it as a file, without the machine's secrets; whether it is there."""
        redacted = self._machine.secrets.redact(text)
        return await self.data(name, what, [redacted.encode("utf-8", "backslashreplace")])

    async def json(self, name: str, what: str, value: object) -> bool:
        """The same of what JSON can have."""
        redacted = self._machine.secrets.redact_all({"": jsonable(value)})[""]
        return await self.data(name, what, [json.dumps(redacted, indent=1).encode() + b"\n"])

    async def data(self, name: str, what: str, pieces: Iterable[bytes]) -> bool:
        """The same of bytes."""
        return await self.made(name, what, lambda: self.folder.write(name, pieces))

    async def copied(self, source: str, name: str, what: str) -> bool:
        """The same of a file."""
        left_out = 0

        def copy() -> int:
            nonlocal left_out
            done = self.folder.copy(source, name)
            left_out = done.left_out
            return done.bytes

        is_there = await self.made(name, what, copy)
        if left_out:
            self.lack(f"{left_out} bytes in the middle of {name}", "it is too long")
        return is_there

    async def made(self, name: str, what: str, make: Callable[[], int]) -> bool:
        """The same of what `make` makes, in a thread; it returns the size."""
        try:
            size = await self.in_time(make)
        except OSError as error:
            self.lack(what, f"{name}: {error.strerror or error}")
            return False
        self.files = [file for file in self.files if file.file != name]
        self.files.append(File(name, what, size))
        return True

    async def is_file(self, path: str) -> bool:
        """Whether there is an ordinary file.

        :raises OSError: as of `in_time`.
        """
        return await self.in_time(lambda: os.path.isfile(path))

    async def in_time(self, function: Callable[[], T]) -> T:
        """Call `function` in a thread.

        :raises OSError: as it does, and where the file system hangs.
        """
        if self.hangs:
            raise OSError(0, _NO_ANSWER)
        over = threading.Event()

        def call() -> T:
            try:
                return function()
            finally:
                over.set()

        try:
            return await in_thread(call)
        except asyncio.CancelledError:  # its time is up
            self._late = over
            raise
        except RuntimeError as error:  # no thread can be had
            raise OSError(0, str(error)) from error
