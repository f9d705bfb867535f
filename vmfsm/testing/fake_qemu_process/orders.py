"""Performing what was ordered: `vmfsm.testing.actions` has what each means."""

from __future__ import annotations

import os
import select
import signal
import time

from .monitor import NO_ID, Monitor, event, reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from .channel import Channel
    from .loop import Task
    from .qemu import QEMU

    Order = tuple[Any, ...]
    """The name of an action and its values."""

_CHUNK = 65536


class Here:
    """The point at which orders are performed.

    :param monitor: whose point it is. What is for its client is for the one that is there now, not for the
        next one.
    :param number: the id of the command.
    """

    def __init__(
        self, monitor: Monitor | None = None, number: Any = NO_ID, console: Channel | None = None
    ) -> None:
        self.as_qemu: Callable[[], object] = lambda: None
        """What QEMU does here."""
        self.on_reply: Callable[[], object] = lambda: None
        """Called after what is, or may be, a reply that is no error."""
        self.monitor = monitor
        self.number = number
        self.console = console
        self._connections = monitor.channel.connections if monitor else 0

    @property
    def clients(self) -> list[Channel]:
        """The client of the monitor, unless it has left."""
        if self.monitor is None or self.monitor.channel.connections != self._connections:
            return []
        return [self.monitor.channel]

    def write(self, data: bytes) -> None:
        for channel in self.clients:
            channel.write(data)

    def reply(self, body: str) -> None:
        self.write(reply(body, self.number))
        if self.clients:
            self.on_reply()


def perform(qemu: QEMU, orders: Iterable[Order], here: Here) -> Task:
    """One order after the other."""
    for name, *values in orders:
        yield from _ACTIONS[name](qemu, here, *values)


def _as_qemu(qemu: QEMU, here: Here) -> Task:
    here.as_qemu()
    yield from ()


def _wait(qemu: QEMU, here: Here, seconds: float) -> Task:
    yield seconds


def _hold(qemu: QEMU, here: Here) -> Task:
    releases = qemu.releases
    yield lambda: qemu.releases > releases


def _release(qemu: QEMU, here: Here) -> Task:
    qemu.releases += 1
    yield 0.0  # those that were held come first


def _reply(qemu: QEMU, here: Here, body: str, number: tuple[Any, ...]) -> Task:
    if number:
        here.write(reply(body, number[0]))
    else:
        here.reply(body)
    yield lambda: all(channel.idle for channel in here.clients)


def _refuse(qemu: QEMU, here: Here, body: str, number: tuple[Any, ...]) -> Task:
    here.write(reply(body, number[0] if number else here.number))
    yield lambda: all(channel.idle for channel in here.clients)


def _send(qemu: QEMU, here: Here, data: bytes, times: int | None) -> Task:
    import json

    identified = data.replace(b"$id", json.dumps(None if here.number is NO_ID else here.number).encode())

    def channels() -> list[Channel]:
        return here.clients if here.monitor else [monitor.channel for monitor in qemu.monitors]

    yield from _stream(channels, lambda number: identified.replace(b"$number", b"%d" % number), times)
    if here.clients:
        here.on_reply()  # it may be one, in the words of whoever ordered it


def _emit(qemu: QEMU, here: Here, name: str, data: str, times: int | None, per_second: float | None) -> Task:
    def make(number: int) -> bytes:
        return event(name, data.replace('"$number"', str(number)))

    def channels() -> list[Channel]:
        return [monitor.channel for monitor in qemu.monitors if monitor.negotiated]

    return _stream(channels, make, times, per_second)


def _say(qemu: QEMU, here: Here, data: bytes, times: int | None, console: int | None) -> Task:
    channels = _consoles(qemu, here, console)
    return _stream(lambda: channels, lambda number: data.replace(b"$number", b"%d" % number), times)


def _close_console(qemu: QEMU, here: Here, console: int | None) -> Task:
    for channel in _consoles(qemu, here, console):
        channel.close()
    yield from ()


def _consoles(qemu: QEMU, here: Here, console: int | None) -> list[Channel]:
    """The one that is meant, if it is there."""
    if console is None and here.console is not None:
        return [here.console]
    return qemu.consoles[console or 0 :][:1]


def _stream(
    channels: Callable[[], list[Channel]],
    make: Callable[[int], bytes],
    times: int | None,
    per_second: float | None = None,
) -> Task:
    """Write again and again, no faster than it is read, until all is on its way."""

    def idle() -> bool:
        return all(channel.idle for channel in channels())

    def connected() -> bool:
        return any(channel.connected for channel in channels())

    begin = time.monotonic()
    number = 0
    while times is None or number < times:
        chunk = b""
        while len(chunk) < _CHUNK and (times is None or number < times):
            number += 1
            chunk += make(number)
            if per_second is not None or not chunk:
                break
        for channel in channels():
            channel.write(chunk)
        yield idle
        if per_second is not None:
            yield max(0.0, begin + number / per_second - time.monotonic())
        elif times is None and not connected():
            yield connected


def _hang_up(qemu: QEMU, here: Here, for_good: bool, everywhere: bool) -> Task:
    only_here = here.monitor is not None and not everywhere
    for monitor in qemu.monitors:
        if for_good and (not only_here or monitor is here.monitor):
            monitor.channel.stop_listening()  # first: who sees the end of the connection can't get another
        if not only_here or monitor.channel in here.clients:
            monitor.channel.close()
    yield from ()


def _output(qemu: QEMU, here: Here, data: bytes, fd: int) -> Task:
    print_out(fd, data)
    yield from ()


def print_out(fd: int, data: bytes) -> None:
    """Write to stderr or stdout, and wait for who reads that; if nobody does any more, that is no matter."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # whoever started this has made it so
            select.select([], [fd], [])
        except OSError:
            return


def _fork(qemu: QEMU, here: Here, leaving: str | None) -> Task:
    told, tell = os.pipe()
    if os.fork() == 0:
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        if leaving == "session":
            os.setsid()
        elif leaving == "group":
            os.setpgid(0, 0)
        os.close(told)
        os.write(tell, b"1")
        os.close(tell)
        qemu.maker.outlive()
    os.close(tell)
    os.read(told, 1)
    os.close(told)
    yield from ()


def _wedge(qemu: QEMU, here: Here, seconds: float | None) -> Task:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP, signal.SIGTERM})
    if seconds is None:
        qemu.maker.outlive()
    else:
        time.sleep(seconds)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    yield from ()


def _shut_down(qemu: QEMU, here: Here, reason: str, status: int) -> Task:
    qemu.shut_down(reason, status)
    yield from ()


def _exit_with(qemu: QEMU, here: Here, status: int) -> Task:
    os._exit(status)
    yield from ()


def _die_of(qemu: QEMU, here: Here, number: int) -> Task:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})  # it may have been started with it blocked
    os.kill(os.getpid(), number)
    yield from ()


_ACTIONS: dict[str, Callable[..., Task]] = {
    "as_qemu": _as_qemu,
    "wait": _wait,
    "hold": _hold,
    "release": _release,
    "reply": _reply,
    "refuse": _refuse,
    "send": _send,
    "emit": _emit,
    "say": _say,
    "close_console": _close_console,
    "hang_up": _hang_up,
    "output": _output,
    "fork": _fork,
    "wedge": _wedge,
    "shut_down": _shut_down,
    "exit_with": _exit_with,
    "die_of": _die_of,
}
