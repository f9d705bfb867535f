"""What is to come of an act at a point: the rules of docs/lifecycle.md ("Who wins") and docs/endings.md."""

import signal
from dataclasses import dataclass, field

from tests.interleavings.scenes import Point
from vmfsm import (
    AbnormalExit,
    Event,
    LaunchError,
    MachineTimeout,
    PluginError,
    Reason,
    State,
    TransitionError,
)

Error = type[BaseException] | None
End = tuple[State, Reason, int | None]

DEATHS = {"SIGKILL": -signal.SIGKILL, "exits 0": 0, "exits 1": 1}

KILLED = State.STOPPED, Reason.KILLED
REQUESTED = State.STOPPED, Reason.REQUESTED


@dataclass
class Expected:
    """What a scene is to come to. `launched`: it got as far as `running`."""

    end: End
    launched: bool
    main: list[Error]
    others: list[tuple[str, Error]] = field(default_factory=list)
    launched_again: bool = False

    @property
    def events(self) -> list[Event]:
        last = Event.EXITED if self.end[0] is State.STOPPED else Event.FAIL
        again = [Event.LAUNCH, Event.LAUNCHED] if self.launched_again else []
        return [Event.LAUNCH, *([Event.LAUNCHED] if self.launched else []), Event.QUIT, last, *again]


def phase(point: Point) -> str:
    """How far the life has come at the point."""
    if point.event is Event.LAUNCH:
        return "begun"
    if point.event is Event.LAUNCHED:
        return "coming up" if point.place.endswith("hook") else "up"
    if point.event is Event.QUIT:
        return "ending"
    return "over" if point.place == "after" else "decided"


def impossible(point: Point, acts: tuple[str, ...]) -> str | None:
    """Why this can't happen there."""
    has_qemu = phase(point) in {"coming up", "up"} or (phase(point), point.life) == ("ending", "asked")
    if not has_qemu and not DEATHS.keys().isdisjoint(acts):
        return "no QEMU is there that could die, or it is dying already"
    return None


def expected(point: Point, acts: tuple[str, ...]) -> Expected:
    here = phase(point)
    if here == "begun":
        result = _launching(point, acts, None)
    elif here == "coming up":
        result = _launching(point, acts, -signal.SIGTERM)
    elif here == "up" or (here, point.life) == ("ending", "asked"):
        result = _running(acts, in_shutdown=here == "ending")
    else:
        result = _decided(point, acts)
    return result


def _launching(point: Point, acts: tuple[str, ...], term: int | None) -> Expected:
    """Before the last hook is over, whatever comes first makes the launch fail; but kill() is kill().

    A plain hook holds up the end, so that more can happen; an async one is cancelled.
    """
    kill = None if term is None else -signal.SIGKILL
    first = point.place == "async hook"
    for act in acts:
        end: End
        if act in DEATHS:
            end = State.FAILED, Reason.LAUNCH_ERROR, DEATHS[act]
        elif act == "kill" or ("kill" in acts and not first):
            end = (*KILLED, kill)
        elif act == "shutdown":
            died = [DEATHS[other] for other in acts if other in DEATHS and not first]
            end = (*REQUESTED, died[0] if died else term)
        elif act == "interrupt":
            end = State.FAILED, Reason.LAUNCH_ERROR, kill
        elif act == "deadline":
            end = State.FAILED, Reason.DEADLINE, kill
        else:
            continue
        error: Error = KeyboardInterrupt if "interrupt" in acts else LaunchError
        others: list[tuple[str, Error]] = [(name, None) for name in acts if name in {"kill", "shutdown"}]
        return Expected(end, False, [error], others)
    others = []
    for act in acts:
        others += [("launch", TransitionError)] * {"launch": 1, "same": 2}.get(act, 0)
        others += [("wait", None)] * (act == "wait")
    # The life goes on: shutdown() after launch().
    return Expected((*REQUESTED, -signal.SIGTERM), True, [None, None], others)


def _running(acts: tuple[str, ...], *, in_shutdown: bool) -> Expected:
    """A death is what it was, unless kill() or shutdown() came before it."""
    end: End = (*REQUESTED, -signal.SIGTERM)
    asked = in_shutdown
    for act in acts:
        if act in DEATHS:
            status = DEATHS[act]
            if status < 0:
                end = State.FAILED, Reason.QEMU_SIGNAL, status
            elif status > 0:
                end = State.FAILED, Reason.QEMU_EXIT, status
            else:
                end = (*REQUESTED, 0) if asked else (State.STOPPED, Reason.QEMU_EXIT, 0)
            break
        if act == "kill":
            end = (*KILLED, -signal.SIGKILL)
            break
        if act == "interrupt" and not in_shutdown:
            end = State.FAILED, Reason.LAUNCH_ERROR, -signal.SIGKILL
            break
        if act == "deadline" and in_shutdown:
            end = State.FAILED, Reason.WEDGED, -signal.SIGKILL
            break
        asked = asked or act == "shutdown"
    bad: Error = AbnormalExit if end[0] is State.FAILED else None
    main: list[Error] = [None, bad]
    if "interrupt" in acts:
        main = [None, KeyboardInterrupt] if in_shutdown else [KeyboardInterrupt]
    others: list[tuple[str, Error]] = []
    for act in acts:
        if act in {"kill", "shutdown", "wait"}:
            others.append((act, None if act == "kill" else bad))
        elif act == "launch":
            others.append(("launch", TransitionError))
        elif act == "same":
            others += [("shutdown", None) if in_shutdown else ("launch", TransitionError)] * 2
    return Expected(end, True, main, others)


def _decided(point: Point, acts: tuple[str, ...]) -> Expected:
    """How it ends is decided: nothing that is asked for changes it."""
    life = point.life
    # What is asked for while the I/O thread is at the last transition is served after it.
    over = phase(point) == "over" or (phase(point) == "decided" and point.holds_io_thread)
    if life == "asked":
        result = Expected((*REQUESTED, -signal.SIGTERM), True, [None, None])
    elif life == "died":
        result = Expected((State.FAILED, Reason.QEMU_EXIT, 3), True, [None, AbnormalExit])
    else:
        result = Expected((State.FAILED, Reason.HOOK_FAILED, -signal.SIGKILL), False, [LaunchError])
    bad = result.main[-1]
    if "interrupt" in acts:
        result.main[-1] = KeyboardInterrupt
    is_known = point.event is Event.FAIL and not point.place.endswith("hook")
    if "deadline" in acts and life == "died" and not is_known:
        result.main[-1] = MachineTimeout
    if acts == ("deadline",) and life == "asked" and point.place == "async hook":
        result.main[-1] = PluginError  # the hook was late
    for act in acts:
        if act == "launch" or (act == "same" and life == "broken"):
            result.launched_again |= over
            times = 1 if act == "launch" else 2
            result.others += [("launch", None if over and not n else TransitionError) for n in range(times)]
        elif act == "same":
            result.others += [("shutdown", None) if life == "asked" else ("wait", AbnormalExit)] * 2
        elif act == "wait":
            result.others.append(("wait", AbnormalExit if bad else None))
        elif act == "shutdown":
            result.others.append(("shutdown", AbnormalExit if life == "died" else None))
        elif act == "kill":
            result.others.append(("kill", None))
    return result
