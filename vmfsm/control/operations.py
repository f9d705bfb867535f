"""What can be asked for. Each operation reads its fields first: what is wrong with one is said, not done."""

import asyncio
import base64
import binascii
import contextvars
import functools
import os
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from vmfsm import holding
from vmfsm.errors import ConfigError, TransitionError
from vmfsm.iothread import IOThread
from vmfsm.jsonable import jsonable
from vmfsm.lifecycle import Event, State
from vmfsm.present import present
from vmfsm.redaction import Secrets, redact_command

from .following import find_console, follow_console, follow_events, follow_records
from .protocol import Fields, Peer

if TYPE_CHECKING:
    from vmfsm.machine import Machine

Operation = Callable[["Request"], Awaitable[object]]

_MOST_TAIL = 1024 * 1024
_TAIL = 16 * 1024
_MOST_ENDING = 16
"""Threads that end machines, one each."""


class Request:
    """:param fields: what was given, but for `id` and `op`."""

    def __init__(self, peer: Peer, fields: Fields) -> None:
        self.peer = peer
        self.fields = fields
        self.secrets: Secrets | None = None
        """The machine's, not to be shown in errors."""

    def machine(self) -> "Machine":
        """The one it is about.

        :raises ConfigError: where there is none, or which one is meant can't be told.
        """
        which = self.fields.which("machine")
        machine = _find(which)
        self.secrets = machine.secrets
        return machine


def find(name: str) -> Operation:
    """:raises ConfigError: for what is none."""
    try:
        return _OPERATIONS[name]
    except KeyError:
        raise ConfigError(f"no op {name!r} (there are: {', '.join(_OPERATIONS)}, stop)", field="op") from None


def _find(which: str | int) -> "Machine":
    there = present()
    if isinstance(which, int):
        for number, machine in there:
            if number == which:
                return machine
        raise ConfigError(f"no machine has the number {which} (any more)", field="machine")
    named = [(number, machine) for number, machine in there if machine.name == which]
    # One that is over may be there still, since somebody holds it.
    found = [(number, machine) for number, machine in named if machine.state in _ALIVE] or named[-1:]
    if not found:
        raise ConfigError(f"no machine {which!r} in this process", field="machine")
    if len(found) > 1:
        numbers = ", ".join(str(number) for number, _ in found)
        raise ConfigError(
            f"{len(found)} machines are named {which!r}: say their numbers: {numbers}", field="machine"
        )
    return found[0][1]


_ALIVE = frozenset({State.LAUNCHING, State.RUNNING, State.QUITTING})


# -- what there is ------------------------------------------------------------------------------------------


async def _machines(request: Request) -> object:
    request.fields.done()
    return {
        "harness": {
            "pid": os.getpid(),
            "command": list(_command()),
            "cwd": _cwd(),
            "test": os.environ.get("PYTEST_CURRENT_TEST"),
        },
        "machines": [_row(number, machine) for number, machine in present()],
    }


@functools.cache
def _command() -> tuple[str, ...]:
    import sys

    return redact_command(sys.orig_argv)


def _cwd() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return None


def _row(number: int, machine: "Machine") -> dict[str, Any]:
    return {
        "number": number,
        "name": machine.name,
        "state": machine.state.value,
        "reason": machine.reason.value if machine.reason else None,
        "seconds": time.monotonic() - machine.since,
        "pid": machine.pid,
        "exit_status": machine.exit_status,
        "held": machine.held,
        "launches": sum(transition.event is Event.LAUNCH for transition in machine.history),
    }


async def _snapshot(request: Request) -> object:
    machine = request.machine()
    request.fields.done()
    return jsonable(machine.snapshot())


async def _records(request: Request) -> object:
    machine = request.machine()
    history, follow = request.fields.flag("history", True), request.fields.flag("follow", True)
    request.fields.done()
    return follow_records(machine, history=history, follow=follow)


# -- the monitor --------------------------------------------------------------------------------------------


async def _qmp(request: Request) -> object:
    machine = request.machine()
    command, arguments = request.fields.text("command"), request.fields.mapping("arguments")
    timeout = request.fields.seconds("timeout", 30)
    request.fields.done()
    return await machine.qmp.aio.execute_raw(command, arguments, timeout=timeout)


async def _events(request: Request) -> object:
    machine = request.machine()
    request.fields.done()
    return follow_events(machine)


async def _gdbstub(request: Request) -> object:
    machine = request.machine()
    timeout = request.fields.seconds("timeout", 30)
    request.fields.done()
    return {"target": await machine.qmp.aio.gdbstub(timeout)}


async def _screendump(request: Request) -> object:
    machine = request.machine()
    path, form = request.fields.text("path"), request.fields.choice("format", ("png", "ppm"))
    timeout = request.fields.seconds("timeout", 30)
    request.fields.done()
    if not os.path.isabs(path) or "\0" in path:
        raise ConfigError(
            f"screendump: path must be absolute, since QEMU writes it, not {path!r}", field="path"
        )
    await machine.qmp.aio.execute("screendump", {"filename": path, "format": form}, timeout=timeout)
    return {"path": path}


async def _bundle(request: Request) -> object:
    machine = request.machine()
    directory, memory = request.fields.optional_text("directory"), request.fields.flag("memory", False)
    timeout = request.fields.seconds("timeout", 10)
    request.fields.done()
    if directory is not None and not os.path.isabs(directory):
        raise ConfigError(
            f"bundle: directory must be absolute, since the harness writes to it, not {directory!r}",
            field="directory",
        )
    return {"path": await machine.abundle(directory, memory=memory, timeout=timeout)}


# -- the console --------------------------------------------------------------------------------------------


async def _console(request: Request) -> object:
    machine = request.machine()
    name, tail = request.fields.optional_text("console"), request.fields.whole("tail", _TAIL, _MOST_TAIL)
    follow = request.fields.flag("follow", True)
    request.fields.done()
    return follow_console(machine, name, tail=tail, follow=follow)


async def _write(request: Request) -> object:
    machine = request.machine()
    name, said = request.fields.optional_text("console"), request.fields.text("data")
    timeout = request.fields.seconds("timeout", 30)
    request.fields.done()
    try:
        data = base64.b64decode(said, validate=True)
    except (binascii.Error, ValueError):
        raise ConfigError("write: data must be base64", field="data") from None
    name, console = find_console(machine, name)
    await console.aio.send(data, timeout=timeout)
    return {"console": name, "bytes": len(data)}


# -- standing still -----------------------------------------------------------------------------------------


async def _hold(request: Request) -> object:
    machine = request.machine()
    reason, keep = request.fields.optional_text("reason"), request.fields.flag("keep", True)
    request.fields.done()
    holding.begin(machine, reason, keep=keep, by=str(request.peer))
    return {"held": machine.held}


async def _release(request: Request) -> object:
    machine = request.machine()
    request.fields.done()
    machine.release()
    return {"held": machine.held}


# -- the end ------------------------------------------------------------------------------------------------


async def _shutdown(request: Request) -> object:
    machine = request.machine()
    guest, timeout = request.fields.flag("guest", False), request.fields.seconds("timeout", 30)
    request.fields.done()
    if machine._holds.kept:
        raise TransitionError(
            f"{machine.name} is held ({machine.held}): release it first, or kill it", event="shutdown"
        )
    return await _ended(machine, functools.partial(machine.shutdown, guest=guest, timeout=timeout))


async def _kill(request: Request) -> object:
    machine = request.machine()
    timeout = request.fields.seconds("timeout", 10)
    request.fields.done()
    return await _ended(machine, functools.partial(machine.kill, timeout=timeout))


_ending: set[threading.Thread] = set()
_telling: set["asyncio.Task[object]"] = set()


async def ends_are_told() -> None:
    """Wait until those who had machines ended have been told what came of it."""
    if _telling:
        await asyncio.wait(_telling)


async def _ended(machine: "Machine", end: Callable[[], object]) -> object:
    """In a thread of its own, since hooks run in it; the workers are for machines that have no caller."""
    if len(_ending) >= _MOST_ENDING:
        raise ConfigError(f"{_MOST_ENDING} machines are being ended at the request of others", field="op")
    io = IOThread.get()
    done: asyncio.Future[BaseException | None] = io.loop.create_future()

    def call() -> None:
        error: BaseException | None = None
        try:
            end()
        except BaseException as raised:  # noqa: BLE001 - who asked gets it
            error = raised
        io.post(over, error)

    def over(error: BaseException | None) -> None:
        _ending.discard(thread)
        if not done.done():  # else who asked has gone
            done.set_result(error)

    context = contextvars.copy_context()  # of an onlooker
    thread = threading.Thread(
        target=context.run, args=(call,), name=f"vmfsm-control-{machine.name}", daemon=True
    )
    task = asyncio.current_task()
    assert task is not None
    _telling.add(task)
    task.add_done_callback(_telling.discard)
    thread.start()
    _ending.add(thread)
    error = await done
    if error is not None:
        raise error
    return {
        "state": machine.state.value,
        "reason": machine.reason.value if machine.reason else None,
        "exit_status": machine.exit_status,
    }


_OPERATIONS: dict[str, Operation] = {
    "machines": _machines,
    "snapshot": _snapshot,
    "records": _records,
    "qmp": _qmp,
    "events": _events,
    "gdbstub": _gdbstub,
    "screendump": _screendump,
    "bundle": _bundle,
    "console": _console,
    "write": _write,
    "hold": _hold,
    "release": _release,
    "shutdown": _shutdown,
    "kill": _kill,
}
