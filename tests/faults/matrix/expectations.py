"""What must come of a fault at a point: by rules out of the documents, not by what once came of it.

The tables are those of `docs/endings.md`, `docs/waiting.md`, `docs/lifecycle.md` and the plugins' pages.
"""

import signal
from collections.abc import Collection
from typing import NamedTuple

from vmfsm_plugins.migration import MigrationError
from vmfsm_plugins.qmp import QMPCommandError, QMPConnectionError
from vmfsm_plugins.snapshots import SnapshotError

from tests.endings import NoGood
from tests.faults.matrix.faults import By, Effect, Fault
from tests.faults.matrix.points import Kind, Point, base
from vmfsm import (
    AbnormalExit,
    ConfigError,
    ConsoleClosed,
    GuestPanicked,
    ImageError,
    LaunchError,
    MachineDied,
    MachineTimeout,
    PluginError,
    Reason,
    State,
)

SLACK = 20.0
"""The stated constant, beside the grace of 2 seconds: what a busy machine may take."""
RETURNS = type(None)
SIGKILLED = -signal.SIGKILL

Ending = tuple[State, Reason | None]

RUNS: Ending = (State.RUNNING, None)
ASKED: Ending = (State.STOPPED, Reason.REQUESTED)
KILLED: Ending = (State.STOPPED, Reason.KILLED)
WEDGED: Ending = (State.FAILED, Reason.WEDGED)


class Expected(NamedTuple):
    raises: set[type[BaseException] | type[None]]
    """One of these; `RETURNS`: nothing."""
    ends: set[Ending]
    """State and reason, one of these, of the machine when the call is over and what goes on has settled."""
    status: Collection[int | None] = (None,)
    late: bool = False
    """It is the deadline that ends the call."""
    cause: type[BaseException] | None = None
    """Of what is raised, or of its cause."""


def expected(fault: Fault, point: Point) -> Expected:
    """For a cell that can exist."""
    match point.kind:
        case Kind.LAUNCH | Kind.LAUNCH_HOOK:
            return _of_launch(fault, point)
        case Kind.CALL:
            return _of_call(fault, point)
        case Kind.TOOL:
            return _of_tool(fault, point)
        case _:
            return _of_stop(fault, point)


# -- launch: "A launch that came to nothing" ----------------------------------------------------------------


def _of_launch(fault: Fault, point: Point) -> Expected:
    gone: set[int | None] = {SIGKILLED} if point.with_qemu else {None}
    match fault.effect:
        case Effect.DOES_NOTHING if point.hook:  # nothing of it is waited for
            return Expected({RETURNS}, {RUNS})
        case Effect.IS_SILENT if point.at == "qmp_capabilities" and fault.orders:
            return Expected({RETURNS}, {RUNS})  # until then there are no ids to tell replies by
        case Effect.DOES_NOTHING | Effect.IS_SILENT:
            return _failed(Reason.DEADLINE, gone, MachineTimeout, late=True)
        case Effect.GOES_ON | Effect.CLOSES_CONSOLE:
            return Expected({RETURNS}, {RUNS})
        case Effect.REFUSES if point.at == "query-status":  # without a run state, that is
            return Expected({RETURNS}, {RUNS})
        case Effect.REFUSES:
            return _failed(Reason.HOOK_FAILED, gone, QMPConnectionError)
        case Effect.ENDS:
            return _failed(Reason.LAUNCH_ERROR, _statuses(fault, point))
        case Effect.LOSES_MONITOR:
            return _failed(Reason.HOOK_FAILED, gone, QMPConnectionError)
        case Effect.VERDICT if point.name == "launch: companion":
            return _failed(Reason.HOOK_FAILED, {None}, PluginError)
        case Effect.VERDICT if fault.by is By.COMPANION:
            return _failed(Reason.HOOK_FAILED, gone, PluginError)
        case Effect.VERDICT:
            return Expected({RETURNS}, {RUNS})
        case Effect.INTERRUPTED:
            return Expected({KeyboardInterrupt}, {(State.FAILED, Reason.LAUNCH_ERROR)}, gone)
        case Effect.KILLED:
            return Expected({LaunchError}, {KILLED}, gone)
        case Effect.SHUT_DOWN:
            # Nobody is connected to be asked politely: SIGTERM.
            ended: set[int | None] = {0, -signal.SIGTERM} if point.with_qemu else {None}
            return Expected({LaunchError}, {ASKED}, ended)
        case Effect.HELD_UP:
            return Expected(
                {LaunchError}, {(State.FAILED, Reason.DEADLINE)}, gone, late=True, cause=MachineTimeout
            )
        case Effect.LACKS:
            # The directory is the framework's own; the first descriptor is for the log, by a plugin's hook.
            reason = Reason.LAUNCH_ERROR if fault.full_disk else Reason.HOOK_FAILED
            return Expected({LaunchError}, {(State.FAILED, reason)}, cause=OSError)
        case Effect.RAISES:
            return _failed(Reason.HOOK_FAILED, gone, NoGood)


def _failed(
    reason: Reason,
    status: set[int | None],
    cause: type[BaseException] | None = None,
    *,
    late: bool = False,
) -> Expected:
    return Expected({LaunchError}, {(State.FAILED, reason)}, status, late=late, cause=cause)


def _statuses(fault: Fault, point: Point) -> set[int | None]:
    if fault.by is By.SIGNAL and fault.status == 0:
        # In its first moments QEMU does not handle SIGTERM yet, and is ended by it.
        return {0, -signal.SIGTERM}
    return {fault.status}


# -- calls of a machine that runs ---------------------------------------------------------------------------

OF_GUEST = {
    "qmp.wait_event",
    "qmp.wait_any",
    "console.expect",
    "console.send",
    "console.sendline",
    "Machine.wait",
    "verdicts.expected",
}
"""What is waited for comes from the guest: a verdict ends the wait."""
ANSWERED: dict[str, set[type[BaseException] | type[None]]] = {
    "Machine.wait": {MachineTimeout},
    "Machine.run": {MachineTimeout},
    "Machine.arun": {MachineTimeout},
    "qmp.wait_event": {MachineTimeout},
    "qmp.wait_any": {MachineTimeout},
    "console.expect": {MachineTimeout},
    "verdicts.expected": {MachineTimeout},
    "console.send": {RETURNS, MachineTimeout},
    "console.sendline": {RETURNS, MachineTimeout},
    "log.follow": {MachineTimeout},
    **{f"snapshots.{call}": {ConfigError} for call in ("save", "load", "external")},
    "snapshots.delete": {SnapshotError},
    "migration.wait": {MachineTimeout},
    "migration.from_file": {MigrationError},
}
"""What becomes of those that do not just return, where QEMU goes on: its guest says nothing more."""
AT_DESTINATION = {"migration.to", "migration.start"}
"""It is the destination's QEMU that is waited for."""


def _of_call(fault: Fault, point: Point) -> Expected:
    call = base(point.name)
    answered = ANSWERED.get(call, {RETURNS})
    late = MachineTimeout in answered
    if call == "qmp.execute_oob" and fault.by is not By.FAKE:
        answered = {QMPCommandError}  # few commands of a real one may be executed so
    match fault.effect:
        case Effect.DOES_NOTHING | Effect.IS_SILENT:
            return Expected({MachineTimeout}, {RUNS}, late=True)
        case Effect.GOES_ON if call == "migration.from_file":
            # Older QEMUs end with status 1, which a wrapper makes its own one of.
            died = {MachineDied} if fault.by is By.WRAPPER else set()
            return Expected(answered | died, {RUNS, (State.STOPPED, Reason.QEMU_EXIT)}, {0, 1})
        case Effect.GOES_ON:
            return Expected(answered, {RUNS}, late=late)
        case Effect.REFUSES:
            refused = {RETURNS} if call == "qmp.execute_raw" else {QMPCommandError}
            return Expected(set(refused), {RUNS})
        case Effect.ENDS:
            return _of_death(fault, call, answered)
        case Effect.LOSES_MONITOR if call == "qmp.reconnect":
            return Expected({QMPConnectionError if fault.for_good else RETURNS}, {RUNS})
        case Effect.LOSES_MONITOR:
            raises: set[type[BaseException | None]] = {QMPConnectionError}
            return Expected(answered if late else raises, {RUNS}, late=late)
        case Effect.CLOSES_CONSOLE:
            closed = call.startswith("console.")
            return Expected({ConsoleClosed} if closed else answered, {RUNS}, late=late and not closed)
        case Effect.VERDICT if call in OF_GUEST:
            return Expected({GuestPanicked}, {RUNS})
        case Effect.VERDICT if fault.by is By.COMPANION:
            return Expected({MachineTimeout}, {RUNS}, late=True)
        case Effect.VERDICT:
            return Expected(answered, {RUNS}, late=late)
        case Effect.INTERRUPTED:
            return Expected({KeyboardInterrupt}, {RUNS})
        case Effect.KILLED if call == "Machine.wait":
            return Expected({RETURNS}, {KILLED}, {SIGKILLED})
        case Effect.KILLED:
            return Expected(_died(call), {KILLED}, {SIGKILLED})
        case Effect.SHUT_DOWN if call == "Machine.wait":
            return Expected({RETURNS}, {WEDGED}, {SIGKILLED})
        case Effect.SHUT_DOWN if call in AT_DESTINATION:  # the source is fine
            return Expected(_died(call), {ASKED}, {0})
        case Effect.SHUT_DOWN:
            return Expected(_died(call), {WEDGED}, {SIGKILLED})
        case Effect.HELD_UP:
            return Expected({MachineTimeout}, {RUNS}, late=True)
        case Effect.LACKS:
            return Expected({OSError}, {RUNS})
    raise AssertionError((fault, point))


def _died(call: str) -> set[type[BaseException] | type[None]]:
    return {RETURNS} if call == "log.follow" else {MachineDied}


def _of_death(fault: Fault, call: str, answered: set[type[BaseException] | type[None]]) -> Expected:
    """ "A machine that had been running", for an ending that nobody asked for."""
    end = _unasked(fault)
    failed = end[0] is State.FAILED
    raises = _died(call)
    if call == "Machine.wait":
        raises = {AbnormalExit} if failed else {RETURNS}
    if fault.cause == "guest-panic" and call in OF_GUEST:
        raises = {GuestPanicked}
    if fault.by in {By.GUEST, By.SIGNAL} and fault.status != SIGKILLED:
        # If QEMU answers first: but for SIGKILL, it must go on to end, and all its threads do that at once.
        raises = raises | (answered - {MachineTimeout})
    ends = {end}
    if call == "qmp.reconnect" and fault.cause is not None:  # nobody hears why
        ends.add((State.STOPPED, Reason.QEMU_EXIT))
    return Expected(raises, ends, {fault.status})


def _unasked(fault: Fault) -> Ending:
    if fault.status is not None and fault.status < 0:
        return State.FAILED, Reason.QEMU_SIGNAL
    if fault.status != 0:
        return State.FAILED, Reason.QEMU_EXIT
    by_guest = fault.cause in {"guest-shutdown", "guest-reset"}
    return State.STOPPED, Reason.GUEST_SHUTDOWN if by_guest else Reason.QEMU_EXIT


# -- calls without a machine --------------------------------------------------------------------------------


def _of_tool(fault: Fault, point: Point) -> Expected:
    failed: type[BaseException] = LaunchError if point.name == "capabilities" else ImageError
    match fault.effect:
        case Effect.ENDS:
            return Expected({failed}, set())
        case Effect.INTERRUPTED:
            return Expected({KeyboardInterrupt}, set())
        case _:
            late: type[BaseException] = LaunchError if point.name == "capabilities" else MachineTimeout
            return Expected({late}, set(), late=True)


# -- the end ------------------------------------------------------------------------------------------------


def _of_stop(fault: Fault, point: Point) -> Expected:
    if point.kind is Kind.STOP_HOOK:
        return _of_stop_hook(fault, point)
    politely = Expected({RETURNS}, {ASKED}, {0})
    by_force = Expected({AbnormalExit}, {WEDGED}, {SIGKILLED}, late=True)
    # With little time, it may come to SIGKILL before QEMU has taken notice of SIGTERM.
    by_sigterm = Expected({AbnormalExit}, {WEDGED}, {0, SIGKILLED}, late=True)
    unheard = {"system_powerdown": politely, "sigterm": by_force}.get(point.at, by_sigterm)
    match fault.effect:
        case Effect.DOES_NOTHING:
            return by_force
        case Effect.HELD_UP:
            return Expected({MachineTimeout}, {WEDGED}, {SIGKILLED}, late=True)
        case Effect.IS_SILENT | Effect.REFUSES:
            return unheard
        case Effect.VERDICT if fault.by is By.COMPANION:
            return unheard._replace(raises={PluginError}) if unheard is politely else unheard
        case Effect.GOES_ON if point.at == "sigterm":
            return by_sigterm
        case Effect.GOES_ON | Effect.CLOSES_CONSOLE | Effect.VERDICT:
            return politely
        case Effect.LOSES_MONITOR if fault.hangs_up:  # which may have been what was asked for
            return unheard
        case Effect.LOSES_MONITOR:
            return politely
        case Effect.ENDS if point.at == "sigterm" and fault.cause == "host-signal":
            return by_force  # it is deaf to that one as well
        case Effect.ENDS:
            return _of_death_at_the_end(fault, point)
        case Effect.KILLED:
            return Expected({RETURNS}, {KILLED}, {SIGKILLED}, late=point.at == "sigterm")
        case Effect.SHUT_DOWN:
            return unheard
        case Effect.INTERRUPTED:
            # "At most two more seconds until SIGKILL", which all the rungs have more of.
            return Expected({KeyboardInterrupt}, {WEDGED}, {SIGKILLED}, late=point.at == "sigterm")
    raise AssertionError((fault, point))


def _of_death_at_the_end(fault: Fault, point: Point) -> Expected:
    if point.at == "sigterm" and fault.status is not None and fault.status >= 0 and fault.cause is None:
        return Expected({AbnormalExit}, {WEDGED}, {fault.status})  # it had to be terminated
    if fault.status == 0:
        reason = Reason.REQUESTED  # unless QEMU says otherwise
        if fault.cause == "guest-shutdown" and point.at != "system_powerdown":
            reason = Reason.GUEST_SHUTDOWN
        if fault.cause == "host-signal":
            reason = Reason.QEMU_EXIT
        return Expected({RETURNS}, {(State.STOPPED, reason)}, {0})
    return Expected({AbnormalExit}, {_unasked(fault)}, {fault.status})


def _of_stop_hook(fault: Fault, point: Point) -> Expected:
    by_kill = point.name.startswith("kill")
    end, status = (KILLED, SIGKILLED) if by_kill else (ASKED, 0)
    match fault.effect:
        case Effect.GOES_ON:
            return Expected({RETURNS}, {end}, {status})
        case Effect.RAISES:
            return Expected({PluginError}, {end}, {status}, cause=NoGood)
        case Effect.IS_SILENT:
            return Expected({PluginError}, {end}, {status}, cause=MachineTimeout, late=True)
        case Effect.DOES_NOTHING:
            return Expected({AbnormalExit}, {WEDGED}, {SIGKILLED}, late=True)
        case Effect.HELD_UP:
            end, status = (WEDGED, SIGKILLED) if point.with_qemu else (end, status)
            return Expected({MachineTimeout}, {end}, {status}, late=True)
        case Effect.ENDS if fault.by is By.GUEST and fault.status == 0 and fault.cause != "guest-panic":
            return Expected({RETURNS}, {(State.STOPPED, Reason.GUEST_SHUTDOWN)}, {0})
        case Effect.ENDS:
            died = _unasked(fault)
            if fault.cause == "guest-panic":
                return Expected({GuestPanicked}, {died}, {0})
            return Expected({AbnormalExit if died[0] is State.FAILED else RETURNS}, {died}, {fault.status})
        case Effect.KILLED:
            alive = point.with_qemu
            return Expected({RETURNS}, {KILLED if alive else end}, {SIGKILLED if alive else status})
        case Effect.SHUT_DOWN:
            return Expected({RETURNS}, {end}, {status})
        case Effect.INTERRUPTED:
            return Expected({KeyboardInterrupt}, {end}, {status})
        case Effect.VERDICT if fault.by is By.COMPANION:
            return Expected({PluginError}, {end}, {status})
        case Effect.VERDICT:
            return Expected({RETURNS}, {end}, {status})
    raise AssertionError((fault, point))
