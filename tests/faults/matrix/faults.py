"""The faults, as data: what is done to whom, and what that amounts to for who waits.

A new one is one more line here. What it leads to at each point, `expectations.py` derives from its effect.
"""

import os
import signal
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, NamedTuple

from tests.endings import send
from tests.faults.matrix.scene import Scene
from vmfsm.testing import actions as do
from vmfsm.testing.actions import Action


class Effect(Enum):
    """What a fault amounts to."""

    DOES_NOTHING = "QEMU does nothing any more, and only SIGKILL ends it"
    IS_SILENT = "QEMU does not answer this, but lives"
    GOES_ON = "nothing is lost"
    ENDS = "QEMU ends"
    LOSES_MONITOR = "the monitor is lost, QEMU lives"
    REFUSES = "QEMU answers with an error"
    CLOSES_CONSOLE = "the console is at its end, QEMU lives"
    VERDICT = "the guest is lost, QEMU lives"
    INTERRUPTED = "an exception from outside hits the caller"
    KILLED = "another thread kills the machine"
    SHUT_DOWN = "another thread shuts the machine down"
    HELD_UP = "the thread that serves all machines is held up"
    LACKS = "what the call needs is not to be had"
    RAISES = "a hook raises"


class By(Enum):
    """Who does it."""

    SIGNAL = "somebody sends QEMU a signal"
    HARNESS = "the harness"
    FAKE = "a FakeQEMU, at the point itself"
    GUEST = "the guest"
    WRAPPER = "what wraps QEMU"
    COMPANION = "a companion of QEMU's"
    HOST = "the host"
    HOOK = "a hook of a plugin"


def _nothing(scene: Scene) -> None:
    pass


class Fault(NamedTuple):
    """:param act: does it, when the call waits; from another thread than that of the call.
    :param orders: for a `FakeQEMU`, at the point; for replies, instead of the answer.
    """

    name: str
    by: By
    effect: Effect
    act: Callable[[Scene], object] = _nothing
    before: Callable[[Scene], object] = _nothing
    """Does it before the call."""
    full_disk: bool = False
    """Where the machine's files are to be."""
    status: int | None = None
    """For `ENDS`."""
    cause: str | None = None
    """For `ENDS`: why, as QEMU says itself (`ShutdownCause`)."""
    orders: tuple[Action, ...] = ()
    of_reply: bool = False
    """It is about the answer to a command."""
    hangs_up: bool = False
    """For `LOSES_MONITOR`: as it would be at QEMU's end."""
    for_good: bool = False
    """For `LOSES_MONITOR`: it can't be connected to again."""
    line: str | None = None
    """What the guest is told to do."""
    more: tuple[str, ...] = ()
    """Arguments for QEMU."""
    wrapper: str | None = None
    """A shell's text that runs QEMU, with `{fifo}` for what it is told by."""
    settings: Mapping[str, Any] = {}
    """Of the `FakeQEMU`."""


# -- signals ------------------------------------------------------------------------------------------------


def _signal(number: signal.Signals) -> Callable[[Scene], None]:
    def act(scene: Scene) -> None:
        for pid in scene.victims():
            send(pid, number)
        scene.resume()

    return act


SIGNALS = [
    Fault("SIGSTOP, never continued", By.SIGNAL, Effect.DOES_NOTHING, Scene.stop),
    Fault("SIGSTOP and SIGCONT", By.SIGNAL, Effect.GOES_ON, Scene.stop_and_resume),
    Fault(
        "SIGTERM by somebody else",
        By.SIGNAL,
        Effect.ENDS,
        _signal(signal.SIGTERM),
        status=0,
        cause="host-signal",
    ),
    *(
        Fault(f"{number.name} by somebody else", By.SIGNAL, Effect.ENDS, _signal(number), status=-number)
        for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT)
    ),
]

# -- the harness --------------------------------------------------------------------------------------------

HARNESS = [
    Fault("Ctrl-C", By.HARNESS, Effect.INTERRUPTED, Scene.interrupt),
    Fault("kill by another thread", By.HARNESS, Effect.KILLED, Scene.kill_elsewhere),
    Fault("shutdown by another thread", By.HARNESS, Effect.SHUT_DOWN, Scene.shut_down_elsewhere),
    Fault("a callback that blocks", By.HARNESS, Effect.HELD_UP, Scene.hold_up),
]

# -- a QEMU that misbehaves ---------------------------------------------------------------------------------

_ENDLESS = "x" * 70 + " $number\r\n"

FAKE = [
    Fault("does not answer", By.FAKE, Effect.IS_SILENT, of_reply=True),
    Fault("answers something else", By.FAKE, Effect.IS_SILENT, orders=(do.reply({}, id="x"),), of_reply=True),
    Fault("answers late", By.FAKE, Effect.GOES_ON, orders=(do.wait(0.1), do.as_qemu()), of_reply=True),
    Fault(
        "answers out of order",
        By.FAKE,
        Effect.GOES_ON,
        Scene.ask_something_else,
        orders=(do.hold(), do.as_qemu()),
        of_reply=True,
        settings={"on": {"x-else": [do.reply(), do.release()]}},
    ),
    Fault("refuses", By.FAKE, Effect.REFUSES, orders=(do.refuse(),), of_reply=True),
    Fault(
        "sends half a message",
        By.FAKE,
        Effect.DOES_NOTHING,
        orders=(do.send('{"return": {'), do.wedge()),
        of_reply=True,
    ),
    Fault("sends garbage", By.FAKE, Effect.LOSES_MONITOR, orders=(do.send("SSH-2.0\r\n"),)),
    Fault("sends too much", By.FAKE, Effect.LOSES_MONITOR, orders=(do.send("[" * (11 << 20) + "\r\n"),)),
    Fault("hangs up", By.FAKE, Effect.LOSES_MONITOR, orders=(do.hang_up(),), hangs_up=True),
    Fault(
        "hangs up for good",
        By.FAKE,
        Effect.LOSES_MONITOR,
        orders=(do.hang_up(for_good=True, everywhere=True),),
        hangs_up=True,
        for_good=True,
    ),
    Fault("wedges", By.FAKE, Effect.DOES_NOTHING, orders=(do.wedge(),)),
    Fault("exits with 0", By.FAKE, Effect.ENDS, status=0, orders=(do.exit_with(0),)),
    Fault("exits with 3", By.FAKE, Effect.ENDS, status=3, orders=(do.output("why\n"), do.exit_with(3))),
    Fault("crashes", By.FAKE, Effect.ENDS, status=-signal.SIGSEGV, orders=(do.die_of(signal.SIGSEGV),)),
    Fault("leaves a child", By.FAKE, Effect.ENDS, status=3, orders=(do.fork(), do.exit_with(3))),
    *(
        Fault(
            f"leaves a child in a {what} of its own",
            By.FAKE,
            Effect.ENDS,
            status=3,
            orders=(do.fork(leaving=what), do.exit_with(3)),
            wrapper='exec "$@"',  # without one, what QEMU itself moves elsewhere is not followed
        )
        for what in ("group", "session")
    ),
    Fault("shuts down", By.FAKE, Effect.ENDS, status=0, cause="guest-shutdown", orders=(do.shut_down(),)),
    Fault(
        "floods with events",
        By.FAKE,
        Effect.GOES_ON,
        orders=(do.as_qemu(), do.emit("VSERPORT_CHANGE", {"open": "$number"}, times=None, per_second=5000)),
    ),
    Fault("floods its console", By.FAKE, Effect.GOES_ON, orders=(do.as_qemu(), do.say(_ENDLESS, times=None))),
    Fault("floods its output", By.FAKE, Effect.GOES_ON, orders=(do.as_qemu(), do.output(_ENDLESS * 20_000))),
    Fault("closes its console", By.FAKE, Effect.CLOSES_CONSOLE, orders=(do.close_console(), do.as_qemu())),
    Fault(
        "resets for ever",
        By.FAKE,
        Effect.VERDICT,
        orders=(do.as_qemu(), do.emit("RESET", {"guest": True, "reason": "guest-reset"}, times=200)),
    ),
]

# -- the guest ----------------------------------------------------------------------------------------------

GUEST = [
    Fault("powers off", By.GUEST, Effect.ENDS, status=0, cause="guest-shutdown", line="poweroff"),
    Fault(
        "resets under -no-reboot",
        By.GUEST,
        Effect.ENDS,
        status=0,
        cause="guest-reset",
        line="reboot",
        more=("-no-reboot",),
    ),
    Fault("exits with a status", By.GUEST, Effect.ENDS, status=7, line="exit 3"),
    Fault("panics", By.GUEST, Effect.ENDS, status=0, cause="guest-panic", line="panic"),
    Fault("panics and is kept", By.GUEST, Effect.VERDICT, line="panic", more=("-action", "panic=pause")),
    Fault("has a triple fault", By.GUEST, Effect.GOES_ON, line="triple"),
    Fault("hangs", By.GUEST, Effect.GOES_ON, line="hang"),
    Fault("floods", By.GUEST, Effect.GOES_ON, line="flood"),
]

# -- wrappers and companions --------------------------------------------------------------------------------


def _tell_wrapper(scene: Scene) -> None:
    """Only it goes on, should everything be stopped."""
    os.kill(scene.pid, signal.SIGCONT)
    scene.lab.fifo(scene.victim).write_text("go\n")


def _stop_wrapper(scene: Scene) -> None:
    os.kill(scene.pid, signal.SIGSTOP)


def _kill_wrapper(scene: Scene) -> None:
    os.kill(scene.pid, signal.SIGKILL)


_READS = "read line < {fifo}"

WRAPPERS = [
    Fault("ends first", By.WRAPPER, Effect.ENDS, _tell_wrapper, status=4, wrapper=f'"$@" & {_READS}; exit 4'),
    Fault(
        "ends before a QEMU in a session of its own",
        By.WRAPPER,
        Effect.ENDS,
        _tell_wrapper,
        status=4,
        wrapper=f'setsid "$@" & {_READS}; exit 4',
    ),
    Fault(
        "is killed",
        By.WRAPPER,
        Effect.ENDS,
        _kill_wrapper,
        status=-signal.SIGKILL,
        wrapper=f'"$@" & {_READS}; exit 4',
    ),
    Fault("is stopped alone", By.WRAPPER, Effect.DOES_NOTHING, before=_stop_wrapper, wrapper='"$@"; true'),
    Fault("detaches QEMU", By.WRAPPER, Effect.ENDS, status=0, wrapper='setsid "$@" & exit 0'),
    Fault(
        "swallows signals",
        By.WRAPPER,
        Effect.GOES_ON,
        Scene.resume,
        wrapper='trap "" INT TERM HUP; "$@" & wait; exit 0',
    ),
    Fault(
        "swallows signals and outlives QEMU",
        By.WRAPPER,
        Effect.DOES_NOTHING,
        Scene.resume,
        wrapper='trap "" INT TERM HUP; "$@" & while :; do sleep 1000; done',
    ),
]

COMPANION = [
    Fault("ends", By.COMPANION, Effect.VERDICT, Scene.end_companion),
    Fault("is never ready", By.COMPANION, Effect.IS_SILENT),
]

# -- the host -----------------------------------------------------------------------------------------------

HOST = [
    Fault("no descriptors", By.HOST, Effect.LACKS, before=Scene.take_descriptors),
    Fault("no room for files", By.HOST, Effect.LACKS, full_disk=True),
    Fault(
        "no memory",
        By.HOST,
        Effect.ENDS,
        status=1,
        more=("-m", "8G"),
        wrapper=f'ulimit -v {3 << 20}; exec "$@"',
    ),
]

# -- hooks --------------------------------------------------------------------------------------------------

HOOKS = [
    Fault("raises", By.HOOK, Effect.RAISES, Scene.let_hook_raise),
    Fault("never returns", By.HOOK, Effect.IS_SILENT),
]

FAULTS = {
    f"{fault.by.name.lower()}: {fault.name}": fault
    for fault in [*SIGNALS, *HARNESS, *FAKE, *GUEST, *WRAPPERS, *COMPANION, *HOST, *HOOKS]
}
