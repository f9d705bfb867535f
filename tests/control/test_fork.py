"""A child of a harness does not answer for it, and does not keep others from seeing that it has ended."""

import os
import signal

import pytest

from tests.control.harnesses import doing, program
from tests.waiting import LIMIT, InThread, until
from vmfsm import control

pytestmark = pytest.mark.usefixtures("qemu")


def test_a_child_leaves_the_socket_alone() -> None:
    body = """
    child = os.fork()
    if not child:
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    say("its child has ended")
    wait()
    """
    with program(doing(body)) as ran:
        ran.said().said("its child has ended")
        with ran.find() as guest:
            assert guest.qmp("query-status")["return"]["running"]
        ran.go_on()
        assert ran.end() == (0, "")


def test_a_child_that_lives_on() -> None:
    """Whoever was connected sees the end of the parent at once."""
    body = """
    wait()
    child = os.fork()
    if not child:
        os.close(1), os.close(2)
        time.sleep(1000)
    say(str(child))
    time.sleep(1000)
    """
    with program(doing(body)) as ran:
        ran.said()
        with ran.find() as guest, guest.records(history=False) as records:
            guest.snapshot()
            following = InThread(list, records)
            ran.go_on()
            assert ran.process.stdout is not None
            child = int(ran.process.stdout.readline())
            try:
                guest.snapshot()
                assert not following.over
                ran.process.kill()
                assert isinstance(following.join(LIMIT).error, control.Disconnected)
                with pytest.raises(control.Disconnected):
                    guest.snapshot()
            finally:
                os.kill(child, signal.SIGKILL)


def test_a_child_with_a_machine_of_its_own() -> None:
    body = """
    child = os.fork()
    if not child:
        with machine("childs") as own:
            own.launch()
            say(str(os.getpid()))
            wait()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    say("over")
    wait()
    """
    with program(doing(body)) as ran:
        ran.said()
        assert ran.process.stdout is not None
        child = int(ran.process.stdout.readline())
        there = {(one.harness, one.name, one.status) for one in control.machines(LIMIT)}
        assert {(ran.pid, "guest", "live"), (child, "childs", "live")} <= there
        assert (child, "guest", "live") not in there
        with control.find("childs", timeout=LIMIT) as childs:
            assert childs.qmp("query-status")["return"]["running"]
        ran.go_on()
        ran.said("over")
        until(lambda: child not in {harness.pid for harness in control.harnesses()})
        with ran.find() as guest:
            assert guest.qmp("query-status")["return"]["running"]
        ran.go_on()
        assert ran.end() == (0, "")
