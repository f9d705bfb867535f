"""The hooks that a plugin may implement: this is the plugin author's reference.

A plugin is a class; one object of it serves one machine, for any number of launches::

    from vmfsm import hookimpl

    class Snoop:
        name = "snoop"
        needs = ("qmp",)

        def __init__(self, *, level: int = 1) -> None:
            self.level = level

        @hookimpl
        async def post_launch(self, machine):
            self.status = await machine.qmp.aio.execute("query-status")

It is found through an entry point in the group `vmfsm.plugins`, or given as an object:
`Machine(..., plugins=[Snoop()])`. `before`, `after` and `needs` name other plugins: set-up hooks run in the
order that these ask for, else the built-in plugins first and then by name; clean-up hooks run in reverse.
`"*"` in `before` or `after` stands for every plugin that does not say otherwise. The parameters of
`__init__`, all with defaults, are the plugin's options.

The four lifecycle hooks may be plain functions or `async`. Plain ones run in the thread that called
`launch`, `shutdown` or `kill`, or in a worker thread where nobody did (QEMU died unasked); async ones run on
the I/O thread, where `machine.qmp.aio` and its like are awaited. Each has finished before the next begins.
An implementation takes those of the arguments that it names. `launch`, `shutdown`, `kill` and `wait` of the
same machine raise inside of its hooks.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from .errors import Verdict
    from .lifecycle import Transition
    from .machine import Machine
    from .plan import LaunchPlan
    from .timeline import Record

hookspec = pluggy.HookspecMarker("vmfsm")
hookimpl = pluggy.HookimplMarker("vmfsm")


@hookspec
def configured(machine: "Machine") -> None:
    """The machine was constructed; nothing is started, and nothing may be started here.

    A plain function. For a plugin that has to know its machine before the first launch. A `ConfigError`
    raised here is what the user of the constructor gets.
    """


@hookspec
def pre_launch(machine: "Machine", plan: "LaunchPlan") -> None:
    """Launching: no process yet. Contribute to `plan`: arguments, descriptors, environment, clean-ups.

    When an implementation raises, the launch fails, the later ones are not called, and what was set up is
    cleaned up.
    """


@hookspec
def post_launch(machine: "Machine") -> None:
    """Launching: QEMU lives. Make ready: connect, configure, `cont`.

    The monitor and the consoles work for all but the built-in plugins. When an implementation raises, the
    launch fails: QEMU is gone and cleaned up after before the caller of `launch` sees the error.
    """


@hookspec
def early_cleanup(machine: "Machine") -> None:
    """Quitting: before QEMU is asked to go, or after it went by itself or was killed.

    Runs once for every launch, however far that came, so it must do with what is not there. Where QEMU is
    still alive the monitor and the consoles work. All implementations run; what they raise is collected.
    """


@hookspec
def post_shutdown(machine: "Machine") -> None:
    """Quitting: QEMU is reaped; stopped or failed is about to be entered.

    Runs once for every launch, however far that came. All implementations run; what they raise is collected.
    """


@hookspec
def launch_ended(machine: "Machine") -> None:
    """Stopped or failed: that is entered, and observers were told, before who waits for the end goes on.

    For what is made of all that happened. Runs once for every launch, however far that came, and again where
    an exception leaves the `with` block of a machine that had ended by then, or `note_failure` tells what is
    news. It has the time of the call that ends the machine; after a launch that failed by its deadline, and
    when it runs again, 30 seconds of its own. Another thread may launch the machine again meanwhile. All
    implementations run, in reverse order as of clean-up hooks; what they raise is collected.
    """


@hookspec
def judge(machine: "Machine", verdict: "Verdict") -> str | None:
    """Something says that the guest is lost: what is to follow? One of `vmfsm.ACTIONS`; `None`: no opinion.

    A plain function, called on the I/O thread before anybody is told: it must not wait. The first that has an
    opinion is followed, and the others are not asked; without one it is `"wake"`. One that raises, or returns
    anything else, is logged and has none.
    """


@hookspec
def state_changed(machine: "Machine", transition: "Transition") -> None:
    """Observer: the state has changed.

    A plain function, called in a thread for observers, in order with `records`, one call at a time for a
    machine; the machine may have moved on meanwhile. Whoever raises is logged and not called again for this
    machine. `launch`, `shutdown` and `kill` return when their observers have been told, at most half a second
    later.
    """


@hookspec
def records(machine: "Machine", batch: "Sequence[Record]") -> None:
    """Observer: these records were added to the timeline, none twice.

    Called as `state_changed` is; what comes within 20 ms is one batch. An observer that is slower than its
    machine loses the oldest records: a record of kind `dropped` says how many.
    """


@hookspec
def snapshot(machine: "Machine") -> "Mapping[str, object] | None":
    """Somebody looks at the machine: what has the plugin to show? A mapping for JSON; `None`: nothing.

    A plain function, called in any thread, at any time, in any state, by several at once: it must not wait,
    take a lock that is held for long, or change anything. It is part of `Machine.snapshot()`, under
    `details` and the plugin's name, without secrets. One that raises, or returns anything else, is shown as
    that error.
    """


LIFECYCLE_HOOKS = ("pre_launch", "post_launch", "early_cleanup", "post_shutdown")
PLAIN_HOOKS = frozenset({"configured", "judge", "state_changed", "records", "snapshot"})
"""Hooks whose implementations may not be async."""
ALL_HOOKS = ("configured", *LIFECYCLE_HOOKS, "launch_ended", "judge", "state_changed", "records", "snapshot")
"""As in the life of a machine, then those that may be called at any time of it."""
