"""What QEMU does by itself: its command line, its commands, its ends."""

from __future__ import annotations

import os
import sys

from .arguments import Refused, parse
from .channel import Channel
from .loop import Loop
from .maker import Maker
from .monitor import Monitor, event, greeting, refusal
from .orders import Here, perform, print_out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .loop import Task
    from .orders import Order

    Behaviour = dict[str, Any]
    """What `FakeQEMU` was told: points and their orders, and a few settings."""


class QEMU:
    """A QEMU without a machine in it.

    :raises Refused: by the constructor: the arguments are such that QEMU would not start.
    """

    def __init__(self, args: list[str], behaviour: Behaviour, maker: Maker) -> None:
        self.maker = maker
        self.loop = Loop(self._take_signal)
        self.releases = 0
        """How often what was held was released."""
        self.monitors: list[Monitor] = []
        self.consoles: list[Channel] = []
        self._behaviour = behaviour
        self._on: dict[str, list[Order]] = behaviour["on"]
        self._status = "prelaunch" if "-S" in args else "running"
        self._was_ready = False
        monitors, consoles = parse(args)
        for chardev in monitors:
            self._add_monitor(Channel(chardev))
        for chardev in consoles:
            self._add_console(Channel(chardev))
        self.loop.channels += [*(monitor.channel for monitor in self.monitors), *self.consoles]

    def main(self) -> None:
        """From the start to the end of the process."""
        self.loop.spawn(self.maker.watch())
        self.loop.spawn(self._start())
        self.loop.run()

    def _start(self) -> Task:
        # What QEMU does by itself at the start comes after all that is ordered for it.
        yield from perform(self, self._behaviour["start"], Here())
        yield lambda: not any(channel.is_awaited for channel in self.loop.channels)
        for channel in self.loop.channels:
            channel.begun = True
        for monitor in self.monitors:
            if monitor.channel.connected:
                self._greet(monitor)
        if not self.monitors:
            self._become_ready()

    def emit(self, name: str, data: str = "") -> None:
        """Send an event to every monitor that is past its negotiation."""
        for monitor in self.monitors:
            if monitor.negotiated:
                monitor.channel.write(event(name, data))

    def shut_down(self, reason: str, status: int = 0) -> None:
        """End, as QEMU does: `ShutdownCause` of the QMP reference."""
        import json

        by_guest = reason.startswith("guest")
        self.emit("SHUTDOWN", json.dumps({"guest": by_guest, "reason": reason}))
        self._end(status)

    def _end(self, status: int) -> None:
        for channel in self.loop.channels:
            channel.remove()
        os._exit(status)

    # -- points ---------------------------------------------------------------------------------------------

    def _add_monitor(self, channel: Channel) -> None:
        monitor = Monitor(channel, self._take_command)
        channel.on_connect = lambda: self._greet(monitor)
        self.monitors.append(monitor)

    def _add_console(self, channel: Channel) -> None:
        lines = self._behaviour["lines"]
        channel.reads = self._behaviour["reads_console"]
        rest = b""

        def receive(data: bytes) -> None:
            nonlocal rest
            *whole, rest = (rest + data.replace(b"\r", b"\n")).split(b"\n")
            for line in whole:
                orders = lines.get(line.decode(errors="replace").strip(), ())
                self.loop.spawn(perform(self, orders, Here(console=channel)))

        if lines:
            channel.on_data = receive
        self.consoles.append(channel)

    def _greet(self, monitor: Monitor) -> None:
        monitor.begin()
        here = Here(monitor)
        here.as_qemu = lambda: here.write(greeting(self._behaviour["version"]))
        self.loop.spawn(perform(self, self._behaviour["greeting"], here))

    def _become_ready(self) -> None:
        if not self._was_ready:
            self._was_ready = True
            self.loop.spawn(perform(self, self._behaviour["ready"], Here()))

    def _take_signal(self, number: int) -> None:
        def end() -> None:
            _complain(f"terminating on signal {number}")
            self.shut_down("host-signal")

        here = Here()
        here.as_qemu = end
        self.loop.spawn(perform(self, self._behaviour["sigterm"], here))

    def _take_command(self, monitor: Monitor, command: str, number: Any) -> None:
        orders = self._on.get(command, (("as_qemu",),))
        here = Here(monitor, number)
        if command == "qmp_capabilities" and not monitor.negotiated:
            here.as_qemu = lambda: here.reply('"return": {}')
            here.on_reply = lambda: self._end_negotiation(monitor)
        else:
            here.as_qemu = lambda: self._execute(here, command)
        self.loop.spawn(perform(self, orders, here))

    def _end_negotiation(self, monitor: Monitor) -> None:
        monitor.negotiated = True
        self._become_ready()

    # -- commands -------------------------------------------------------------------------------------------

    def _execute(self, here: Here, command: str) -> None:
        if command == "qmp_capabilities":
            description = "Capabilities negotiation is already complete, command ignored"
            here.reply(refusal(description, "CommandNotFound"))
        elif command in _COMMANDS:
            value = _COMMANDS[command](self)
            here.reply(f'"return": {value}')
            if command == "quit":
                self._end(0)
        else:
            here.reply(refusal(f"The command {command} has not been found", "CommandNotFound"))

    def query_status(self) -> str:
        running = "true" if self._status == "running" else "false"
        return f'{{"status": "{self._status}", "running": {running}}}'

    def query_version(self) -> str:
        major, minor, micro = self._behaviour["version"]
        return f'{{"qemu": {{"micro": {micro}, "minor": {minor}, "major": {major}}}, "package": "fake"}}'

    def query_commands(self) -> str:
        import json

        return json.dumps([{"name": name} for name in sorted({"qmp_capabilities", *_COMMANDS, *self._on})])

    def stop(self) -> str:
        if self._status == "running":
            self._status = "paused"
            self.emit("STOP")
        return "{}"

    def cont(self) -> str:
        if self._status != "running":
            self._status = "running"
            self.emit("RESUME")
        return "{}"

    def power_down(self) -> str:
        self.emit("POWERDOWN")
        return "{}"

    def reset(self) -> str:
        if self._status != "running":
            self._status = "prelaunch"
        self.emit("RESET", '{"guest": false, "reason": "host-qmp-system-reset"}')
        return "{}"

    def quit(self) -> str:
        self.emit("SHUTDOWN", '{"guest": false, "reason": "host-qmp-quit"}')
        return "{}"


_COMMANDS: dict[str, Callable[[QEMU], str]] = {
    "cont": QEMU.cont,
    "query-commands": QEMU.query_commands,
    "query-status": QEMU.query_status,
    "query-version": QEMU.query_version,
    "quit": QEMU.quit,
    "stop": QEMU.stop,
    "system_powerdown": QEMU.power_down,
    "system_reset": QEMU.reset,
}
"""Each makes its events and returns the JSON of its reply, which QEMU sends after them."""


def main() -> None:
    """Run as `BEHAVIOUR ARGUMENT...`: the file that says what to do, and QEMU's arguments."""
    import marshal

    with open(sys.argv[1], "rb") as file:
        behaviour = marshal.load(file)
    maker = Maker(f"{os.path.dirname(sys.argv[1])}/maker", behaviour["patience"])
    args = sys.argv[2:]
    if "-version" in args or "--version" in args:
        version = ".".join(map(str, behaviour["version"]))
        os.write(1, f"QEMU emulator version {version} (fake)\n".encode())
        return
    try:
        qemu = QEMU(args, behaviour, maker)
    except Refused as refused:
        _complain(str(refused))
        os._exit(1)
    qemu.main()


def _complain(text: str) -> None:
    print_out(2, f"qemu-system-fake: {text}\n".encode(errors="surrogateescape"))
