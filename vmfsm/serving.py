"""The thread inside `launch`, `shutdown` or `kill`: serves the walk to its end, or leaves it to workers."""

import functools
import queue
from typing import TYPE_CHECKING

from .caller import GRACE, Caller, in_hook_of, insist
from .deadline import Deadline
from .errors import MachineTimeout, VMError
from .holding import await_unkept
from .iothread import IOThread
from .launch import UNASKED_CLEANUP, Launch
from .waits import Wait

if TYPE_CHECKING:
    from .machine import Machine


def serve(machine: "Machine", caller: Caller, deadline: Deadline, operation: str) -> None:
    """Run the jobs of the walk until it releases the caller.

    :raises MachineTimeout: when the I/O thread is held up and did not see to the deadline.
    """
    __tracebackhide__ = True
    assert caller.wait is not None
    machine._waits.add(caller.wait)
    try:
        caller.serve(deadline)
    except queue.Empty:
        launch = machine._launch
        held_up = ""
        if launch is not None:
            launch.force_late()
            held_up = launch.held_up_by()
        error = MachineTimeout(
            f"{machine.name}: {operation}: not over {GRACE:g} s after its {deadline.timeout:g} s{held_up}",
            machine=machine.name,
            state=machine.state,
        )
        error.operation, error.timeout = operation, deadline.timeout
        # The walk goes on, with workers.
        insist(functools.partial(IOThread.get().post, caller.has_left, error))
        raise error from None
    finally:
        machine._waits.remove(caller.wait)


def tell_ended_again(machine: "Machine") -> None:
    """The last launch counts as failed, as is known only now: tell plugins, if it had ended."""
    launch = machine._launch
    if launch is None or launch.final is None or not machine._plugins.implementations("launch_ended"):
        return
    deadline = Deadline(UNASKED_CLEANUP)
    if not launch.io.inside() and not in_hook_of(machine):
        launch.calls.run_in_thread(
            launch.tell_ended_again(deadline),
            deadline,
            "launch_ended",
            of_guest=False,
            needs_qemu=False,
            at_once=False,
        )


def end(
    machine: "Machine",
    launch: Launch,
    call: str,
    deadline: Deadline,
    *,
    guest: bool = False,
    at_once: bool = False,
) -> bool:
    """Have the launch ended and wait for that; whether it was over already."""
    __tracebackhide__ = True
    io = launch.io
    was_over = launch.final is not None
    caller = Caller(io, Wait(call, deadline))
    try:
        had_ended = launch.has_ended
        ask = functools.partial(launch.ask, caller, deadline, guest=guest, had_ended=had_ended)
        if at_once:
            launch.kill_now(deadline)
            machine._holds.end()
        else:
            try:
                await_unkept(machine, launch)
            except VMError:
                raise
            except BaseException:
                insist(functools.partial(io.post, ask))  # nobody is left who would
                raise
        io.post(ask)
        serve(machine, caller, deadline, call)
    except VMError as error:
        raise machine._with_evidence(error) from None
    except BaseException as interrupt:
        insist(machine._holds.end)  # whoever interrupts this wants it over
        insist(functools.partial(io.post, launch.hurry, caller, interrupt))
        caller.await_release(Deadline(UNASKED_CLEANUP))
        raise
    return was_over


def hand_over(machine: "Machine", io: IOThread, caller: Caller, interrupt: BaseException) -> None:
    """An exception from outside hit `launch`: see the machine ended, by workers, before it is raised.

    A second one is raised at once, and the machine is ended all the same.
    """
    insist(machine._holds.end)
    # Another one, since the first may have been released: up, just before the interrupt.
    waiter = Caller(io)
    insist(functools.partial(io.post, _interrupted, machine, caller, waiter, interrupt))
    waiter.await_release(Deadline(UNASKED_CLEANUP))


def _interrupted(machine: "Machine", caller: Caller, waiter: Caller, interrupt: BaseException) -> None:
    """On the I/O thread."""
    caller.has_left(interrupt)
    launch = machine._launch
    if launch is not None and launch.caller is caller:
        launch.interrupt(waiter, interrupt)
    else:
        waiter.release(None)
