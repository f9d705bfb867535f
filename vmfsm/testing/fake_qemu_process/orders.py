"""Performing what was ordered: `vmfsm.testing.actions` has what each means."""

from __future__ import annotations

import os
import signal
import time

from .monitor import NO_ID, Monitor, event

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

    :param as_qemu: what QEMU does there.
    """

    def __init__(
        self,
        as_qemu: Callable[[], object] = lambda: None,
        monitor: Monitor | None = None,
        number: Any = NO_ID,
        console: Channel | None = None,
    ) -> None:
        self.as_qemu = as_qemu
        self.monitor = monitor
        self.number = number
        self.console = console


def perform(
    qemu: QEMU, orders: Iterable[Order], here: Here, then: Callable[[], object] | None = None
) -> Task:
    """One order after the other."""
    for name, *values in orders:
        yield from _ACTIONS[name](qemu, here, *values)
    if then is not None:
        then()


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
    assert here.monitor is not None
    channel = here.monitor.channel
    here.monitor.reply(body, number[0] if number else here.number)
    yield lambda: channel.idle


def _send(qemu: QEMU, here: Here, data: bytes, times: int | None) -> Task:
    import json

    identified = data.replace(b"$id", json.dumps(None if here.number is NO_ID else here.number).encode())
    monitors = [here.monitor] if here.monitor else qemu.monitors
    channels = [monitor.channel for monitor in monitors]
    return _stream(lambda: channels, lambda number: identified.replace(b"$number", b"%d" % number), times)


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
    for monitor in [here.monitor] if here.monitor and not everywhere else qemu.monitors:
        monitor.channel.close(for_good=for_good)
    yield from ()


def _output(qemu: QEMU, here: Here, data: bytes, fd: int) -> Task:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    yield from ()


def _fork(qemu: QEMU, here: Here, leaving: str | None) -> Task:
    told, tell = os.pipe()
    if os.fork() == 0:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if leaving == "session":
            os.setsid()
        elif leaving == "group":
            os.setpgid(0, 0)
        os.close(told)
        os.write(tell, b"1")
        os.close(tell)
        while True:
            signal.pause()
    os.close(tell)
    os.read(told, 1)
    os.close(told)
    yield from ()


def _wedge(qemu: QEMU, here: Here, seconds: float | None) -> Task:
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP, signal.SIGTERM})
    while seconds is None:
        signal.pause()
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
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    yield from ()


_ACTIONS: dict[str, Callable[..., Task]] = {
    "as_qemu": _as_qemu,
    "wait": _wait,
    "hold": _hold,
    "release": _release,
    "reply": _reply,
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
