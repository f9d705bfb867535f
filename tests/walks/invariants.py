"""What holds of a machine at any moment, and what when a walk is over."""

from pathlib import Path

from tests.endings import assert_path
from tests.waiting import until
from tests.walks.meddling import HOOKS
from tests.walks.oracle import SLACK
from tests.walks.subject import FINAL, Subject
from vmfsm import Event, Machine, Reason, State, Transition
from vmfsm.lifecycle import ALIVE, INITIAL
from vmfsm.lifecycle import TABLE as LIFECYCLE

ROWS = {(row.event, source, row.dest) for row in LIFECYCLE for source in row.sources}
FAILED_LAUNCH = {Reason.LAUNCH_ERROR, Reason.HOOK_FAILED, Reason.DEADLINE}
GOOD = {Reason.REQUESTED, Reason.GUEST_SHUTDOWN, Reason.KILLED, Reason.QEMU_EXIT}
BAD = {Reason.QEMU_EXIT, Reason.QEMU_SIGNAL, Reason.WEDGED}


def check_now(subject: Subject) -> None:
    """While other threads do what they like."""
    vm = subject.vm
    history = vm.history
    _check_path(history)
    state, reason, pid = vm.state, vm.reason, vm.pid
    meanwhile = vm.history
    assert meanwhile[: len(history)] == history, "the past has changed"
    passed = [None, *meanwhile][len(history) :]
    states = [one.dest if one else INITIAL for one in passed]
    assert state in states, f"{state} is not in the history: {states}"
    assert reason in [one.reason if one else None for one in passed]
    if pid is not None:
        assert set(states) & ALIVE, f"pid {pid} in {states}"
        _check_process(vm, pid)
    elif states == [State.RUNNING]:
        until(lambda: vm.history[len(history) :], SLACK)  # its QEMU has ended a moment ago
    _check_status(vm)


def _check_path(history: tuple[Transition, ...]) -> None:
    state, at = INITIAL, 0.0
    had_run = False
    for one in history:
        assert one[:3] in ROWS, f"no row of the table: {one}"
        assert one.source is state, f"no path: {history}"
        assert one.at >= at, f"time goes back: {history}"
        state, at = one.dest, one.at
        had_run = one.event is Event.LAUNCHED or (had_run and one.event is not Event.LAUNCH)
        _check_reason(one, had_run=had_run)


def _check_reason(one: Transition, *, had_run: bool) -> None:
    """By the tables of `docs/endings.md`."""
    if one.event in {Event.LAUNCH, Event.LAUNCHED}:
        assert one.reason is None, one
    elif one.dest is State.STOPPED:
        assert one.reason in (GOOD if had_run else {Reason.REQUESTED, Reason.KILLED}), one
    elif one.dest is State.FAILED:
        # An interrupted launch may have got as far as running.
        assert one.reason in (BAD | {Reason.LAUNCH_ERROR} if had_run else FAILED_LAUNCH), one
    else:
        assert one.reason is not None, one


def _check_process(vm: Machine, pid: int) -> None:
    """It is one, as long as the machine says so."""
    try:
        is_one = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        is_one = False
    if not is_one:
        until(lambda: vm.pid != pid, SLACK)


def _check_status(vm: Machine) -> None:
    """The exit status agrees with the reason, unless it is launched again meanwhile."""
    history = vm.history
    if history and history[-1].dest in FINAL:
        until(lambda: _fits(history[-1], vm.exit_status) or vm.history != history, SLACK)


def _fits(end: Transition, status: int | None) -> bool:
    match end.reason:
        case Reason.QEMU_SIGNAL:
            return status is not None and status < 0
        case Reason.QEMU_EXIT | Reason.GUEST_SHUTDOWN:
            return status is not None and (status == 0 if end.dest is State.STOPPED else status > 0)
        case Reason.WEDGED:
            return status is not None
        case _:
            return True


def check_end(subject: Subject) -> None:
    """When everything is over."""
    vm = subject.vm
    assert vm.state in {State.CONFIGURED, *FINAL}, vm
    assert (vm.pid, vm.run_state) == (None, None)
    if vm.history:
        assert_path(vm)
    check_now(subject)
    # What the `with` block's exception marks has the time of that, in its own thread.
    times = [record.at for record in vm.timeline if record.data.get("by") != "with"]
    assert times == sorted(times)
    launches = sum(one.event is Event.LAUNCH for one in vm.history)
    for plugin in (subject.meddler, subject.lingerer):
        ran = plugin.ran
        for hook in ("early_cleanup", "post_shutdown"):
            assert ran[hook] == launches, (
                f"{plugin.name}: {hook} ran {ran[hook]} times in {launches} launches"
            )
        assert ran["post_launch"] <= launches, ran
        assert ran["pre_launch"] <= launches, ran
        assert set(ran) <= set(HOOKS)
    # Registered before the count: a launch that is cancelled in between has one more of these.
    for plugin in (subject.meddler, subject.lingerer):
        assert plugin.ran["defer"] >= plugin.ran["pre_launch"], plugin.ran
