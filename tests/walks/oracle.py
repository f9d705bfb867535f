"""What a call may come to: by its kind and by the part of the machine's history that it saw.

After the documentation: `docs/errors.md`, `docs/endings.md`, the docstrings. What a call has seen is taken
from the history, so it does not matter which thread was first.
"""

import contextlib
import pickle
from collections.abc import Callable, Mapping

from vmfsm_plugins.qmp import QMPCommandError, QMPConnectionError

from tests.waiting import until
from tests.walks.operations import Own
from tests.walks.subject import FINAL, HARMLESS, PROGRAMS, Call, LaunchSeen
from vmfsm import (
    AbnormalExit,
    ConfigError,
    ConsoleClosed,
    Event,
    GuestPanicked,
    LaunchError,
    Machine,
    MachineDied,
    MachineTimeout,
    PluginError,
    Reason,
    State,
    TransitionError,
    VMError,
)
from vmfsm.caller import GRACE
from vmfsm.lifecycle import ALIVE

SLACK = 20.0
"""Seconds that a busy host may take for what takes none."""
ROUNDING = 0.01
"""Seconds by which clocks of different sources may differ."""
ENDS = ("shutdown", "shutdown(guest)", "with", "with, raising", "kill")
LOSES_MONITOR = {"x-hang-up", "x-garbage", "reconnect", "x-fork", "SIGSTOP", "x-wedge"}
PANICS = {"x-panic", "panic", "companion"}


class Interrupt(BaseException):
    """What a signal handler raises in the middle of a call."""


# -- when each of them may be raised ------------------------------------------------------------------------


def never(call: Call, error: BaseException) -> bool:
    return False


def launch_failed(call: Call, error: BaseException) -> bool:
    """One that had not got to running has ended, and as the error says."""
    assert isinstance(error, LaunchError)
    if _is_held_up(call, error.__cause__):
        return True
    for launch in call.launches:
        if launch.final is None or launch.had_run or not launch.is_new:
            continue
        if error.state is not launch.final.dest or not error.command:
            continue
        match launch.final.reason:
            case Reason.DEADLINE:
                fits = isinstance(error.__cause__, MachineTimeout) and _is_late(call)
            case Reason.HOOK_FAILED:
                fits = isinstance(error.__cause__, PluginError)
            case Reason.REQUESTED:
                fits = call.beside(*ENDS)
            case Reason.KILLED:
                fits = call.beside("kill")
            case Reason.LAUNCH_ERROR:
                fits = True
            case _:
                fits = False
        if fits:
            return True
    return False


def in_use(call: Call, error: BaseException) -> bool:
    """It was launched already."""
    assert isinstance(error, TransitionError)
    return bool(call.states & ALIVE) and "launch" not in error.allowed and error.event == "launch"


def ended_badly(call: Call, error: BaseException) -> bool:
    assert isinstance(error, AbnormalExit)
    return any(
        one.final is not None and one.final.dest is State.FAILED and one.final.reason is error.reason
        for one in call.launches
        if one.had_run or call.operation == "wait"
    )


def had_ended(call: Call, error: BaseException) -> bool:
    """QEMU has, and if the call had time for it, the machine is in its final state, for that reason."""
    assert isinstance(error, MachineDied)
    if call.end - call.begin >= (call.timeout or 0) - ROUNDING:
        return bool(call.states & FINAL) or _ends(call)
    return any(one.final is not None and one.final.reason is error.reason for one in call.launches)


def is_late(call: Call, error: BaseException) -> bool:
    assert isinstance(error, MachineTimeout)
    return bool(error.operation) and error.timeout == call.timeout and _is_late(call)


def held_up(call: Call, error: BaseException) -> bool:
    """`shutdown` and `kill` give up the clean-up only after the grace."""
    return _is_held_up(call, error)


def not_up(call: Call, error: BaseException) -> bool:
    """There was a moment at which no QEMU had got so far."""
    return not call.launches or not call.launches[0].was_up or call.launches[-1].is_new


def never_launched(call: Call, error: BaseException) -> bool:
    return not call.before


def no_monitor(call: Call, error: BaseException) -> bool:
    return call.subject.kind.monitor == "none"


def monitor_lost(call: Call, error: BaseException) -> bool:
    return bool(call.troubles & LOSES_MONITOR) or _ends(call)


def console_closed(call: Call, error: BaseException) -> bool:
    return "x-close-console" in call.troubles or _ends(call)


def panicked(call: Call, error: BaseException) -> bool:
    return bool(call.troubles & PANICS)


def clean_up_failed(call: Call, error: BaseException) -> bool:
    """A hook raised or lingered, or a companion was lost; or a late one was cancelled."""
    assert isinstance(error, PluginError)
    if error.hook == "companion":
        return "companion" in call.troubles
    if isinstance(error.__cause__, MachineTimeout):
        return True
    hook = f"raise in {'async ' * (error.plugin == 'lingerer')}{error.hook}"
    return hook in call.troubles


def always(call: Call, error: BaseException) -> bool:
    return True


def not_known(call: Call, error: BaseException) -> bool:
    """QEMU knows no orders, and what poses as QEMU knows nothing else."""
    return (call.subject.kind.program in PROGRAMS) is not call.operation.startswith("order")


def no_qemu(call: Call, error: BaseException) -> bool:
    return not_up(call, error) or bool(call.states & FINAL) or _ends(call)


When = Callable[[Call, BaseException], bool]

_WAITING_FOR_QEMU: Mapping[type[BaseException], When] = {
    MachineDied: had_ended,
    MachineTimeout: is_late,
    TransitionError: not_up,
}
_MONITOR: Mapping[type[BaseException], When] = {
    **_WAITING_FOR_QEMU,
    ConfigError: no_monitor,
    QMPConnectionError: monitor_lost,
}
_ENDING: Mapping[type[BaseException], When] = {
    AbnormalExit: ended_badly,
    PluginError: clean_up_failed,
    GuestPanicked: panicked,
    MachineTimeout: held_up,
}

TABLE: Mapping[str, Mapping[type[BaseException], When]] = {
    "launch": {LaunchError: launch_failed, TransitionError: in_use},
    "shutdown": _ENDING,
    "own": {Own: always},
    "kill": {PluginError: clean_up_failed, MachineTimeout: held_up},
    "wait": {**_ENDING, MachineTimeout: is_late, TransitionError: never_launched},
    "run": _WAITING_FOR_QEMU,
    "command": _MONITOR,
    "cont": {**_MONITOR, QMPCommandError: panicked},
    "refused": {**_MONITOR, QMPCommandError: always},
    "order": {**_MONITOR, QMPCommandError: not_known},
    "reconnect": _MONITOR,
    "event": {**_MONITOR, GuestPanicked: panicked},
    "console": {**_WAITING_FOR_QEMU, GuestPanicked: panicked, ConsoleClosed: console_closed},
    "descriptor": {**_MONITOR, TransitionError: no_qemu, QMPCommandError: not_known},
    "unknown": {**_MONITOR, QMPCommandError: not_known},
    "subscribe": {ConfigError: no_monitor},
    "socket": {TransitionError: not_up},
    "follow": {MachineTimeout: is_late, TransitionError: not_up},
    "never": {},
    "monitor": {ConfigError: no_monitor, TransitionError: not_up},
    "greeting": {ConfigError: no_monitor, TransitionError: not_up},
    "mistake": {ConfigError: always},
}
"""By kind of call, the exceptions that it may raise, and when. For what is not there: never."""


def _ends(call: Call) -> bool:
    """Whether QEMU was ending: it is known to have ended a moment after its sockets were closed."""
    vm, before = call.subject.vm, max(0, len(call.before) - 1)
    with contextlib.suppress(AssertionError):
        until(lambda: Event.QUIT in [one.event for one in vm.history[before:]], SLACK)
        return True
    return False


def _is_late(call: Call) -> bool:
    return call.timeout is not None and call.end - call.begin >= call.timeout - ROUNDING


def _is_held_up(call: Call, error: BaseException | None) -> bool:
    late = call.timeout is not None and call.end - call.begin >= call.timeout + GRACE - ROUNDING
    return isinstance(error, MachineTimeout) and late


# -- when each of them must be raised -----------------------------------------------------------------------


def _returned(kind: str, call: Call) -> str | None:
    """What is wrong with a call that has raised nothing."""
    if kind == "launch":
        if not any(one.had_run and one.is_new for one in call.launches) or call.value is not call.subject.vm:
            return "it has not launched the machine"
    elif kind in {"shutdown", "kill"}:
        if not call.states - ALIVE:
            return "the machine has not ended"
        if kind == "shutdown" and _is_to_be_told(call):
            return "it tells nobody of a bad ending"
    elif kind == "wait":
        finals = [one.final for one in call.launches if one.final is not None]
        if not any(one.dest is State.STOPPED or one.reason is Reason.WEDGED for one in finals):
            return "no launch has ended well"
    elif kind in {"mistake", "own", "refused"}:
        return "nothing was raised"
    elif kind in {"command", "cont", "reconnect", "event"}:
        if call.subject.kind.monitor == "none":
            return "there is no monitor"
        if not call.launches:
            return "the machine was never launched"
    return None


def _is_to_be_told(call: Call) -> bool:
    """Whether its thread learns by this call, and no other, that the machine has ended badly."""
    if len(call.launches) != 1 or call.launches[0].is_new:
        return False
    [launch] = call.launches
    bad = launch.had_run and launch.final is not None and launch.final.dest is State.FAILED
    if not bad or launch.final is None or launch.final.reason is Reason.WEDGED:
        return False
    return not any(_tells(other, call, launch) for other in tuple(call.subject.calls))


def _tells(other: Call, call: Call, launch: LaunchSeen) -> bool:
    if other.end < launch.at or other is call:
        return False
    told = AbnormalExit | PluginError | GuestPanicked | Own  # that has it as a note
    return isinstance(other.error, Interrupt) or (other.hand == call.hand and isinstance(other.error, told))


def _in_peace(kind: str, call: Call) -> bool:
    """Whether nothing is a reason for this call not to succeed."""
    subject = call.subject
    if call.troubles - HARMLESS or call.timeout is None or call.timeout < SLACK:
        return False
    if call.beside("launch", *ENDS):
        return False
    if kind == "launch":
        return subject.kind.comes_up and not call.states & {State.RUNNING, State.QUITTING}
    if kind == "command":
        return call.states == {State.RUNNING} and subject.kind.monitor != "none"
    if kind == "shutdown":
        up = call.before and call.before[-1].dest is State.RUNNING
        return bool(up) and subject.kind.goes
    return False


def judge(kind: str, call: Call) -> None:
    """Fail where the call has come to what it may not."""
    error, seconds = call.error, call.end - call.begin
    if call.timeout is not None:
        assert seconds <= call.timeout + GRACE + SLACK, f"it took too long: {call}"
    if call.launches and call.launches[0].final is not None and not call.launches[0].was_over:
        late = call.end - call.launches[0].final.at
        assert late <= GRACE + SLACK, f"it went on for {late:.3f} s when all was over: {call}"
    if isinstance(error, Interrupt):
        _judge_interrupted(kind, call)
        return
    if error is None:
        wrong = _returned(kind, call)
        assert wrong is None, f"{wrong}: {call}"
        return
    whens = [when for allowed, when in TABLE[kind].items() if type(error) is allowed]
    assert whens, f"no such exception is allowed: {call}"
    assert whens[0](call, error), f"it may not be raised here: {call}"
    assert not _in_peace(kind, call), f"there is no reason for it: {call}"
    if isinstance(error, VMError):
        _judge_error(call, error)
    if isinstance(error, Own) and _is_to_be_told(call):
        assert any("and with machine" in note for note in error.__notes__), (
            f"it has no note of the end: {call}"
        )


def _judge_error(call: Call, error: VMError) -> None:
    if not isinstance(error, ConfigError):  # that may know of nothing but what was given
        assert error.machine == call.subject.vm.name, f"of another machine: {call}"
        assert error.state is not None, f"it knows no state: {call}"
    assert str(error).isprintable(), f"it is not for terminals: {call}"
    twin = pickle.loads(pickle.dumps(error))
    assert (type(twin), str(twin)) == (type(error), str(error)), f"it cannot be sent: {call}"


def _judge_interrupted(kind: str, call: Call) -> None:
    """What was begun is over, if the interrupt has hit inside of vmfsm."""
    assert call.hand == "main", f"it was for the main thread: {call}"
    if kind != "launch" or call.beside("launch", *ENDS) or not _hit_inside(call.error):
        return
    assert call.after == call.before or call.after[-1].dest in FINAL, f"the launch goes on: {call}"


def _hit_inside(error: BaseException | None) -> bool:
    traceback = error.__traceback__ if error is not None else None
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == Machine.launch.__code__.co_filename:
            return True
        traceback = traceback.tb_next
    return False
