"""`_qmp`: an object of the old `QEMUMonitorProtocol`'s shape."""

import logging
import os
import socket

import pytest
from qemu.qmp import QMPError
from qemu.qmp.qmp_client import ExecuteError

from tests.compat.conftest import MakeVM
from vmfsm.compat import QEMUMachine, QEMUMachineError, QMPTimeoutError
from vmfsm.compat.monitor import Monitor


@pytest.fixture
def vm(make_vm: MakeVM) -> QEMUMachine:
    vm = make_vm("-M", "pc")
    vm.launch()
    return vm


def test_commands(vm: QEMUMachine) -> None:
    qmp = vm._qmp
    assert qmp.cmd_raw("stop") == {"return": {}}
    assert qmp.cmd_raw("device_del", {"id": "x"})["error"]["class"] == "DeviceNotFound"
    assert qmp.cmd("query-status")["status"] == qmp.command("query-status")["status"] == "paused"
    with pytest.raises(ExecuteError):
        qmp.cmd("device_del", id="x")
    qmp.cmd("object-add", **{"qom-type": "iothread", "id": "a"})


def test_whole_messages(vm: QEMUMachine) -> None:
    assert vm._qmp.cmd_obj({"execute": "stop"}) == {"return": {}}
    assert vm._qmp.cmd_obj({"execute": "cont", "arguments": {}, "id": "mine"}) == {"return": {}, "id": "mine"}
    assert "error" in vm._qmp.cmd_obj({"execute": "device_del", "arguments": {"id": "x"}})
    assert "error" in vm._qmp.cmd_obj({"exec-oob": "query-status"})  # not one of those that are allowed
    for wrong in ({}, {"execute": 5}, {"execute": "stop", "arguments": 5}):
        with pytest.raises(QEMUMachineError):
            vm._qmp.cmd_obj(wrong)


def test_events(vm: QEMUMachine) -> None:
    qmp = vm._qmp
    assert qmp.pull_event() is None
    assert qmp.get_events() == []
    qmp.cmd("stop")
    qmp.cmd("cont")
    assert (qmp.pull_event(wait=True) or {})["event"] == "STOP"
    assert [event["event"] for event in qmp.get_events(True)] == ["RESUME"]
    qmp.cmd("stop")
    qmp.clear_events()
    with pytest.raises(QMPTimeoutError):
        qmp.pull_event(0.05)
    with pytest.raises(QMPTimeoutError):
        qmp.get_events(wait=0.05)


def test_addresses() -> None:
    assert Monitor.parse_address("localhost:1234") == ("localhost", 1234)
    assert Monitor.parse_address("/path") == "/path"
    assert Monitor.parse_address("a:b:c") == "a:b:c"
    with pytest.raises(QMPError):
        Monitor.parse_address("localhost:x")


def test_the_descriptor(vm: QEMUMachine) -> None:
    assert vm._qmp.is_scm_available()
    copy = socket.socket(fileno=os.dup(vm._qmp.get_sock_fd()))
    with copy:
        assert copy.family == socket.AF_UNIX


def test_closed(vm: QEMUMachine) -> None:
    with vm._qmp as qmp:
        pass
    for call in (qmp.cmd_raw, qmp.cmd):
        with pytest.raises(QMPError):
            call("stop")
    assert vm.is_running()
    vm._quit_issued = True
    os.kill(vm.get_pid() or 0, 15)
    vm.shutdown()
    assert vm.exitcode() == 0


def test_logging(make_vm: MakeVM, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    vm = make_vm(name="it")
    vm.launch()
    vm.qmp("query-name")
    vm.shutdown()
    said = {
        record.name: record.getMessage() for record in caplog.records if "query-name" in record.getMessage()
    }
    assert set(said) == {"qemu.qmp.protocol.it"}
    (command,) = [record for record in caplog.records if "launch command" in record.getMessage()]
    assert (command.name, command.levelno) == ("qemu.machine.machine", logging.DEBUG)
    assert " ".join(vm._qemu_full_args) in command.getMessage()
    assert all(record.levelno == logging.DEBUG for record in caplog.records)
