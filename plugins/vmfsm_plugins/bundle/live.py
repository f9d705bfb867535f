"""What only a living QEMU can tell, through its monitor: each piece within its share of the time."""

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from vmfsm import ConfigError, Machine, MachineDied, MachineTimeout, VMError
from vmfsm_plugins.guest_memory import DumpFailed, dump

from .contents import Contents

MOST_TEXT = 4 * 1024 * 1024
"""Characters of one answer."""
_LEAST_SHARE = 0.2
_SHARE = 0.3
"""Of the time that is left, for a piece; the guest's memory may take all of it."""
_NO_SCREEN = "no console to take a screendump from"
_SCREEN = "picture of the screen"
_MEMORY = "guest's memory"


class _Told(NamedTuple):
    """What a command tells."""

    file: str
    what: str
    command: str
    line: str | None = None
    """Of the monitor for people (HMP)."""


_ALL = (
    _Told("query-status.json", "QEMU's run state", "query-status"),
    _Told("query-cpus-fast.json", "the guest's processors", "query-cpus-fast"),
    _Told("registers.txt", "the guest's registers", "human-monitor-command", "info registers -a"),
    _Told("device-tree.txt", "QEMU's device tree", "human-monitor-command", "info qtree"),
    _Told("query-block.json", "the guest's disks", "query-block"),
    _Told("mtree.txt", "the guest's address spaces", "human-monitor-command", "info mtree"),
)
"""What is told of a machine that runs, in the order of what one would rather have."""


async def collect(machine: Machine, contents: Contents, seconds: float, *, memory: bool) -> None:
    """All of it, in `seconds`."""
    live = _Live(machine, contents, seconds)
    for told in _ALL:
        await live.have(told.what, functools.partial(live.tell, told))
    await live.have(_SCREEN, live.screendump)
    if memory:
        await live.have(_MEMORY, live.memory, share=1.0)


class _Live:
    def __init__(self, machine: Machine, contents: Contents, seconds: float) -> None:
        self._machine = machine
        self._contents = contents
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + seconds
        self._lost: str | None = None
        """Why nobody is to be asked any more."""

    async def have(self, what: str, get: Callable[[], Awaitable[object]], share: float = _SHARE) -> None:
        """Have one piece, or the reason why not."""
        if self._lost is None and self._machine.pid is None:
            self._lost = "QEMU has ended"
        left = self._until - self._loop.time()
        seconds = max(left * share, min(left, _LEAST_SHARE))
        if self._lost is None and seconds <= 0:
            self._lost = "there was no time left for it"
        if self._lost is not None:
            self._contents.lack(what, self._lost)
            return
        try:
            # Not the machine's clock: it may be held for somebody who wants to look at this very bundle.
            async with asyncio.timeout(seconds):
                await get()
        except (TimeoutError, MachineTimeout):
            why = f"not there after {seconds:.1f} s"
            if what != _MEMORY and not self._contents.hangs:
                self._lost = "QEMU's monitor does not answer"
                why = f"QEMU's monitor does not answer: {why}"
            self._contents.lack(what, why)
        except MachineDied:
            self._lost = "QEMU has ended"
            self._contents.lack(what, self._lost)
        except ConfigError as error:  # no monitor
            self._lost = str(error)
            self._contents.lack(what, self._lost)
        except (VMError, DumpFailed, OSError) as error:
            self._contents.lack(what, _of_screen(str(error)))

    async def tell(self, told: _Told) -> None:
        arguments: dict[str, object] | None = None if told.line is None else {"command-line": told.line}
        answer = await self._ask(told.command, arguments)
        if told.line is None:
            await self._contents.json(told.file, told.what, answer)
            return
        text = str(answer).replace("\r\n", "\n")
        if len(text) > MOST_TEXT:
            left_out, text = len(text) - MOST_TEXT, text[:MOST_TEXT]
            text += f"\n[{left_out} characters are left out here]\n"
        await self._contents.text(told.file, told.what, text)

    async def screendump(self) -> None:
        """By `screendump` (QMP reference): PNG, where QEMU was built with it."""
        try:
            await self._dump_screen("png")
        except (MachineDied, MachineTimeout):
            raise
        except VMError as error:
            if _NO_SCREEN in str(error):
                raise
            await self._dump_screen("ppm")

    async def memory(self) -> None:
        size = await self._ask("query-memory-size-summary")
        needed = size["base-memory"] + size.get("plugged-memory", 0)
        found = await self._contents.in_time(lambda: os.statvfs(self._contents.folder.path))
        free = found.f_bavail * found.f_frsize
        if needed > free:
            self._contents.lack(_MEMORY, f"it needs {needed} bytes, and there are {free} on that disk")
            return
        name = "guest-memory.elf"
        try:
            await dump(self._machine, os.path.join(self._contents.folder.path, name))
        except BaseException:
            self._contents.doomed.append(name)  # large, and of no use; now time may be up
            raise
        await self._adopt(name, _MEMORY)

    async def _dump_screen(self, form: str) -> None:
        name = f"screendump.{form}"
        path = os.path.join(self._contents.folder.path, name)
        await self._ask("screendump", {"filename": path, "format": form})
        await self._adopt(name, _SCREEN)

    async def _adopt(self, name: str, what: str) -> None:
        await self._contents.made(name, what, lambda: self._contents.folder.adopt(name))

    async def _ask(self, command: str, arguments: dict[str, object] | None = None) -> Any:
        return await self._machine.qmp.aio.execute(command, arguments, timeout=None)


def _of_screen(error: str) -> str:
    return "there is no graphics device" if _NO_SCREEN in error else error
