"""Who looks at a machine from outside changes nothing of what its test is told; nor does a hold stop them."""

import os
import signal
from collections.abc import Iterator

import pytest

from tests.waiting import LIMIT, InThread, until
from vmfsm import GuestPanicked, Machine, State, Verdict, control
from vmfsm.iothread import IOThread
from vmfsm.testing import GUEST_ARGS


@pytest.fixture
def guest(qemu: str) -> Iterator[Machine]:
    with Machine(qemu, [*GUEST_ARGS, "-action", "panic=shutdown"], name="guest") as vm:
        vm.launch()
        vm.console.expect("ready", timeout=LIMIT)
        yield vm


@pytest.fixture
def other(guest: Machine) -> Iterator[control.Client]:
    with control.find(f"{os.getpid()}/guest", timeout=LIMIT) as client:
        yield client


def test_who_types_when_the_guest_is_lost_is_not_told_of_that(guest: Machine, other: control.Client) -> None:
    """The guest does not read, so what is typed waits; the test alone gets what was found out."""
    guest.qmp.execute("stop")

    def type_much() -> None:
        while True:
            other.write(b"x" * 128 * 1024, timeout=LIMIT)

    typing = InThread(type_much)
    until(lambda: "send to console 'console'" in str(guest.snapshot()["waits"]))
    IOThread.get().post(guest.report, Verdict("lost", "here", {}))
    with pytest.raises(GuestPanicked, match="lost"):
        guest.console.expect("never", timeout=LIMIT)
    assert not typing.over
    guest.kill()
    assert isinstance(typing.join().error, control.ControlError)


def test_who_ends_a_machine_that_has_panicked_leaves_that_to_the_test(
    guest: Machine, other: control.Client
) -> None:
    guest.console.sendline("panic")
    until(lambda: guest.state is State.STOPPED)
    for _ in range(2):
        with pytest.raises(control.ControlError) as raised:
            other.shutdown()
        assert raised.value.type == "GuestPanicked"
    with pytest.raises(GuestPanicked):
        guest.shutdown()


def test_who_holds_a_machine_is_answered_in_time(guest: Machine, other: control.Client) -> None:
    """Its own deadlines stand still, theirs do not: a QEMU that does not answer is told from its harness."""
    pid = guest.pid
    assert pid is not None
    with guest.hold():
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(control.ControlError, match="timed out") as raised:
            other.qmp("query-status", timeout=0.1)
        assert (type(raised.value), raised.value.type) == (control.ControlError, "MachineTimeout")
        with pytest.raises(control.ControlError, match="SIGKILL") as raised:
            other.shutdown(timeout=1)
        assert raised.value.type == "AbnormalExit"
