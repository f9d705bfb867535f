"""What is called on the machines of the walk: the public calls, each with what is found by a short one."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tests.walks.subject import Subject
from vmfsm import Machine

LAST = 40
"""Calls by lines and reads are of this many lines at most."""


class Own(Exception):
    """What the body of a `with` raises."""


class Operation(NamedTuple):
    """A public call that waits."""

    kind: str
    """The row of the oracle's table."""
    call: Callable[[Subject, float], Any]


def _leave(subject: Subject, timeout: float) -> None:
    with subject.vm:
        pass


def _leave_raising(subject: Subject, timeout: float) -> None:
    with subject.vm:
        raise Own("of the body")


def _on(kind: str, call: Callable[[Machine, float], Any]) -> Operation:
    return Operation(kind, lambda subject, timeout: call(subject.vm, timeout))


async def _value() -> str:
    await asyncio.sleep(0)
    return "value"


async def _never() -> None:
    await asyncio.get_running_loop().create_future()


def _subscribe(vm: Machine, timeout: float) -> None:
    seen: list[object] = []
    vm.qmp.subscribe(seen.append)()


def _in_a_loop(vm: Machine, timeout: float) -> Any:
    return asyncio.run(vm.qmp.aio.execute("query-status", timeout=timeout))


LIFECYCLE: Mapping[str, Operation] = {
    "launch": _on("launch", lambda vm, t: vm.launch(t)),
    "shutdown": _on("shutdown", lambda vm, t: vm.shutdown(timeout=t)),
    "shutdown(guest)": _on("shutdown", lambda vm, t: vm.shutdown(guest=True, timeout=t)),
    "kill": _on("kill", lambda vm, t: vm.kill(t)),
    "with": Operation("shutdown", _leave),
    "with, raising": Operation("own", _leave_raising),
}

WAITS: Mapping[str, Operation] = {
    "wait": _on("wait", lambda vm, t: vm.wait(t)),
    "run": _on("run", lambda vm, t: vm.run(_value(), timeout=t, operation="nothing")),
    "run(never)": _on("run", lambda vm, t: vm.run(_never(), timeout=t, operation="nothing")),
    "query-status": _on("command", lambda vm, t: vm.qmp.execute("query-status", timeout=t)),
    "query-status(aio)": _on("command", _in_a_loop),
    "stop": _on("command", lambda vm, t: vm.qmp.execute("stop", timeout=t)),
    "cont": _on("cont", lambda vm, t: vm.qmp.execute("cont", timeout=t)),
    "execute_raw": _on("command", lambda vm, t: vm.qmp.execute_raw("no-such-command", timeout=t)),
    "no-such-command": _on("refused", lambda vm, t: vm.qmp.execute("no-such-command", timeout=t)),
    "wait_event": _on("event", lambda vm, t: vm.qmp.wait_event("X_TICK", timeout=t)),
    "wait_any": _on("event", lambda vm, t: vm.qmp.wait_any([("STOP", None), ("RESUME", None)], timeout=t)),
    "reconnect": _on("reconnect", lambda vm, t: vm.qmp.reconnect(t)),
    "expect": _on("console", lambda vm, t: vm.console.expect("pong", r"tick \d+", timeout=t)),
    "send": _on("console", lambda vm, t: vm.console.send(b"x" * 1000 + b"\n", timeout=t)),
    "sendline": _on("console", lambda vm, t: vm.console.sendline("ping", timeout=t)),
    "fds.add": _on("descriptor", lambda vm, t: vm.fds.add("/dev/null", timeout=t)),
    "fds.send": _on("descriptor", lambda vm, t: vm.fds.send("/dev/null", "null", timeout=t)),
    "snapshots.list": _on("unknown", lambda vm, t: vm.snapshots.list(timeout=t)),
    "migration.progress": _on("unknown", lambda vm, t: vm.migration.progress(timeout=t)),
    "arun": _on("run", lambda vm, t: asyncio.run(vm.arun(_value(), timeout=t, operation="nothing"))),
    "expect(aio)": _on("console", lambda vm, t: asyncio.run(vm.console.aio.expect("pong", timeout=t))),
    "subscribe": _on("subscribe", _subscribe),
    "console.socket": _on("socket", lambda vm, t: vm.console.socket().close()),
    "log.follow": _on("follow", lambda vm, t: "".join(vm.log.follow(timeout=t))[-LAST:]),
}


def order(command: str) -> Operation:
    return _on("order", lambda vm, t: vm.qmp.execute(command, timeout=t))


def line(text: str) -> Operation:
    return _on("console", lambda vm, t: vm.console.sendline(text, timeout=t))


READS: Mapping[str, tuple[str, Callable[[Machine], Any]]] = {
    "evidence": ("never", lambda vm: vm.evidence()),
    "repr": ("never", repr),
    "timeline": ("never", lambda vm: vm.timeline),
    "command": ("never", lambda vm: vm.command),
    "run_state": ("never", lambda vm: vm.run_state),
    "log.text": ("never", lambda vm: vm.log.text),
    "log.tail": ("never", lambda vm: vm.log.tail(3)),
    "log.path": ("never", lambda vm: vm.log.path),
    "console.text": ("never", lambda vm: vm.console.text),
    "console.lines": ("never", lambda vm: vm.console.lines()),
    "console.read": ("never", lambda vm: vm.console.read()),
    "console.since": ("never", lambda vm: vm.console.since(vm.console.mark())),
    "console.closed": ("never", lambda vm: vm.console.closed),
    "events": ("monitor", lambda vm: vm.qmp.events()),
    "mark": ("monitor", lambda vm: vm.qmp.mark()),
    "greeting": ("greeting", lambda vm: vm.qmp.greeting),
    "version": ("greeting", lambda vm: vm.qmp.version),
}

# Wrong whatever the state, and refused before anything is done.
MISTAKES: Mapping[str, Callable[[Machine], Any]] = {
    "launch(-1)": lambda vm: vm.launch(-1),
    "shutdown(timeout=-1)": lambda vm: vm.shutdown(timeout=-1),
    "shutdown(guest=1)": lambda vm: vm.shutdown(guest=1),  # type: ignore[arg-type]
    "kill(-1)": lambda vm: vm.kill(-1),
    "wait(nan)": lambda vm: vm.wait(float("nan")),
    "execute(1)": lambda vm: vm.qmp.execute(1),  # type: ignore[arg-type]
    "expect((a)": lambda vm: vm.console.expect("("),
    "fds.add(-1)": lambda vm: vm.fds.add(-1),
    "plugin(no)": lambda vm: vm.plugin("no"),
    "tail(x)": lambda vm: vm.log.tail("x"),  # type: ignore[arg-type]
}
