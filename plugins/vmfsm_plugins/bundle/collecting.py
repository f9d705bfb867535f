"""One bundle, from its first file to the last."""

import asyncio
import datetime
import functools
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

from vmfsm import Machine, diagnosis, recording
from vmfsm_plugins.blocking import in_thread

from . import cores, live, report, texts
from .contents import Contents, File
from .folder import Folder, make
from .readme import readme

T = TypeVar("T")

FORMAT, VERSION = "vmfsm-bundle", 1
_OF_FOLDER, _OF_LIVE, _OF_LOGS = 0.2, 0.35, 0.15
"""Shares of the time; the rest is for what is left when the machine has ended."""
_OWN = ("bundle.json", "README.txt")
_CUT = "the time of the call that ended the machine was over"
_RESERVE = 0.15
"""Of it for the last of it all: saying what is there."""


class Wanted(NamedTuple):
    """How it is to be."""

    directory: str
    timeout: float
    memory: bool
    report: bool


class Collection:
    """The making of one bundle, in up to three stages, each bounded. On the I/O thread only.

    :param why: what it is made for.
    """

    def __init__(self, machine: Machine, wanted: Wanted, why: str) -> None:
        self._machine = machine
        self._wanted = wanted
        self._why = why
        self._made = time.time()
        self._spent = 0.0
        self._contents: Contents | None = None
        self._trouble: str | None = None
        self._is_begun = self._has_logs = False
        picture = machine.snapshot()
        self._picture = picture
        launches = picture["launches"]
        self._launch = launches if isinstance(launches, int) else 1

    @property
    def path(self) -> str | None:
        """The directory, when it is there."""
        return self._contents.folder.path if self._contents else None

    @property
    def is_whole(self) -> bool:
        """It says itself what is in it."""
        files = self._contents.files if self._contents else []
        return {file.file for file in files}.issuperset(_OWN)

    @property
    def trouble(self) -> str | None:
        """Why there is none, or none that is of use."""
        return self._trouble

    async def begin(self, *, is_live: bool = True) -> None:
        """While QEMU may live: what it can tell.

        :param is_live: QEMU may have something to tell.
        """
        wanted = self._wanted
        if self._contents is None:
            await self._stage("the directory", _OF_FOLDER, self.open)
        contents = self._contents
        if contents is None:
            return
        await self._stage(
            "room for what is written last", _OF_FOLDER, lambda: contents.in_time(contents.folder.reserve)
        )
        await self._stage(
            "the snapshot", _OF_FOLDER, lambda: contents.json("snapshot.json", "the machine", self._picture)
        )
        self._is_begun = True
        seconds = wanted.timeout * _OF_LIVE
        if is_live and self._machine.pid is not None:
            await self._stage(
                "what QEMU tells",
                1.0,
                lambda: live.collect(self._machine, contents, seconds, memory=wanted.memory),
            )
        else:
            contents.lack("what only a living QEMU tells (registers, devices, the screen)", "QEMU has ended")

    async def logs(self) -> None:
        """When QEMU is gone, or is left as it is: what was printed, and where it crashed."""
        contents = self._contents
        if contents is None:
            return
        await self._stage("the logs", _OF_LOGS, lambda: texts.logs(self._machine, contents))
        self._has_logs = True
        if cores.makes_one(self._machine.exit_status):
            await self._stage("QEMU's core", _OF_LOGS, lambda: self._core(contents))

    async def finish(self) -> None:
        """When all is told: the recording, the page, and what is said of it all."""
        if not self._is_begun and self._spent < self._wanted.timeout * _OF_FOLDER:
            await self.begin(is_live=False)  # the hook that began it was out of time
        contents = self._contents
        if contents is None:
            return
        if not self._has_logs:
            await self.logs()
        left = max(self._wanted.timeout - self._spent, self._wanted.timeout * _RESERVE)
        share = left / self._wanted.timeout
        await self._stage("the recording", share * 0.3, lambda: self._history(contents))
        found = await self._stage("the cause", share * 0.3, self._diagnose)
        await self._stage("the README", share * 0.2, lambda: self._say(contents, found))
        if self._wanted.report:
            await self._report(contents, max(0.0, self._wanted.timeout - self._spent))
            await self._stage("the README", share * 0.2, lambda: self._say(contents, found))
        if contents.hangs:
            self._trouble = f"{contents.folder.path}: the file system does not answer"
        elif not self.is_whole:
            why = contents.missing[-1][1] if contents.missing else "there was no time"
            self._trouble = f"{contents.folder.path}: {why}"
            await self._stage(
                "its removal", share * 0.2, lambda: contents.in_time(contents.folder.remove_if_empty)
            )

    async def open(self) -> None:
        """Make the directory, which nothing but the caller bounds."""
        wanted, name = self._wanted, self._machine.name
        try:
            folder: Folder = await in_thread(
                lambda: make(wanted.directory, name, self._made), Folder.remove_if_empty
            )
        except (OSError, RuntimeError) as error:
            self._trouble = f"{wanted.directory}: {getattr(error, 'strerror', None) or error}"
        except asyncio.CancelledError:
            self._trouble = f"{wanted.directory}: the file system does not answer"
            raise
        else:
            self._contents = Contents(self._machine, folder)

    async def _core(self, contents: Contents) -> None:
        machine = self._machine
        begun = [record for record in machine.timeline if record.kind in {"started", "adopt"}]
        pid = begun[-1].data.get("pid") if begun else None
        at = time.time() - (time.monotonic() - begun[-1].at) if begun else 0.0
        cwd = machine.snapshot()["cwd"]
        core = await contents.in_time(
            lambda: cores.find(
                pid if isinstance(pid, int) else None, cwd if isinstance(cwd, str) else None, at
            )
        )
        if core.path is None:
            contents.lack("QEMU's core", core.why)
        elif not await contents.copied(core.path, "core", "QEMU's core"):
            contents.lack("QEMU's core here", f"it is at {core.path}")

    async def _history(self, contents: Contents) -> None:
        for name in contents.doomed:
            await contents.in_time(functools.partial(contents.folder.remove, name))
        await texts.recording(self._machine, contents, self._launch)

    async def _diagnose(self) -> diagnosis.Diagnosis:
        assert self.path is not None
        path = f"{self.path}/{texts.RECORDING}"
        return await in_thread(lambda: diagnosis.diagnose(recording.read(path)))

    async def _report(self, contents: Contents, seconds: float) -> None:
        what = "the report"
        if not report.can_be_made():
            contents.lack(what, "it takes: pip install 'path/to/vmfsm[cli]'")
            return
        if contents.hangs:
            return
        path, begin = contents.folder.path, asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(seconds):
                size = await in_thread(lambda: report.make(path, seconds * (1 - _RESERVE)))
        except TimeoutError:
            contents.lack(what, f"it was not made within {seconds:.1f} s")
        except (report.ReportFailed, RuntimeError) as error:
            contents.lack(what, str(error))
        else:
            contents.files.append(File(report.NAME, "all of it on one page, for a browser", size))
        finally:
            self._spent += asyncio.get_running_loop().time() - begin

    async def _say(self, contents: Contents, found: diagnosis.Diagnosis | None) -> None:
        await contents.in_time(contents.folder.release)
        told = [file for file in contents.files if file.file not in _OWN]
        await contents.text(
            "README.txt",
            "this",
            readme(
                machine=self._machine.name,
                test=self._test,
                when=self._when,
                why=self._why,
                diagnosis=found,
                files=told,
                missing=contents.missing,
                binary=self._machine.command[0],
            ),
        )
        await contents.json(
            "bundle.json",
            "what is here, for programs",
            {
                "format": FORMAT,
                "version": VERSION,
                "name": self._machine.name,
                "made": self._when,
                "why": self._why,
                "seconds": round(self._spent, 3),
                "files": [file._asdict() for file in contents.files if file.file != _OWN[0]],
                "missing": [{"what": what, "why": why} for what, why in contents.missing],
            },
        )

    @property
    def _test(self) -> str | None:
        harness = self._picture["harness"]
        test = harness.get("test") if isinstance(harness, dict) else None
        return str(test) if test else None

    @property
    def _when(self) -> str:
        return datetime.datetime.fromtimestamp(self._made, datetime.UTC).isoformat(timespec="seconds")

    # -- stages ---------------------------------------------------------------------------------------------

    async def _stage(self, what: str, share: float, work: Callable[[], Awaitable[T]]) -> T | None:
        """Do a piece of work within a share of the time; `None` where that was too short, or it failed."""
        seconds = self._wanted.timeout * share
        begin = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(seconds):
                value = await work()
        except asyncio.CancelledError:
            self._lack(what, _CUT)
            raise
        except TimeoutError:
            self._lack(what, f"not done after {seconds:.1f} s")
            return None
        except Exception as error:  # noqa: BLE001 - whatever it is, it may not hide what the bundle is made for
            self._lack(what, str(error) or type(error).__name__)
            return None
        finally:
            self._spent += asyncio.get_running_loop().time() - begin
        if self._contents is not None:  # it may have been begun before
            self._contents.missing[:] = [one for one in self._contents.missing if one != (what, _CUT)]
        return value

    def _lack(self, what: str, why: str) -> None:
        if self._contents is not None:
            self._contents.lack(what, why)
