"""Events: nothing is lost, nothing is old, and a time limit is one."""

import asyncio
import os
import signal
import time
from typing import Any

import pytest
from qemu.qmp import QMPError

from tests.compat.conftest import MakeVM
from tests.waiting import SLACK, InThread, until
from vmfsm import MachineDied, MachineTimeout
from vmfsm.compat import QEMUMachine, QEMUMachineError, QMPTimeoutError
from vmfsm.testing import GUEST_ARGS


@pytest.fixture
def vm(make_vm: MakeVM) -> QEMUMachine:
    vm = make_vm("-M", "pc")
    vm.launch()
    return vm


def names(events: list[dict[str, Any]]) -> list[str]:
    return [event["event"] for event in events]


def test_what_came_before_a_reply_is_there(vm: QEMUMachine) -> None:
    for timeout in (0, 0.0, False, None):
        vm.cmd("stop")
        event = vm.event_wait("STOP", timeout)
        assert event is not None
        assert type(event) is dict
        assert set(event["timestamp"]) == {"seconds", "microseconds"}
        event["mine"] = 1
        assert vm.event_wait("STOP", timeout=timeout) is None
        vm.cmd("cont")
        assert names(vm.get_qmp_events()) == ["RESUME"]


def test_nothing_is_lost_and_all_is_in_order(vm: QEMUMachine) -> None:
    vm.cmd("stop")
    vm.cmd("cont")
    vm.cmd("stop")
    assert vm.event_wait("RESUME") is not None
    with pytest.raises(QMPTimeoutError):
        vm.event_wait("RESUME", timeout=0.05)
    assert names([vm.get_qmp_event() or {}]) == ["STOP"]
    vm.cmd("cont")
    assert names(vm.get_qmp_events(wait=True)) == ["STOP", "RESUME"]
    assert vm.get_qmp_events() == []
    assert vm.get_qmp_event() is None


@pytest.mark.parametrize("wait", [True, 20, 20.0])
@pytest.mark.parametrize("call", ["get_qmp_event", "get_qmp_events", "event_wait"])
def test_waiting(vm: QEMUMachine, call: str, wait: float) -> None:
    arguments = ["STOP"] if call == "event_wait" else []
    waiting = InThread(getattr(vm, call), *arguments, wait)
    vm.cmd("stop")
    found = waiting.result()
    assert names(found if isinstance(found, list) else [found]) == ["STOP"]


@pytest.mark.parametrize("timeout", [1, 0.3])
def test_timeout(vm: QEMUMachine, timeout: float) -> None:
    calls: list[Any] = [
        lambda: vm.event_wait("STOP", timeout=timeout),
        lambda: vm.events_wait([("STOP", None), ("RESET", {})], timeout=timeout),
        lambda: vm.get_qmp_event(wait=timeout),
        lambda: vm.get_qmp_events(wait=timeout),
    ]
    for call in calls:
        begin = time.monotonic()
        with pytest.raises(QMPTimeoutError) as caught:
            call()
        assert timeout <= time.monotonic() - begin < timeout + 5
        assert isinstance(caught.value, asyncio.TimeoutError)
        assert isinstance(caught.value, QMPError)
        assert isinstance(caught.value.__cause__, MachineTimeout)
        assert vm.cmd("query-status")["running"]


def test_other_events_do_not_make_it_longer(vm: QEMUMachine) -> None:
    over = False

    def flood() -> None:
        while not over:
            vm.cmd("stop")
            vm.cmd("cont")

    flooding = InThread(flood)
    begin = time.monotonic()
    with pytest.raises(TimeoutError):
        vm.event_wait("RESET", timeout=1)
    assert time.monotonic() - begin < 1 + SLACK
    over = True
    flooding.join()


def test_match(vm: QEMUMachine) -> None:
    vm.cmd("stop")  # firmware that is reset in its first moments resets itself
    vm.cmd("system_reset")
    vm.cmd("system_reset")
    assert vm.event_wait("RESET", 0, {"data": {"guest": True}}) is None
    event = vm.events_wait([["X", None], ("RESET", {"data": {"guest": False, "reason": None}})], 20)  # type: ignore[list-item]
    assert event is not None
    assert event["data"]["reason"] == "host-qmp-system-reset"
    assert vm.event_wait("RESET", match={}) is not None


def test_event_match() -> None:
    match = QEMUMachine.event_match
    event = {"event": "A", "data": {"id": "x", "n": 1, "l": [1, 2], "d": {"a": None}}}
    good: tuple[Any, ...] = (
        None,
        {},
        {"event": "A"},
        {"data": {"id": "x"}},
        {"data": {"id": None}},
        {"data": {"n": True}},
        {"data": {"l": [1, 2]}},
        {"data": {"d": {}}},
        {"data": {"d": {"a": None}}},
    )
    bad: tuple[Any, ...] = (
        {"event": "B"},
        {"data": {"id": "y"}},
        {"data": {"other": None}},
        {"data": {"id": {}}},
        {"data": {"n": ""}},
        {"data": {"l": [2, 1]}},
        {"data": {"l": []}},
        {"data": "x"},
    )
    assert all(match(event, pattern) for pattern in good)
    assert not any(match(event, pattern) for pattern in bad)


def test_misuse(vm: QEMUMachine) -> None:
    for wrong in ([], "STOP", [("STOP",)], [(1, None)], 5, [("STOP", "x")]):
        with pytest.raises(AssertionError):
            vm.events_wait(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("when", ["before", "meanwhile"])
@pytest.mark.parametrize("wait", [True, 60, 60.0])
def test_qemu_is_killed(vm: QEMUMachine, when: str, wait: float) -> None:
    waits = [
        lambda: vm.event_wait("STOP", timeout=wait),
        lambda: vm.get_qmp_event(wait),
        lambda: vm.get_qmp_events(wait),
    ]
    if when == "before":
        os.kill(vm.get_pid() or 0, signal.SIGKILL)
        until(lambda: not vm.is_running())
    calls = [InThread(call) for call in waits]
    if when == "meanwhile":
        os.kill(vm.get_pid() or 0, signal.SIGKILL)
    for call in calls:
        with pytest.raises(QEMUMachineError) as caught:
            call.result(20)
        assert isinstance(caught.value, QMPError)
        assert isinstance(caught.value.__cause__, MachineDied)
    assert vm.get_qmp_event() is None
    assert vm.get_qmp_events() == []
    assert vm.event_wait("STOP", 0) is None


def test_none_of_the_run_before(vm: QEMUMachine) -> None:
    vm.cmd("stop")
    vm.shutdown()
    vm.launch()
    assert vm.get_qmp_events() == []


def test_a_panic_is_an_event_like_any_other(make_vm: MakeVM) -> None:
    vm = make_vm(*GUEST_ARGS, "-action", "panic=none")
    vm.set_console()
    vm.launch()
    console = vm.console_socket
    console.settimeout(60)
    said = b""
    while b"ready" not in said:
        said += console.recv(1)
    console.sendall(b"panic\n")
    event = vm.event_wait("GUEST_PANICKED")
    assert event is not None
    assert vm.cmd("query-status")["running"]
    with pytest.raises(TimeoutError):
        vm.event_wait("RESET", timeout=0.1)
    vm.shutdown()
    assert vm.exitcode() == 0
