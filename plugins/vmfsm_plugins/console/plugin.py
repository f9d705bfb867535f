"""The plugin for the guest's consoles: always drained, kept within a bound and in a file."""

import asyncio
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import NoReturn

from vmfsm import ConfigError, LaunchPlan, Machine, hookimpl
from vmfsm_plugins.logs import Logs

from .api import Console
from .options import DEFAULT_BUFFER, Options, arguments, check, check_against_log
from .stream import Stream

_LINGER = 0.1
"""Seconds at the end of the machine for readers of `socket` to take what they have not taken yet."""
_SHOWN = 20
"""How many lines of a console are shown in snapshots."""


class _ByName(dict[str, Console]):
    def __missing__(self, name: object) -> NoReturn:
        raise ConfigError(f"no console {name!r} (there are: {', '.join(self)})", field="options['console']")


class Consoles:
    """The plugin: the machine's consoles, by name.

    Options of a console; for one console, which is then named "console", or by name for several,
    `{"ttyS0": {}, "hvc0": {"device": "virtconsole"}}`:

    :param device: for `-device`, with its properties if need be ("isa-debugcon,iobase=0xe9"); a serial port
        of the machine's own (`-serial`) without it. A virtio-serial bus is added for its ports.
    :param index: the number of the serial port; those below get no console unless another one takes them.
        With `device`: how many such ports are to come before it.
    :param log: the file that gets all output; by default `<machine>-<console>.log` in the machine's
        `log_dir`, or in its private directory, which is removed at the end. One that this process has
        written to already, for an earlier launch or another machine, is kept: the next is `….2.log` and so
        on. A launch whose file cannot be opened fails; one that cannot be written later is given up, with a
        warning and a record.
    :param timestamps: begin each line in that file with the time.
    :param encoding: of `text` and of what is sent.
    :param newline: what `sendline` sends after a line.
    :param buffer: how many bytes are kept in memory.
    :raises ConfigError: for what is wrong with them, and for two consoles on one serial port.
    """

    name = "console"
    before = ("*",)
    after = ("logs", "fdpass")

    def __init__(
        self,
        *,
        device: str | None = None,
        index: int = 0,
        log: "str | os.PathLike[str] | None" = None,
        timestamps: bool = False,
        encoding: str = "utf-8",
        newline: str = "\n",
        buffer: int = DEFAULT_BUFFER,
        **consoles: object,
    ) -> None:
        flat = {
            "device": device,
            "index": index,
            "log": log,
            "timestamps": timestamps,
            "encoding": encoding,
            "newline": newline,
            "buffer": buffer,
        }
        self._options = check(flat, consoles)
        self._consoles = _ByName({name: Console(name, options) for name, options in self._options.items()})
        self.consoles: Mapping[str, Console] = MappingProxyType(self._consoles)
        """In the order in which they were given. A `ConfigError` for one that is not there."""
        self._streams: list[Stream] = []

    @hookimpl
    def configured(self, machine: Machine) -> None:
        for console in self._consoles.values():
            console.configured(machine)
        try:
            log = machine.log
        except ConfigError:  # the plugin is blocked
            return
        if isinstance(log, Logs):
            check_against_log(self._options, log.given_path)

    @hookimpl
    async def pre_launch(self, plan: LaunchPlan) -> None:
        wanted: list[tuple[Options, int]] = []
        for name, console in self._consoles.items():
            stream, other = console.open(plan)
            self._streams.append(stream)
            plan.on_exit(stream.dry)
            wanted.append((self._options[name], plan.give(other)))
        plan.on_evidence(self._evidence)  # before, it would be that of the launch before
        plan.args += arguments(wanted)

    @hookimpl
    def judge(self) -> None:
        """No opinion; but what has come is for who expects it, not the verdict that was made of it."""
        for stream in self._streams:
            stream.hurry()

    @hookimpl
    async def post_shutdown(self) -> None:
        streams, self._streams = self._streams, []
        bridges: set[asyncio.Task[None]] = set()
        for stream in streams:
            stream.close()
            bridges |= stream.bridges
        if bridges:
            await asyncio.wait(bridges, timeout=_LINGER)

    @hookimpl
    def snapshot(self) -> dict[str, object]:
        return {
            name: {
                "lines": console.last_lines().splitlines()[-_SHOWN:],
                "path": console.path,
                "closed": console.closed,
            }
            for name, console in self._consoles.items()
        }

    def _evidence(self) -> dict[str, object]:
        texts = {name: console.last_lines() for name, console in self._consoles.items()}
        if len(texts) == 1:
            return {"console": next(iter(texts.values()))}
        return {"console": "".join(f"[{name}]\n{text.rstrip()}\n" for name, text in texts.items() if text)}
