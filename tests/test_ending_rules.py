"""What an ending means: the rules alone, without a process."""

import signal
from signal import SIGKILL, SIGSEGV, SIGTERM
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmfsm import Reason, State
from vmfsm.ending import Facts, final_state

RUNNING = Facts(
    ended=False,
    exit_status=None,
    cause=None,
    expected_exits=frozenset({0}),
    asked=False,
    asked_guest=False,
    killed=False,
    forced=False,
    signals=frozenset(),
    condemned=False,
    oom=False,
)
BY_GUEST = ["guest-shutdown", "guest-reset"]
CAUSES = [None, *BY_GUEST, "host-qmp-quit", "host-signal", "host-error", "guest-panic"]


def ended(status: int | None, cause: str | None = None, **known: Any) -> tuple[State, Reason]:
    return final_state(RUNNING._replace(ended=True, exit_status=status, cause=cause, **known))


@pytest.mark.parametrize(
    ("status", "cause", "reason"),
    [
        (0, "guest-shutdown", Reason.GUEST_SHUTDOWN),
        (0, "guest-reset", Reason.GUEST_SHUTDOWN),
        (0, "host-qmp-quit", Reason.REQUESTED),
        (0, "host-signal", Reason.QEMU_EXIT),
        (0, None, Reason.QEMU_EXIT),
    ],
)
def test_unasked_and_well(status: int, cause: str | None, reason: Reason) -> None:
    assert ended(status, cause) == (State.STOPPED, reason)


@pytest.mark.parametrize("cause", CAUSES)
def test_unasked_with_a_status_that_is_not_expected(cause: str | None) -> None:
    assert ended(1, cause) == (State.FAILED, Reason.QEMU_EXIT)


def test_a_status_that_is_expected_is_a_good_ending() -> None:
    assert ended(7, expected_exits={7}) == (State.STOPPED, Reason.QEMU_EXIT)
    assert ended(0, expected_exits={7}) == (State.FAILED, Reason.QEMU_EXIT)


def test_0_is_good_where_qemu_was_asked_to_go() -> None:
    assert ended(0, "host-qmp-quit", expected_exits={7}) == (State.STOPPED, Reason.REQUESTED)
    assert ended(0, expected_exits={7}, asked=True) == (State.STOPPED, Reason.REQUESTED)
    assert ended(1, "host-qmp-quit", expected_exits={7}, asked=True) == (State.FAILED, Reason.QEMU_EXIT)


@pytest.mark.parametrize("number", [SIGSEGV, SIGTERM, SIGKILL])
@pytest.mark.parametrize("asked", [False, True])
def test_a_signal_of_somebody_else(number: signal.Signals, asked: bool) -> None:
    assert ended(-number, asked=asked) == (State.FAILED, Reason.QEMU_SIGNAL)


def test_out_of_memory_only_where_the_control_group_and_the_signal_agree() -> None:
    assert ended(-SIGKILL, oom=True) == (State.FAILED, Reason.OOM_KILLED)
    assert ended(-SIGSEGV, oom=True) == (State.FAILED, Reason.QEMU_SIGNAL)
    assert ended(1, oom=True) == (State.FAILED, Reason.QEMU_EXIT)


def test_our_own_kill_is_no_failure_whatever_the_control_group_counted() -> None:
    facts: dict[str, Any] = {"asked": True, "killed": True, "signals": {SIGKILL}, "oom": True}
    assert ended(-SIGKILL, **facts) == (State.STOPPED, Reason.KILLED)


@pytest.mark.parametrize("status", [-SIGTERM, 128 + SIGTERM, 0])
def test_sigterm_is_polite_where_there_is_no_other_way(status: int) -> None:
    """A shell that wraps QEMU reports its signal as a status."""
    assert ended(status, asked=True, signals={SIGTERM}) == (State.STOPPED, Reason.REQUESTED)


@pytest.mark.parametrize("status", [-SIGTERM, -SIGKILL, 128 + SIGKILL])
def test_forced(status: int) -> None:
    facts: dict[str, Any] = {"asked": True, "forced": True, "signals": {SIGTERM, SIGKILL}}
    assert ended(status, **facts) == (State.FAILED, Reason.WEDGED)


@pytest.mark.parametrize("cause", [None, "host-signal"])
def test_forced_by_a_sigterm_that_qemu_takes_well(cause: str | None) -> None:
    facts: dict[str, Any] = {"asked": True, "forced": True, "signals": {SIGTERM}}
    assert ended(0, cause, **facts) == (State.FAILED, Reason.WEDGED)


def test_a_signal_that_came_too_late_forced_nothing() -> None:
    facts: dict[str, Any] = {"asked": True, "forced": True, "signals": {SIGTERM}}
    assert ended(0, "host-qmp-quit", **facts) == (State.STOPPED, Reason.REQUESTED)


@pytest.mark.parametrize("cause", BY_GUEST)
def test_the_guest_that_was_asked_to_power_off(cause: str) -> None:
    assert ended(0, cause, asked=True, asked_guest=True) == (State.STOPPED, Reason.REQUESTED)
    assert ended(0, cause, asked=True, asked_guest=False) == (State.STOPPED, Reason.GUEST_SHUTDOWN)


def test_a_crash_while_it_goes_politely_is_a_crash() -> None:
    assert ended(-SIGSEGV, "host-qmp-quit", asked=True) == (State.FAILED, Reason.QEMU_SIGNAL)


class TestWithoutStatus:
    """The host program throws exit statuses away."""

    @pytest.mark.parametrize("cause", CAUSES)
    def test_asked(self, cause: str | None) -> None:
        assert ended(None, cause, asked=True) == (State.STOPPED, Reason.REQUESTED)

    def test_killed(self) -> None:
        assert ended(None, killed=True) == (State.STOPPED, Reason.KILLED)

    def test_what_qemu_said_vouches_for_a_good_ending(self) -> None:
        assert ended(None, "guest-shutdown") == (State.STOPPED, Reason.GUEST_SHUTDOWN)
        assert ended(None, "host-qmp-quit") == (State.STOPPED, Reason.REQUESTED)

    @pytest.mark.parametrize("cause", [None, "host-signal"])
    def test_nothing_vouches_for_it(self, cause: str | None) -> None:
        assert ended(None, cause) == (State.FAILED, Reason.QEMU_EXIT)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, (State.STOPPED, Reason.REQUESTED)),
        ({"killed": True}, (State.STOPPED, Reason.KILLED)),
        ({"forced": True}, (State.FAILED, Reason.WEDGED)),
    ],
)
def test_before_it_has_ended(facts: dict[str, Any], expected: tuple[State, Reason]) -> None:
    assert final_state(RUNNING._replace(asked=True, **facts)) == expected


FACTS = st.builds(
    Facts,
    ended=st.booleans(),
    exit_status=st.none() | st.integers(-64, 255),
    cause=st.sampled_from(CAUSES),
    expected_exits=st.frozensets(st.integers(0, 255), max_size=3),
    asked=st.booleans(),
    asked_guest=st.booleans(),
    killed=st.booleans(),
    forced=st.booleans(),
    condemned=st.booleans(),
    signals=st.frozensets(st.sampled_from([SIGTERM, SIGKILL])),
    oom=st.booleans(),
)
FAILURES = {Reason.GUEST_PANICKED, Reason.WEDGED, Reason.QEMU_EXIT, Reason.QEMU_SIGNAL, Reason.OOM_KILLED}
SUCCESSES = {Reason.REQUESTED, Reason.GUEST_SHUTDOWN, Reason.QEMU_EXIT, Reason.KILLED}


@given(FACTS)
def test_whatever_is_known_there_is_a_verdict_and_its_reason_fits(facts: Facts) -> None:
    state, reason = final_state(facts)
    assert (state, reason) in {(State.STOPPED, r) for r in SUCCESSES} | {(State.FAILED, r) for r in FAILURES}


@given(FACTS)
def test_an_expected_exit_is_never_a_failure_unless_we_forced_it(facts: Facts) -> None:
    status = facts.exit_status
    if facts.ended and status in facts.expected_exits and not (facts.forced or facts.condemned):
        assert final_state(facts)[0] is State.STOPPED


@given(FACTS)
def test_nobody_is_blamed_for_what_they_did_not_do(facts: Facts) -> None:
    _, reason = final_state(facts)
    assert (reason is Reason.GUEST_PANICKED) == facts.condemned
    assert reason is not Reason.KILLED or facts.killed
    assert reason is not Reason.WEDGED or facts.forced
    assert reason is not Reason.OOM_KILLED or facts.oom


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("asked", [False, True])
def test_exit_0_is_no_failure_whoever_came_first(asked: bool, cause: str | None) -> None:
    assert ended(0, cause, asked=asked)[0] is State.STOPPED
