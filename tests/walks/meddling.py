"""Plugins that count how often their hooks run, and meddle with the next run of one if told to."""

import asyncio
import collections
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from vmfsm import Companion, LaunchPlan, Machine, hookimpl

HOOKS = ("pre_launch", "post_launch", "early_cleanup", "post_shutdown", "defer")
SECONDS = 0.1


class NoGood(Exception):
    """What a hook raises."""


class Meddler:
    """Plain hooks."""

    name = "meddler"

    def __init__(self, note: Callable[[str], Any]) -> None:
        self.ran: collections.Counter[str] = collections.Counter()
        self.next: dict[str, str] = {}
        """What a hook does when it runs next: `raise` or `linger`."""
        self._note = note

    def _run(self, hook: str) -> None:
        self.ran[hook] += 1
        how = self.next.pop(hook, None)
        if how is None:
            return
        trouble = self._note(f"{how} in {hook}")
        try:
            if how == "raise":
                raise NoGood(hook)
            time.sleep(SECONDS)
        finally:
            trouble.end = time.monotonic()

    @hookimpl
    def pre_launch(self, plan: LaunchPlan) -> None:
        plan.defer(lambda: self._run("defer"))
        self._run("pre_launch")

    @hookimpl
    def post_launch(self) -> None:
        self._run("post_launch")

    @hookimpl
    def early_cleanup(self) -> None:
        self._run("early_cleanup")

    @hookimpl
    def post_shutdown(self) -> None:
        self._run("post_shutdown")


class Lingerer:
    """Coroutines."""

    name = "lingerer"

    def __init__(self, note: Callable[[str], Any]) -> None:
        self.ran: collections.Counter[str] = collections.Counter()
        self.next: dict[str, str] = {}
        self._note = note

    async def _run(self, hook: str) -> None:
        self.ran[hook] += 1
        how = self.next.pop(hook, None)
        if how is None:
            return
        trouble = self._note(f"{how} in async {hook}")
        try:
            if how == "raise":
                raise NoGood(hook)
            await asyncio.sleep(SECONDS)
        finally:
            trouble.end = time.monotonic()

    @hookimpl
    async def pre_launch(self, plan: LaunchPlan) -> None:
        async def deferred() -> None:
            await self._run("defer")

        plan.defer(deferred)
        await self._run("pre_launch")

    @hookimpl
    async def post_launch(self) -> None:
        await self._run("post_launch")

    @hookimpl
    async def early_cleanup(self) -> None:
        await self._run("early_cleanup")

    @hookimpl
    async def post_shutdown(self) -> None:
        await self._run("post_shutdown")


class Companions:
    """A companion that does nothing, and can be made to end."""

    name = "companions"

    def __init__(self) -> None:
        self._companion: Companion | None = None

    @hookimpl
    def pre_launch(self, machine: Machine, plan: LaunchPlan) -> None:
        self._companion = plan.companion(["sleep", "1000"])

    def end(self) -> None:
        pid = self._companion.pid if self._companion else None
        if pid is None:
            return
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            if self._companion is not None and self._companion.pid == pid:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass
        finally:
            os.close(pidfd)
