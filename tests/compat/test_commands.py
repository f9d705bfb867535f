"""Commands: replies as plain dicts, errors, limits, what was misread once, and the end of QEMU meanwhile."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from qemu.qmp import ExecInterruptedError, QMPError, StateError
from qemu.qmp.qmp_client import ExecuteError

from tests.compat.conftest import MakeVM
from tests.waiting import SLACK, InThread, until
from vmfsm import MachineDied, MachineTimeout
from vmfsm.compat import QEMUMachine, QEMUMachineError, QMPTimeoutError


@pytest.fixture
def vm(make_vm: MakeVM) -> QEMUMachine:
    vm = make_vm("-M", "pc")
    vm.launch()
    return vm


def test_replies(vm: QEMUMachine) -> None:
    assert vm.qmp("stop") == {"return": {}}
    assert json.dumps(vm.qmp("cont")) == '{"return": {}}'
    reply = vm.qmp("nonsense")
    assert type(reply) is dict
    assert reply == {"error": {"class": "CommandNotFound", "desc": "The command nonsense has not been found"}}
    assert vm.cmd("query-status")["status"] == vm.command("query-status")["status"] == "running"


def test_errors(vm: QEMUMachine) -> None:
    for call in (vm.cmd, vm.command):
        with pytest.raises(ExecuteError) as caught:
            call("device_del", id="x")
        error = caught.value
        assert str(error) == "Device 'x' not found"
        assert error.error_class == "DeviceNotFound"
        assert error.error.error.desc == str(error)
        assert (error.sent["execute"], error.sent["arguments"]) == ("device_del", {"id": "x"})
        assert error.sent["id"] == error.received["id"]


@pytest.mark.parametrize("call", ["qmp", "cmd", "command"])
def test_arguments(vm: QEMUMachine, call: str) -> None:
    def added(name: str, *args: Any, **kw: Any) -> bool:
        getattr(vm, call)("object-add", *args, **kw)
        return any(one["name"] == name for one in vm.cmd("qom-list", path="/objects"))

    assert added("a", {"qom-type": "iothread", "id": "a"})
    assert added("b", qom_type="iothread", id="b")
    assert added("c", **{"qom-type": "iothread", "id": "c"})
    assert added("d", conv_keys=True, qom_type="iothread", id="d")
    assert added("e", conv_keys=False, **{"qom-type": "iothread", "id": "e"})
    assert added("f", args_dict={"qom-type": "iothread", "id": "f"})
    assert added("g", True, qom_type="iothread", id="g")  # where conv_keys was once
    assert "error" in vm.qmp("object-add", conv_keys=False, qom_type="iothread", id="h")
    assert "error" in vm.qmp("object-add", {"qom_type": "iothread", "id": "h"})  # a dict is as it is


@pytest.mark.parametrize("call", ["qmp", "cmd", "command"])
def test_misuse(vm: QEMUMachine, call: str) -> None:
    wrong: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        (("stop", {"a": 1}), {"b": 2}),
        (("stop", {"a": 1}, True), {}),
        (("stop", ["a"]), {}),
        (("stop", "a"), {}),
        ((5,), {}),
        (("",), {}),
        (("stop", {"a": object()}), {}),
    ]
    for args, kw in wrong:
        for kind in (AssertionError, QEMUMachineError):
            with pytest.raises(kind):
                getattr(vm, call)(*args, **kw)
    assert vm.cmd("query-status")["running"]


def test_without_a_monitor(make_vm: MakeVM) -> None:
    vm = make_vm()
    vm.set_qmp_monitor(enabled=False)
    for _ in range(2):
        for call in (vm.qmp, vm.cmd, vm.command, vm.event_wait):
            with pytest.raises(QEMUMachineError):
                call("stop")
        with pytest.raises(QEMUMachineError):
            vm.get_qmp_events()
        if not vm.is_running():
            vm.launch()


def test_qemu_is_killed(vm: QEMUMachine) -> None:
    os.kill(vm.get_pid() or 0, signal.SIGKILL)
    with pytest.raises(ExecInterruptedError) as first:
        vm.qmp("query-status")
    assert isinstance(first.value, QEMUMachineError)
    assert isinstance(first.value.__cause__, MachineDied)
    for call in (vm.qmp, vm.cmd):
        with pytest.raises(StateError) as later:
            call("query-status")
        assert isinstance(later.value, QEMUMachineError)
        assert isinstance(later.value, QMPError)
    vm.wait()


def test_qemu_is_killed_during_a_command(vm: QEMUMachine) -> None:
    os.kill(vm.get_pid() or 0, signal.SIGSTOP)
    asking = InThread(vm.qmp, "query-status")
    os.kill(vm.get_pid() or 0, signal.SIGKILL)
    with pytest.raises(ExecInterruptedError):
        asking.result(10)


@pytest.mark.parametrize("by", ["attribute", "settimeout"])
def test_limit(make_vm: MakeVM, by: str) -> None:
    vm = make_vm()
    assert vm.qmp_command_timeout == 300
    if by == "attribute":
        vm.qmp_command_timeout = 0.2
    vm.launch()
    if by == "settimeout":
        vm._qmp.settimeout(0.2)
    os.kill(vm.get_pid() or 0, signal.SIGSTOP)
    begin = time.monotonic()
    with pytest.raises(QMPTimeoutError) as caught:
        vm.qmp("query-name")
    assert 0.2 <= time.monotonic() - begin < SLACK
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value, QMPError)
    assert isinstance(caught.value.__cause__, MachineTimeout)
    with pytest.raises(QMPTimeoutError):
        vm.qmp("nonsense")
    os.kill(vm.get_pid() or 0, signal.SIGCONT)
    vm._qmp.settimeout(None)
    assert "status" in vm.qmp("query-status")["return"]  # and not what the other two came to
    assert vm.qmp("query-name") == {"return": {}}


def test_several_threads(vm: QEMUMachine) -> None:
    calls = [InThread(lambda: [vm.cmd("query-status")["status"] for _ in range(50)]) for _ in range(4)]
    assert {status for call in calls for status in call.result()} == {"running"}


@pytest.mark.parametrize("how", ["fd", "path"])
def test_send_fd_scm(vm: QEMUMachine, tmp_path: Path, how: str) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    if how == "fd":
        with file.open() as opened:
            assert vm.send_fd_scm(fd=opened.fileno()) == 0
    else:
        assert vm.send_fd_scm(file_path=str(file)) == 0
    assert vm.cmd("query-status")["running"]
    assert vm.qmp("getfd", fdname="f") == {"return": {}}
    assert str(file) in [
        os.readlink(f"/proc/{vm.get_pid()}/fd/{fd}") for fd in os.listdir(f"/proc/{vm.get_pid()}/fd")
    ]
    assert "error" in vm.qmp("getfd", fdname="g")  # there was one only
    assert vm.qmp("closefd", fdname="f") == {"return": {}}
    with open(os.devnull) as null:
        assert vm.send_fd_scm(null.fileno()) == 0
        assert vm.send_fd_scm(null.fileno()) == 0
    assert vm.cmd("add-fd")["fdset-id"] == 0


def test_send_fd_scm_misuse(vm: QEMUMachine, make_vm: MakeVM) -> None:
    for kw in ({}, {"fd": 0, "file_path": "/dev/null"}, {"fd": 99999}):
        with pytest.raises(AssertionError):
            vm.send_fd_scm(**kw)
    with pytest.raises(FileNotFoundError):
        vm.send_fd_scm(file_path="/nowhere")
    tcp = make_vm(monitor_address=("localhost", 0))
    tcp.launch()
    with pytest.raises(QMPError):
        tcp.send_fd_scm(fd=0)


HELPER = """#!/usr/bin/env python3
import os, socket, sys
fd = int(sys.argv[2]) if sys.argv[2].isdecimal() else os.open(sys.argv[2], os.O_RDONLY)
socket.send_fds(socket.socket(fileno=int(sys.argv[1])), [b" "], [fd])
"""


@pytest.mark.parametrize("where", ["pair", "path"])
def test_socket_scm_helper(make_vm: MakeVM, tmp_path: Path, short_dir: str, where: str) -> None:
    helper = tmp_path / "helper"
    helper.write_text(HELPER)
    helper.chmod(0o755)
    address = None if where == "pair" else f"{short_dir}/m"
    vm = make_vm(socket_scm_helper=str(helper), monitor_address=address)
    vm.launch()
    with open(os.devnull) as null:
        assert vm.send_fd_scm(fd=null.fileno()) == 0
    assert vm.qmp("getfd", fdname="f") == {"return": {}}
    assert vm.send_fd_scm(file_path=os.devnull) == 0
    assert vm.qmp("getfd", fdname="g") == {"return": {}}
    helper.write_text("#!/bin/sh\nexit 3\n")
    assert vm.send_fd_scm(file_path=os.devnull) == 3
    helper.unlink()
    with pytest.raises(QEMUMachineError):
        vm.send_fd_scm(file_path=os.devnull)


def test_add_fd(make_vm: MakeVM) -> None:
    vm = make_vm()
    with open(os.devnull) as null:
        vm.add_fd(null.fileno(), 7, "what")
        vm.launch()
    (fdset,) = vm.cmd("query-fdsets")
    assert (fdset["fdset-id"], fdset["fds"][0]["opaque"]) == (7, "what")


def test_descriptors_that_nobody_told_of_are_inherited(make_vm: MakeVM) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    vm = make_vm()
    vm.launch()
    os.close(writing)
    assert os.readlink(f"/proc/{vm.get_pid()}/fd/{writing}").startswith("pipe:")
    vm.shutdown()
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_events_of_a_machine_that_ended(vm: QEMUMachine) -> None:
    os.kill(vm.get_pid() or 0, signal.SIGTERM)
    until(lambda: not vm.is_running())
    shutdown = vm.event_wait("SHUTDOWN")
    assert shutdown is not None
    assert shutdown["data"]["reason"] == "host-signal"
