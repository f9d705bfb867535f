"""The guest's memory in a file, by the monitor: for verdicts and for bundles."""

import asyncio
from collections.abc import Mapping
from typing import Any

from vmfsm import Machine


class DumpFailed(Exception):
    """QEMU could not write it."""


async def dump(machine: Machine, path: str) -> None:
    """Have QEMU write it to a file, by `dump-guest-memory` (QMP reference), detached: the monitor goes on.

    On the I/O thread. QEMU stops the guest for it, and has it go on afterwards if it ran; it makes the file
    read-only. Nothing but the caller bounds it; what is in the file when that gives up is not whole.

    :raises DumpFailed: in QEMU's words.
    :raises VMError: when there is no monitor, QEMU refuses, or ends.
    """
    completed: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()

    def hear(event: Mapping[str, Any]) -> None:
        if event["event"] == "DUMP_COMPLETED" and not completed.done():
            completed.set_result(event.get("data", {}))

    arguments = {"paging": False, "protocol": f"file:{path}", "detach": True}
    unsubscribe = machine.qmp.subscribe(hear)
    try:
        await machine.qmp.aio.execute("dump-guest-memory", arguments, timeout=None)
        data = await completed
    finally:
        unsubscribe()
    if data.get("result", {}).get("status") != "completed":
        raise DumpFailed(str(data.get("error", "QEMU failed")))
