"""What follows from a hold: records, words on stderr, and those that wait for its release."""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from .attaching import how_to_attach, release_by, say
from .deadline import Deadline
from .errors import TransitionError, describe, printable
from .hold_modes import ON_FAILURE, is_failure
from .holds import Hold
from .iothread import IOThread
from .launch import Launch
from .waits import Wait

if TYPE_CHECKING:
    from .machine import Machine


def begin(
    machine: "Machine",
    reason: str | None,
    *,
    keep: bool = False,
    by: str | None = None,
    on_terminal: bool = False,
) -> Hold:
    """Hold the machine from now on, and say so.

    :param by: who holds it; without it, this thread.
    :param on_terminal: see `say`.
    :raises TransitionError: when the interpreter exits.
    """
    if reason is not None and machine.secrets:
        reason = machine.secrets.redact(reason)
    hold = Hold(machine._holds, by or threading.current_thread().name, reason, keep=keep)
    machine._holds.add(hold)
    try:
        hold.since = time.monotonic()
        _post(machine.record, "hold", {"by": hold.by, "reason": reason, "keep": keep})
        if keep or not machine._hold_was_told:
            machine._hold_was_told = True
            say(how_to_attach(machine, hold), on_terminal=on_terminal)
        return hold
    except BaseException:
        hold.release()
        raise


def ended(machine: "Machine", hold: Hold) -> None:
    """A hold was released."""
    since = time.monotonic() if hold.since is None else hold.since
    _post(machine.record, "release", {"by": hold.by, "seconds": time.monotonic() - since})


def _post(record: Callable[[str, dict[str, object]], object], kind: str, data: dict[str, object]) -> None:
    with contextlib.suppress(OSError, RuntimeError):  # no I/O thread can be had, or the interpreter exits
        io = IOThread.get()
        if io.inside():
            record(kind, data)
        else:
            io.post(record, kind, data)


def wait(machine: "Machine", operation: str, over: Callable[[], object], deadline: Deadline) -> bool:
    """Wait until `over()`, as a release may bring about, and be seen to; `False` at the deadline."""
    shown = Wait(operation, deadline)
    machine._waits.add(shown)
    try:
        return machine._holds.wait(over, deadline)
    finally:
        machine._waits.remove(shown)


def await_unkept(machine: "Machine", launch: Launch) -> None:
    """Wait until nobody keeps the machine, or QEMU is gone; in a thread that is about to end it.

    :raises TransitionError: inside of the `with` block of such a hold, which would never end.
    """

    def is_free() -> bool:
        return not machine._holds.kept or launch.gone.done()

    if is_free():
        return
    if machine._holds.kept_in(threading.get_ident()):
        raise TransitionError(
            f"{machine.name}: shutdown was called inside the with block of a hold that keeps the machine: "
            "it would wait for itself",
            event="shutdown",
            machine=machine.name,
            state=machine.state,
        )
    name = printable(machine.name)
    say(f"vmfsm: {name}: shutdown waits until it is released: {release_by(name)}", on_terminal=True)
    wait(machine, "shutdown: waits for the release", is_free, Deadline(None))


def hold_failure(machine: "Machine", error: BaseException) -> None:
    """The `with` block has failed: let people look at the machine, where they asked for that.

    Returns when it is released, by Ctrl-C too, or QEMU is gone.
    """
    launch = machine._launch
    wanted = ON_FAILURE in machine._hold_modes and is_failure(error)
    if not wanted or launch is None or machine.pid is None or launch.io.inside():
        return  # the I/O thread is never to wait: nobody could release anything any more

    def is_over() -> bool:
        return hold.released or launch.gone.done()

    with begin(machine, f"the test failed: {describe(error)}", keep=True, on_terminal=True) as hold:
        try:
            wait(machine, "release after a failure", is_over, Deadline(None))
        except KeyboardInterrupt:
            say(f"vmfsm: {printable(machine.name)} is released by Ctrl-C", on_terminal=True)
