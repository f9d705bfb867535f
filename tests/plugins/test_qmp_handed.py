"""`HandedQMP`: the monitor over sockets of somebody else's, who says when to connect."""

import os
import signal
import socket

import pytest
from vmfsm_plugins.qmp import HandedQMP, QMPConnectionError

from tests.conftest import MakeMachine
from tests.waiting import InThread
from vmfsm import LaunchPlan, MachineDied, MachineTimeout, TransitionError, hookimpl


class Pair:
    """Makes a socket pair, and the arguments for it."""

    name = "pair"
    address = None

    @hookimpl
    def pre_launch(self, plan: LaunchPlan) -> None:
        self.ours, theirs = socket.socketpair()
        plan.args += ["-chardev", f"socket,id=m,fd={plan.give(theirs)}", "-mon", "chardev=m,mode=control"]

    @hookimpl
    def post_shutdown(self) -> None:
        self.ours.close()

    async def connect(self) -> socket.socket:
        ours = socket.socket(fileno=self.ours.detach())
        ours.setblocking(False)
        return ours


def test_it_connects_when_told(bare: MakeMachine) -> None:
    pair = Pair()
    qmp = HandedQMP(pair)
    machine = bare(pair, qmp)
    with pytest.raises(TransitionError):
        qmp.connect()
    machine.launch()
    assert machine.plugin("qmp") is qmp
    for call in (lambda: qmp.execute("stop"), qmp.fileno, lambda: qmp.greeting):
        with pytest.raises(TransitionError):
            call()
    qmp.connect()
    assert qmp.execute("query-status")["running"]
    assert qmp.version >= (7, 0, 0)
    assert os.readlink(f"/proc/self/fd/{qmp.fileno()}").startswith("socket:")
    qmp.execute("stop")
    assert qmp.next_event(None, 5)["event"] == "STOP"
    with pytest.raises(MachineTimeout):
        qmp.next_event(None, 0.05)
    machine.shutdown()
    assert machine.exit_status == 0


def test_hanging_up(bare: MakeMachine) -> None:
    pair = Pair()
    qmp = HandedQMP(pair)
    machine = bare(pair, qmp).launch()
    qmp.connect()
    qmp.hang_up()
    with pytest.raises(QMPConnectionError):
        qmp.execute("stop")
    assert machine.pid is not None
    machine.kill()


def test_a_qemu_that_is_silent_or_ends(bare: MakeMachine) -> None:
    pair = Pair()
    qmp = HandedQMP(pair)
    machine = bare(pair, qmp, wrapper=["sh", "-c", "kill -STOP $$"]).launch()
    with pytest.raises(MachineTimeout):
        qmp.connect(0.1)
    machine.kill()
    pair = Pair()
    qmp = HandedQMP(pair)
    machine = bare(pair, qmp, wrapper=["sh", "-c", "kill -STOP $$"]).launch()
    connecting = InThread(qmp.connect, None)
    os.kill(machine.pid or 0, signal.SIGKILL)
    with pytest.raises(MachineDied):
        connecting.result()
