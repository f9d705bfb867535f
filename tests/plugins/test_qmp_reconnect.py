"""Connecting to the monitor again: after it was lost in any way, or just so, wherever it listens."""

import asyncio
import json
import os
import signal
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vmfsm_plugins.qmp import QMPConnectionError

from tests.plugins.monitors import MakeMachine
from tests.waiting import InThread, until
from vmfsm import Machine, MachineDied, MachineTimeout, Reason, State, hookimpl
from vmfsm.testing import FakeQEMU
from vmfsm.testing import actions as do

MIB = 1024 * 1024


@pytest.fixture(params=["default", "path", "tcp"])
def again(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Where the monitor listens; `None` by default."""
    return {"default": None, "path": tmp_path / "monitor", "tcp": ("127.0.0.1", 0)}[request.param]


def test_connecting_again(monitored: MakeMachine, again: Any) -> None:
    vm = monitored(qmp={"address": again})
    mark = vm.qmp.mark()
    vm.qmp.execute("stop")
    for _ in range(3):
        vm.qmp.reconnect()
        assert vm.qmp.execute("query-status")["status"] == "paused"
    vm.qmp.execute("cont")
    assert [event["event"] for event in vm.qmp.events(mark)] == ["STOP", "RESUME"]


async def _close(vm: Any) -> None:
    await vm.qmp._session.close()


LOSSES: dict[str, tuple[Any, str]] = {
    "closed": ([do.hang_up()], "QEMU closed it"),
    "half a message": ([do.send('{"return": '), do.hang_up()], "in the middle of a message"),
    "no JSON": ([do.send("nonsense\r\n")], "not JSON"),
    "no reply": ([do.send('{"id": $id}\r\n')], "a reply that is none"),
    "too long": ([do.reply("x" * 65 * MIB)], "more than 67108864 bytes"),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_after_qemu_caused_the_loss(monitored: MakeMachine, loss: str) -> None:
    actions, message = LOSSES[loss]
    vm = monitored(fake=FakeQEMU(on={"trouble": actions}))
    for _ in range(3):
        with pytest.raises(QMPConnectionError, match=message + r".*; reconnect\(\) may help"):
            vm.qmp.execute("trouble")
        vm.qmp.reconnect()
        assert vm.qmp.execute("query-status")["running"]
    with pytest.raises(QMPConnectionError):
        vm.qmp.execute("trouble")
    vm.shutdown()  # which connects again
    assert (vm.state, vm.reason) == (State.STOPPED, Reason.REQUESTED)


def test_a_reply_that_comes_to_the_next_connection(monitored: MakeMachine) -> None:
    late = '{"return": {"status": "stale"}, "id": 1}\r\n'
    fake = FakeQEMU(
        greeting=[do.send(late), do.as_qemu()],
        on={"qmp_capabilities": [do.send(late), do.as_qemu()], "hang-up": [do.hang_up()]},
    )
    vm = monitored(fake=fake)
    with pytest.raises(QMPConnectionError):
        vm.qmp.execute("hang-up")
    vm.qmp.reconnect()
    assert vm.run_state == "running"


def disconnect(vm: Machine) -> None:
    """As a user might, who takes the client for his."""
    vm.run(vm.qmp.client.disconnect(), timeout=10, operation="disconnect")


def close(vm: Machine) -> None:
    vm.run(_close(vm), timeout=10, operation="close")


@pytest.mark.parametrize("lose", [disconnect, close])
def test_after_this_side_caused_the_loss(
    monitored: MakeMachine, again: Any, lose: Callable[[Machine], None]
) -> None:
    vm = monitored(qmp={"address": again})
    mark = vm.qmp.mark()
    heard: list[str] = []
    vm.qmp.subscribe(lambda event: heard.append(event["event"]))
    waiting = InThread(vm.qmp.wait_event, "RESUME", since=mark)
    for _ in range(3):
        vm.qmp.execute("stop")
        lose(vm)
        with pytest.raises(QMPConnectionError, match="closed from this side"):
            vm.qmp.execute("query-status")
        vm.qmp.reconnect()
        assert vm.run_state == "paused"
        vm.qmp.execute("cont")
    waiting.result()
    assert [event["event"] for event in vm.qmp.events(mark)] == heard == ["STOP", "RESUME"] * 3
    lose(vm)
    vm.shutdown()
    assert (vm.state, vm.reason, vm.exit_status) == (State.STOPPED, Reason.REQUESTED, 0)
    assert [record.data["way"] for record in vm.timeline if record.kind == "stop"] == ["qmp"]


def test_what_happened_meanwhile(monitored: MakeMachine) -> None:
    vm = monitored()
    disconnect(vm)
    with socket.socket(socket.AF_UNIX) as other, other.makefile("rw") as monitor:
        other.connect(spare(vm))
        for command in ("qmp_capabilities", "stop"):
            monitor.write(json.dumps({"execute": command}))
            monitor.flush()
            while "return" not in json.loads(monitor.readline()):
                pass
    assert vm.run_state == "running", "nobody told"
    vm.qmp.reconnect()
    assert vm.run_state == "paused"
    assert vm.qmp.events() == []


def spare(vm: Machine) -> str:
    """Where the spare monitor listens."""
    path: str = vm.qmp._session.transport._listener._path  # type: ignore[attr-defined]
    return path


def test_a_long_private_directory(monitored: MakeMachine, tmp_path: Path) -> None:
    base = tmp_path / ("d" * 150)
    base.mkdir()
    vm = monitored(base_dir=base)
    (directory,) = base.iterdir()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    vm.qmp.reconnect()
    vm.qmp.execute("query-status")
    assert vm.qmp.address is None
    vm.shutdown()
    assert list(base.iterdir()) == []


def test_after_the_end(monitored: MakeMachine, again: Any) -> None:
    vm = monitored(qmp={"address": again})
    disconnect(vm)
    vm.kill()
    with pytest.raises(MachineDied):
        vm.qmp.reconnect()
    vm.launch()
    for _ in range(2):
        vm.qmp.reconnect()
    assert vm.run_state == "running"


def test_death_while_connecting_again(monitored: MakeMachine, again: Any) -> None:
    vm = monitored(qmp={"address": again})
    assert vm.pid
    os.kill(vm.pid, signal.SIGSTOP)
    call = InThread(vm.qmp.reconnect)
    until(vm.qmp._session._client.lost.done)  # type: ignore[attr-defined]
    os.kill(vm.pid, signal.SIGKILL)
    with pytest.raises(MachineDied, match="SIGKILL"):
        call.result()


def test_connecting_again_leaves_nothing_in_qemu(monitored: MakeMachine, again: Any) -> None:
    vm = monitored(qmp={"address": again})
    open_files = Path(f"/proc/{vm.pid}/fd")
    vm.qmp.reconnect()
    vm.qmp.execute("query-status")
    before = len(list(open_files.iterdir()))
    for _ in range(20):
        vm.qmp.reconnect()
        vm.qmp.execute("query-status")
    until(lambda: len(list(open_files.iterdir())) <= before)


def test_connecting_again_in_another_loop_and_in_hooks(monitored: MakeMachine) -> None:
    class Hook:
        name = "hook"

        @hookimpl
        async def post_launch(self, machine: Machine) -> None:
            await machine.qmp.aio.reconnect()

        @hookimpl
        def early_cleanup(self, machine: Machine) -> None:
            machine.qmp.reconnect()

    vm = monitored(Hook())

    async def use() -> str:
        await vm.qmp.aio.reconnect()
        status: str = (await vm.qmp.aio.execute("query-status"))["status"]
        return status

    assert asyncio.run(use()) == "running"
    vm.shutdown()
    assert (vm.state, vm.reason) == (State.STOPPED, Reason.REQUESTED)


def test_two_threads_connecting_again(monitored: MakeMachine, again: Any) -> None:
    vm = monitored(qmp={"address": again})
    for call in [InThread(vm.qmp.reconnect) for _ in range(4)]:
        call.result()
    assert vm.qmp.execute("query-status")["status"] == "running"


def test_connecting_again_to_a_qemu_that_is_about_to_be_dead(monitored: MakeMachine, again: Any) -> None:
    vanish = [do.hang_up(for_good=True, everywhere=True), do.wait(0.3), do.exit_with(3)]
    vm = monitored(qmp={"address": again}, fake=FakeQEMU(on={"vanish": vanish}))
    call = InThread(vm.qmp.execute, "vanish")
    until(vm.qmp._session._client.lost.done)  # type: ignore[attr-defined]
    with pytest.raises(MachineDied, match="status 3"):
        vm.qmp.reconnect()
    with pytest.raises(MachineDied, match="status 3"):
        call.result()


def test_connecting_again_where_the_socket_is_gone(monitored: MakeMachine, tmp_path: Path) -> None:
    """QEMU removes it just before its end: that is given a moment to come."""
    path = tmp_path / "monitor"
    vm = monitored(qmp={"address": path})
    path.unlink()
    call = InThread(vm.qmp.reconnect).join()
    assert isinstance(call.error, QMPConnectionError)
    assert call.seconds >= 0.9


def test_pending_commands_when_connecting_again(monitored: MakeMachine, again: Any) -> None:
    vm = monitored(qmp={"address": again}, fake=FakeQEMU(on={"slow": []}))
    call = InThread(vm.qmp.execute, "slow")
    until(lambda: any(record.data.get("command") == "slow" for record in vm.timeline))
    vm.qmp.reconnect()
    with pytest.raises(QMPConnectionError, match="closed from this side"):
        call.result()


@pytest.mark.parametrize("again", ["path", "tcp"], indirect=True)
def test_connecting_again_while_qemu_talks_to_somebody_else(monitored: MakeMachine, again: Any) -> None:
    vm = monitored(qmp={"address": again})
    with socket.socket(socket.AF_UNIX) if isinstance(again, Path) else socket.socket() as intruder:
        reconnecting = None
        vm.run(_close(vm), timeout=10, operation="close")
        intruder.connect(str(again) if isinstance(again, Path) else vm.qmp.address)
        assert intruder.recv(1), "QEMU talks to the intruder"
        for _ in range(3):
            with pytest.raises(MachineTimeout, match="reconnect"):
                vm.qmp.reconnect(timeout=0.05)
        reconnecting = InThread(vm.qmp.reconnect)
    reconnecting.result()
    assert vm.qmp.execute("query-status")["status"] == "running"


def test_connecting_again_to_a_qemu_that_is_stopped(monitored: MakeMachine, again: Any) -> None:
    vm = monitored(qmp={"address": again})
    assert vm.pid
    os.kill(vm.pid, signal.SIGSTOP)
    for _ in range(20):
        with pytest.raises(MachineTimeout):
            vm.qmp.execute("human-monitor-command", command_line="x" * 100_000, timeout=0)
    with pytest.raises(MachineTimeout, match="reconnect"):
        vm.qmp.reconnect(timeout=0.2)
    os.kill(vm.pid, signal.SIGCONT)
    vm.qmp.reconnect()
    assert vm.qmp.execute("query-status")["status"] == "running"
