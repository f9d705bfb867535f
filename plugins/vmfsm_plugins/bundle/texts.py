"""What was recorded and printed, for a bundle: the recording, the consoles, QEMU's output."""

import json
import os
from collections.abc import Iterator

from vmfsm import ConfigError, Machine
from vmfsm_plugins.recorder.header import clocks, header_of
from vmfsm_plugins.recorder.lines import as_object, line_of

from .contents import Contents
from .folder import safe_name

RECORDING = "recording.jsonl"
_RECORDING = "recording"


async def logs(machine: Machine, contents: Contents) -> None:
    """The consoles' and QEMU's own: their files, or what of them is in memory."""
    try:
        consoles = dict(machine.consoles)
    except ConfigError:  # the plugin is blocked
        consoles = {}
    for name, console in consoles.items():
        file, what = f"console-{safe_name(name)}.log", f"console {name}"
        if not await _log(contents, console.path, file, what):
            data = console.data
            if console.lost:
                contents.lack(
                    f"the first {console.lost} bytes of {what}", "its file is gone, and with it these"
                )
            await contents.data(file, what, [data])
    try:
        log = machine.log
    except ConfigError:
        return
    if not await _log(contents, log.path, "qemu.log", "QEMU's output"):
        await contents.text("qemu.log", "QEMU's output", log.text)


async def _log(contents: Contents, path: str, name: str, what: str) -> bool:
    """Whether its file could be had."""
    if not path or not await contents.is_file(path):
        return False
    return await contents.copied(path, name, what)


async def recording(machine: Machine, contents: Contents, launch: int) -> None:
    """The recorder's files, or, where it is off, what the timeline has."""
    try:
        path: str | None = machine.plugin("recorder").path
    except (ConfigError, AttributeError):  # blocked, or somebody else's
        path = None
    if path is None or not await contents.is_file(path):
        told = "the recording (the end of the timeline: the recorder is off)"
        await contents.data(RECORDING, told, _from_timeline(machine, launch))
        return
    for number, file in enumerate(await contents.in_time(lambda: _files(path))):
        what = "the recording" if not number else f"the recording, piece {number + 1}"
        await contents.copied(file, RECORDING + file[len(path) :], what)


def _files(path: str) -> list[str]:
    """Those of one recording, as the recorder names them."""
    directory, name = os.path.split(path)
    found = (other for other in os.listdir(directory) if other.startswith(f"{name}."))
    return [path, *(os.path.join(directory, other) for other in sorted(found))]


def _from_timeline(machine: Machine, launch: int) -> Iterator[bytes]:
    records = machine.timeline
    begins = [number for number, record in enumerate(records) if record.data.get("event") == "launch"]
    header = {
        **json.loads(as_object(header_of(machine, launch))),
        "recording": _RECORDING,
        "piece": 1,
        "before": 0,
        "clocks": clocks(),
    }
    yield as_object(header).encode() + b"\n"
    for record in records[begins[-1] if begins else 0 :]:
        yield line_of(record)
