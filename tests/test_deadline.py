"""One deadline for a whole call: it counts down, scales, and refuses what is no time."""

import math
import time

import pytest

from vmfsm import ConfigError, Deadline
from vmfsm.clock import Clock


def test_it_counts_down_to_its_end() -> None:
    begin = time.monotonic()
    deadline = Deadline(0.05)
    left = []
    while not deadline.expired:
        left.append(deadline.remaining())
        time.sleep(0.002)
    assert time.monotonic() - begin >= 0.05
    assert all(seconds is not None and 0 < seconds <= 0.05 for seconds in left[:1])
    assert left == sorted(left, key=lambda seconds: -(seconds or 0.0))
    assert deadline.remaining() == 0.0, "never below"
    assert deadline.timeout == 0.05


@pytest.mark.parametrize("timeout", [None, math.inf])
def test_no_limit(timeout: float | None) -> None:
    deadline = Deadline(timeout)
    assert (deadline.timeout, deadline.remaining(), deadline.expired) == (None, None, False)
    assert deadline.nap() is None
    assert deadline.leaving(5) is deadline


def test_none_left() -> None:
    assert Deadline(0).expired
    assert Deadline(0).remaining() == 0.0


def test_int_and_float_mean_the_same() -> None:
    assert Deadline(3).timeout == Deadline(3.0).timeout == 3.0


@pytest.mark.parametrize("timeout", [-1, -0.001, -math.inf, math.nan, "5", b"5", True, False, [], 1j])
def test_what_is_no_time_is_refused(timeout: object) -> None:
    with pytest.raises(ConfigError) as caught:
        Deadline(timeout)  # type: ignore[arg-type]  # that is the point
    assert caught.value.field == "timeout"
    assert repr(timeout) in str(caught.value)


def test_leaving_grants_a_least_time() -> None:
    late = Deadline(0)
    granted = late.leaving(1000)
    assert late.expired, "the deadline itself stays as it is"
    assert granted.timeout == 0, "messages speak of what the user asked for"
    remaining = granted.remaining()
    assert remaining is not None
    assert 999 < remaining <= 1000
    enough = Deadline(1000)
    assert enough.leaving(1) is enough


def test_timeouts_are_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMFSM_TIMEOUT_SCALE", "2.5")
    deadline = Deadline(4)
    assert deadline.timeout == 10.0
    remaining = deadline.remaining()
    assert remaining is not None
    assert 9 < remaining <= 10
    assert Deadline(None).timeout is None
    assert Deadline(0).expired


@pytest.mark.parametrize("scale", ["", "1"])
def test_no_scale(monkeypatch: pytest.MonkeyPatch, scale: str) -> None:
    monkeypatch.setenv("VMFSM_TIMEOUT_SCALE", scale)
    assert Deadline(4).timeout == 4


@pytest.mark.parametrize("scale", ["0", "-1", "nan", "inf", "two", "2x", " "])
def test_garbage_as_a_scale_is_refused(monkeypatch: pytest.MonkeyPatch, scale: str) -> None:
    monkeypatch.setenv("VMFSM_TIMEOUT_SCALE", scale)
    with pytest.raises(ConfigError) as caught:
        Deadline(4)
    assert caught.value.field == "VMFSM_TIMEOUT_SCALE"
    assert repr(scale) in str(caught.value)


def test_it_says_what_it_is() -> None:
    clock = Clock()
    deadline = Deadline(0, clock)
    assert repr(deadline) == "<Deadline timeout=0.0 remaining=0.0>"
    clock.stop()
    assert repr(deadline) == "<Deadline timeout=0.0 remaining=0.0 stands still>"
