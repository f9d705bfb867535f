"""Events: in order, none lost, none stale, waited for and matched."""

import logging
import threading
import time
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vmfsm_plugins.qmp.events import MOST_BYTES, SIZE, EventRing, matches

from tests.plugins.monitors import MakeMachine
from tests.waiting import SLACK, InThread, until
from vmfsm import ConfigError, Machine, MachineDied, MachineTimeout
from vmfsm.testing import FakeQEMU
from vmfsm.testing import actions as do

EVENT = '{"event": "STEP", "data": {"n": $number}, "timestamp": {"seconds": 1, "microseconds": 2}}\r\n'


def flooding(number: int, event: str = EVENT) -> FakeQEMU:
    """One that does this: on `flood`, send so many events and then the reply."""
    return FakeQEMU(on={"flood": [do.send(event, times=number), do.reply()]})


def numbers(events: list[dict[str, Any]]) -> list[int]:
    return [event["data"]["n"] for event in events]


def test_a_wait_after_the_command_finds_its_event(monitored: MakeMachine) -> None:
    vm = monitored()
    for _ in range(50):
        vm.qmp.execute("stop")
        vm.qmp.execute("cont")
        assert vm.qmp.wait_event("STOP", timeout=0)["event"] == "STOP"
        assert vm.qmp.wait_event("RESUME", timeout=0)["event"] == "RESUME"
        with pytest.raises(MachineTimeout):
            vm.qmp.wait_event("STOP", timeout=0)  # it was given: a stale one would be found here


def test_events_of_another_order_are_still_there(monitored: MakeMachine) -> None:
    vm = monitored()
    vm.qmp.execute("stop")
    vm.qmp.execute("cont")
    assert vm.qmp.wait_event("RESUME", timeout=0)["event"] == "RESUME"
    assert vm.qmp.wait_event("STOP", timeout=0)["event"] == "STOP"


def test_since_a_mark(monitored: MakeMachine) -> None:
    vm = monitored()
    vm.qmp.execute("stop")
    mark = vm.qmp.mark()
    with pytest.raises(MachineTimeout):
        vm.qmp.wait_event("STOP", since=mark, timeout=0)
    vm.qmp.execute("cont")
    vm.qmp.execute("stop")
    first = vm.qmp.wait_event("STOP", since=mark)
    assert vm.qmp.wait_event("STOP", since=mark) == first, "a mark is a place: it may be used again"
    assert [event["event"] for event in vm.qmp.events(mark)] == ["RESUME", "STOP"]
    assert vm.qmp.events(vm.qmp.mark()) == []


def test_events_gives_each_once_without_a_mark(monitored: MakeMachine) -> None:
    vm = monitored(fake=flooding(100))
    vm.qmp.execute("flood")
    assert vm.qmp.wait_event("STEP", match={"data": {"n": 50}})["data"] == {"n": 50}
    assert numbers(vm.qmp.events()) == [n for n in range(1, 101) if n != 50]
    assert vm.qmp.events() == []


def test_waiting_for_what_comes_later(monitored: MakeMachine) -> None:
    vm = monitored(fake=flooding(3))
    mark = vm.qmp.mark()
    second = InThread(vm.qmp.wait_event, "STEP", match={"data": {"n": 2}}, timeout=None)
    either = InThread(vm.qmp.wait_any, [("OTHER", None), ("STEP", {"data": {"n": 3}})], since=mark)
    first = [InThread(vm.qmp.wait_event, "STEP") for _ in range(3)]
    until(lambda: len(vm.qmp._session.ring._waits) == 5)  # type: ignore[attr-defined]
    vm.qmp.execute("flood")
    assert second.result()["data"]["n"] == 2
    assert either.result()["data"]["n"] == 3
    assert [call.result()["data"]["n"] for call in first] == [1, 1, 1], "all of them had been waiting"


def test_a_wait_that_is_over_leaves_the_event_to_the_next(monitored: MakeMachine) -> None:
    vm = monitored(fake=flooding(1))
    outcomes = set()
    for n in range(100):
        with pytest.raises(MachineTimeout):
            vm.qmp.wait_event("STEP", timeout=0)
        waiting = InThread(vm.qmp.wait_event, "STEP", timeout=n * 0.0001 if n < 99 else 30)
        if n == 0:
            waiting.join()
        vm.qmp.execute("flood")
        waiting.join()
        outcomes.add(type(waiting.error))
        if isinstance(waiting.error, MachineTimeout):
            assert vm.qmp.wait_event("STEP", timeout=0)["data"] == {"n": 1}
        assert vm.qmp.events() == []
    assert outcomes == {MachineTimeout, type(None)}
    assert vm.qmp._session.ring._waits == []  # type: ignore[attr-defined]


def test_none_is_lost_and_the_order_is_kept(monitored: MakeMachine) -> None:
    vm = monitored(fake=flooding(2_000))
    heard: list[int] = []
    vm.qmp.subscribe(lambda event: heard.append(event["data"]["n"]))
    mark = vm.qmp.mark()
    for _ in range(3):
        vm.qmp.execute("flood")
    assert heard == list(range(1, 2_001)) * 3
    assert numbers(vm.qmp.events(mark)) == heard
    assert len(vm.timeline) < 2_500, "however many come, the timeline is bounded"


def test_a_mark_that_fell_out(monitored: MakeMachine) -> None:
    vm = monitored(fake=flooding(SIZE))
    mark = vm.qmp.mark()
    vm.qmp.execute("flood")
    assert numbers(vm.qmp.events(mark)) == list(range(1, SIZE + 1))
    late = vm.qmp.mark()
    vm.qmp.execute("flood")
    for call in (
        lambda: vm.qmp.events(mark),
        lambda: vm.qmp.wait_event("STEP", since=mark),
        lambda: vm.qmp.wait_any([("STEP", None)], since=mark),
    ):
        with pytest.raises(ConfigError, match="not kept any more") as caught:
            call()
        assert caught.value.field == "since"
    assert len(vm.qmp.events(late)) == SIZE


def test_marks_of_others(monitored: MakeMachine) -> None:
    vm, other = monitored(), monitored()
    mark = vm.qmp.mark()
    for wrong in (other.qmp.mark(), 0, "mark"):
        with pytest.raises(ConfigError, match="mark"):
            vm.qmp.wait_event("STOP", since=wrong)
    vm.shutdown()
    vm.launch()
    with pytest.raises(ConfigError, match="another launch"):
        vm.qmp.events(mark)


def test_events_stay_until_the_next_launch(monitored: MakeMachine) -> None:
    vm = monitored()
    mark = vm.qmp.mark()
    vm.qmp.execute("stop")
    vm.shutdown()
    assert [event["event"] for event in vm.qmp.events(mark)] == ["STOP", "SHUTDOWN"]
    assert vm.qmp.wait_event("SHUTDOWN", since=mark)["data"]["reason"] == "host-qmp-quit"
    with pytest.raises(MachineDied):
        vm.qmp.wait_event("RESUME", since=mark)
    vm.launch()
    assert vm.qmp.events() == []
    with pytest.raises(MachineTimeout):
        vm.qmp.wait_event("SHUTDOWN", timeout=0)


def test_the_last_event_is_found_however_the_wait_and_the_end_race(monitored: MakeMachine) -> None:
    for _ in range(20):
        vm = monitored()
        mark = vm.qmp.mark()
        waiting = InThread(vm.qmp.wait_event, "SHUTDOWN", since=mark, timeout=None)
        vm.qmp.execute("quit")
        assert waiting.result()["data"]["reason"] == "host-qmp-quit"
        assert vm.wait(10) == 0


def test_what_is_given_may_be_changed(monitored: MakeMachine) -> None:
    vm = monitored(fake=flooding(1))
    vm.qmp.subscribe(lambda event: event.clear())
    mark = vm.qmp.mark()
    vm.qmp.execute("flood")
    vm.qmp.wait_event("STEP", since=mark).clear()
    vm.qmp.events(mark)[0]["data"].clear()
    assert numbers(vm.qmp.events(mark)) == [1]


def test_subscribing(monitored: MakeMachine) -> None:
    vm = monitored(launch=False)
    heard: list[str] = []
    threads: set[str] = set()

    def hear(event: dict[str, Any]) -> None:
        heard.append(event["event"])
        threads.add(threading.current_thread().name)

    unsubscribe = vm.qmp.subscribe(hear)
    vm.qmp.subscribe(hear)()  # another one, which ends at once
    vm.launch()
    vm.qmp.execute("stop")
    assert heard == ["STOP"]
    vm.shutdown()
    assert heard == ["STOP", "SHUTDOWN"]
    vm.launch()
    unsubscribe()
    unsubscribe()
    vm.qmp.execute("stop")
    assert heard == ["STOP", "SHUTDOWN"]
    assert threads == {"vmfsm-io"}


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), SystemExit(3)])
def test_a_subscriber_that_raises(
    monitored: MakeMachine,
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
) -> None:
    vm = monitored()
    heard: list[str] = []

    def fail(event: dict[str, Any]) -> None:
        heard.append("failing")
        raise error

    vm.qmp.subscribe(fail)
    vm.qmp.subscribe(lambda event: heard.append("good"))
    vm.qmp.execute("stop")
    vm.qmp.execute("cont")
    assert heard == ["failing", "good", "good"]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert vm.name in record.getMessage()
    assert record.exc_info
    assert record.exc_info[1] is error
    caplog.clear()


async def coroutine(event: dict[str, Any]) -> None:
    raise AssertionError("never called")


@pytest.mark.parametrize("callback", [None, 5, coroutine])
def test_what_is_no_subscriber(monitored: MakeMachine, callback: Any) -> None:
    with pytest.raises(ConfigError):
        monitored(launch=False).qmp.subscribe(callback)


@pytest.mark.parametrize(
    "wait",
    [
        lambda vm: vm.qmp.wait_event(""),
        lambda vm: vm.qmp.wait_event(None),
        lambda vm: vm.qmp.wait_event("STOP", match="x"),
        lambda vm: vm.qmp.wait_event("STOP", match={"data": object()}),
        lambda vm: vm.qmp.wait_event("STOP", match={"data": {1, 2}}),
        lambda vm: vm.qmp.wait_event("STOP", match={"data": float("nan")}),
        lambda vm: vm.qmp.wait_any([("STOP", {"data": b"bytes"})]),
        lambda vm: vm.qmp.wait_event("STOP", timeout=-1),
        lambda vm: vm.qmp.wait_event("STOP", timeout="soon"),
        lambda vm: vm.qmp.wait_any([]),
        lambda vm: vm.qmp.wait_any("STOP"),
        lambda vm: vm.qmp.wait_any(None),
        lambda vm: vm.qmp.wait_any([("STOP",)]),
        lambda vm: vm.qmp.wait_any([5]),
        lambda vm: vm.qmp.wait_any({"STOP": None}),
    ],
)
def test_what_cannot_be_waited_for(
    monitored: MakeMachine,
    wait: Callable[[Machine], object],
) -> None:
    vm = monitored()
    with pytest.raises(ConfigError):
        wait(vm)


class Hostile(str):
    """A string that must not be compared."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        raise ValueError("its truth is ambiguous")


def test_what_is_matched_with_is_copied(monitored: MakeMachine) -> None:
    vm = monitored(fake=flooding(2, EVENT.replace("$number", '"x", "m": $number')))
    match = {"data": MappingProxyType({"n": Hostile("x"), "m": 2})}
    waiting = InThread(vm.qmp.wait_event, "STEP", match=match)
    until(lambda: vm.qmp._session.ring._waits)  # type: ignore[attr-defined]
    match.clear()
    vm.qmp.execute("flood")
    assert waiting.result()["data"] == {"n": "x", "m": 2}


@pytest.mark.parametrize("name", ["GUEST_PANICKED", "WATCHDOG", "SHUTDOWN", "MIGRATION"])
def test_events_with_data_of_other_types(monitored: MakeMachine, name: str) -> None:
    data = '"data": {"action": [1], "reason": {"a": 1}, "status": [], "n": $number}'
    vm = monitored(fake=flooding(1, f'{{"event": "{name}", {data}}}\r\n'))
    vm.qmp.execute("flood")
    assert numbers(vm.qmp.events()) == [1]


def test_messages_name_the_wait(monitored: MakeMachine) -> None:
    vm = monitored()
    began = time.monotonic()
    with pytest.raises(MachineTimeout, match=r"wait_event\('RESET'\) timed out after 0.05 s"):
        vm.qmp.wait_event("RESET", timeout=0.05)
    with pytest.raises(MachineTimeout, match=r"wait_any\('RESET, STOP'\)"):
        vm.qmp.wait_any([("RESET", None), ("STOP", {"data": {"x": 1}})], timeout=0.05)
    assert time.monotonic() - began < SLACK


def test_large_events_are_not_kept_in_records(monitored: MakeMachine) -> None:
    large = '{"event": "STEP", "data": {"n": $number, "x": "' + "x" * 5_000 + '"}}\r\n'
    vm = monitored(fake=flooding(1, large))
    vm.qmp.execute("flood")
    (record,) = (record for record in vm.timeline if record.kind == "qmp-event")
    assert record.data["event"] == "STEP"
    assert record.data["bytes"] == len(large.replace("$number", "1"))
    assert len(vm.qmp.wait_event("STEP")["data"]["x"]) == 5_000


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)


def thinned(value: Any, data: st.DataObject) -> Any:
    """A pattern that `value` has to match: parts left out, parts made any value."""
    if data.draw(st.booleans()):
        return None
    if isinstance(value, dict):
        keys = data.draw(st.sets(st.sampled_from(sorted(value)))) if value else ()
        return {key: thinned(value[key], data) for key in keys}
    if isinstance(value, list):
        return [thinned(item, data) for item in value]
    return value


@given(values, st.data())
def test_a_part_matches(value: Any, data: st.DataObject) -> None:
    assert matches(value, thinned(value, data))
    assert matches(value, value)


@pytest.mark.parametrize(
    ("value", "pattern"),
    [
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"b": None}),
        ({"a": {"b": 1}}, {"a": {"b": 1, "c": None}}),
        ({"a": 1}, {"a": {"b": None}}),
        ({"a": {"b": 1}}, {"a": 1}),
        ([1, 2], [1]),
        ([{"a": 1}], [{"a": 2}]),
        ("ab", ["a", "b"]),
        (1, "1"),
    ],
)
def test_what_does_not_match(value: Any, pattern: Any) -> None:
    assert not matches(value, pattern)


def test_events_of_any_size_do_not_take_all_memory() -> None:
    """A QEMU that was taken over may send such. (The last one is there, however large it is.)"""
    ring = EventRing()
    mark = ring.mark()
    for number in range(200):
        ring.add({"event": "LARGE"}, b'{"n": %d}' % number + b" " * (MOST_BYTES // 100))
    kept = [event["n"] for event in ring.take_all()]
    assert kept == list(range(200 - len(kept), 200))
    assert 95 <= len(kept) <= 100
    with pytest.raises(ConfigError, match="not kept any more"):
        ring.take_all(mark)
    ring.add({"event": "HUGE"}, b"{}" + b" " * (MOST_BYTES + 1))
    assert ring.last(10) == ({},)
