"""Block layer's tests, in the many ways in which they use their machines."""

import asyncio
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from qemu.machine import machine

from tests.compat.standins.block_layer import VM, ExecuteError, Timeout, TookTooLong, filter_log, vms
from tests.compat.standins.conftest import RunCode
from tests.waiting import is_alive, until

NULL = "null-co,node-name={},size=1048576,read-zeroes=on"
HERE = Path(__file__).parent


@pytest.fixture(params=["pair", "sock_dir"])
def vm(request: pytest.FixtureRequest, qemu: str, tmp_path: Path) -> Iterator[VM]:
    vm = VM(str(tmp_path), **({"sock_dir": str(tmp_path)} if request.param == "sock_dir" else {}))
    yield vm
    vm.shutdown()


def backup(vm: VM, **options: Any) -> None:
    reply = vm.qmp("blockdev-backup", job_id="job0", device="source", target="target", sync="full", **options)
    assert reply == {"return": {}}


def with_disks(vm: VM) -> VM:
    vm.add_blockdev(NULL.format("source")).add_blockdev(NULL.format("target"))
    vm.launch()
    return vm


def test_output_byte_for_byte(run_code: RunCode, qemu: str, tmp_path: Path) -> None:
    """Python's, QEMU's and the log's, in one stream; and in the order in which it was written."""
    script = HERE / "block_layer_script.py"
    result = run_code(str(script), str(tmp_path), environment={"QEMU_PROG": qemu})
    output = re.sub(r"^\[I \+?[\d.]+\]", "[I]", result.stdout, flags=re.MULTILINE)
    assert output == script.with_suffix(".out").read_text()
    assert result.returncode == 0
    assert os.listdir(tmp_path) == ["target"]


def test_what_is_added_to_the_command_line(vm: VM) -> None:
    vm.add_object("throttle-group,id=group").add_device("virtio-scsi,id=scsi").add_paused()
    vm.add_drive(os.devnull).add_drive(os.devnull, "cache=writeback,aio=threads")
    vm.add_incoming("defer")
    vm.launch()
    words = list(vm._qemu_full_args)
    assert words[1:3] == ["-name", "first,debug-threads=on"]
    assert words.index("-qtest") < words.index("-seed") < words.index("-nodefaults") < words.index("-object")
    assert words[-2:] == ["-incoming", "defer"]
    assert vm.qmp("query-status")["return"]["status"] == "inmigrate"
    assert [block["device"] for block in vm.cmd("query-block")] == ["drive0", "drive1"]
    assert "drive1" in vm.hmp("info block")["return"]
    assert "group" in {child["name"] for child in vm.cmd("qom-list", path="/objects")}


def test_qtest_and_the_log(vm: VM) -> None:
    for _ in range(3):  # one object, again and again
        vm.launch()
        assert vm.qtest("clock_step 1") in {"OK 1\n", "FAIL Unknown command 'clock_step'\n"}
        assert vm.qtest("writeb 0x1000 7") == "OK\n"
        assert vm.get_log() is None
        vm.shutdown()
        log = vm.get_log()
        assert log is not None
        lines = filter_log(log).splitlines()
        assert [re.sub(r" \S*\]", "]", line) for line in lines[-2:]] == ["[R] writeb 0x1000 7", "[S] OK"]
        assert "OPENED" not in filter_log(log)
        assert "CLOSED" not in filter_log(log)
    assert [report.split()[1] for report in vm.reports] == ["0", "0", "0"]
    assert len({report.split()[0] for report in vm.reports}) == 3


def test_commands(vm: VM) -> None:
    vm.launch()
    assert vm.qmp("query-name", conv_keys=False) == {"return": {"name": "first"}}
    assert vm.qmp("blockdev-add", {"driver": "null-co", "node-name": "a"}) == {"return": {}}
    assert vm.qmp("blockdev-add", **{"driver": "null-co", "node-name": "b"}) == {"return": {}}
    assert vm.cmd("blockdev-add", driver="null-co", node_name="c", read_zeroes=True) == {}
    assert vm.cmd("blockdev-del", {"node-name": "c"}) == {}
    nodes = {node["node-name"] for node in vm.cmd("query-named-block-nodes", flat=True)}
    assert nodes == {"a", "b"}
    with pytest.raises(ExecuteError, match="node-name='c'") as caught:
        vm.cmd("blockdev-del", {"node-name": "c"})
    assert str(caught.value) == "Failed to find node with node-name='c'"
    assert caught.value.error_class == "GenericError"
    assert vm.qmp("blockdev-del", node_name="c") == {
        "error": {"class": "GenericError", "desc": "Failed to find node with node-name='c'"}
    }


def test_a_job_that_fails(vm: VM) -> None:
    vm.add_blockdev("null-co,node-name=null,size=1048576")
    vm.add_blockdev("driver=blkdebug,node-name=source,image=null,inject-error.0.event=none")
    vm.add_blockdev(NULL.format("target"))
    vm.launch()
    backup(vm, auto_finalize=False, auto_dismiss=False)
    assert vm.run_job("job0", wait=10.0) == "Input/output error"


def test_events(vm: VM) -> None:
    with_disks(vm)
    assert vm.event_wait("BLOCK_JOB_COMPLETED", timeout=0.0) is None
    with pytest.raises(asyncio.TimeoutError):
        vm.event_wait("BLOCK_JOB_COMPLETED", timeout=0.1)
    backup(vm)
    event = vm.event_wait("BLOCK_JOB_COMPLETED", timeout=True)
    assert event is not None
    assert set(event) == {"event", "timestamp", "data"}
    # Those that came before it are there, though nobody was waiting for them.
    early = vm.event_wait("JOB_STATUS_CHANGE", timeout=0.0, match={"data": {"status": "created"}})
    assert early is not None
    backup(vm)
    assert vm.wait_until_completed("job0")["data"]["len"] == 1048576
    until(lambda: vm.cmd("query-jobs") == [])
    vm.get_qmp_events(wait=False)
    backup(vm)
    assert vm.wait_with_questions("BLOCK_JOB_COMPLETED")["event"] == "BLOCK_JOB_COMPLETED"


def test_an_event_from_before_a_reply_is_there_after_it(vm: VM) -> None:
    vm.launch()
    for _ in range(20):
        vm.cmd("stop")
        assert vm.event_wait("STOP", timeout=0.0) is not None
        vm.cmd("cont")
        assert [event["event"] for event in vm.get_qmp_events()] == ["RESUME"]


def test_descriptors(vm: VM, tmp_path: Path) -> None:
    vm.launch()
    assert vm.send_fd_scm(file_path=os.devnull) == 0
    assert vm.cmd("add-fd", fdset_id=2, opaque="null")["fdset-id"] == 2
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert vm.send_fd_scm(fd=theirs.fileno()) == 0
        assert vm.qmp("getfd", fdname="channel") == {"return": {}}
        assert vm.qmp("closefd", fdname="channel") == {"return": {}}
    assert "error" in vm.qmp("getfd", fdname="nothing was sent")


def test_two_that_migrate(qemu: str, tmp_path: Path) -> None:
    with vms(str(tmp_path), "-a", "-b") as pair:
        source, target = pair["-a"], pair["-b"]
        target.shutdown()
        target.add_incoming("defer")
        target.launch()
        address = f"unix:{tmp_path}/migration"
        target.cmd("migrate-incoming", uri=address)
        for each in (source, target):
            each.cmd("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
        source.cmd("migrate", uri=address)
        events = [
            ("MIGRATION", {"data": {"status": "completed"}}),
            ("MIGRATION", {"data": {"status": "failed"}}),
        ]
        for each in (source, target):
            event = each.events_wait(events, timeout=60.0)
            assert event is not None
            assert event["data"] == {"status": "completed"}
        until(lambda: source.cmd("query-status")["status"] == "postmigrate")  # a moment after the event
        source.kill()
        source.launch()
        assert source.cmd("query-status")["status"] == "running"


def stop(vm: VM) -> int:
    pid: int | None = vm.get_pid()
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    return pid


@pytest.mark.parametrize(
    "call",
    [
        lambda vm: vm.qmp("query-name"),
        lambda vm: vm.cmd("query-name"),
        lambda vm: vm.event_wait("STOP", timeout=True),
        lambda vm: vm.get_qmp_events(wait=True),
        lambda vm: vm.qtest("readb 0"),
    ],
    ids=["qmp", "cmd", "event_wait", "get_qmp_events", "qtest"],
)
def test_a_call_that_takes_too_long(vm: VM, call: Callable[[VM], object]) -> None:
    vm.launch()
    pid = stop(vm)
    with pytest.raises(TookTooLong, match="too long"), Timeout(0.2, "too long"):
        call(vm)
    os.kill(pid, signal.SIGCONT)
    assert vm.qmp("query-name") == {"return": {"name": "first"}}
    assert vm.qtest("writeb 0x1000 7") == "OK\n"
    assert vm.qtest("readb 0x1000") == "OK 0x0000000000000007\n"
    assert vm.qmp("stop") == {"return": {}}
    assert vm.event_wait("STOP", timeout=0.0) is not None


def test_a_shutdown_that_takes_too_long(vm: VM) -> None:
    vm.launch()
    pid = stop(vm)
    with pytest.raises(TookTooLong, match="too long"), Timeout(0.2, "too long"):
        vm.shutdown(timeout=None)
    assert not is_alive(pid)
    assert vm.exitcode() == -signal.SIGKILL
    vm.launch()
    assert vm.qmp("query-name") == {"return": {"name": "first"}}


def test_a_launch_that_takes_too_long(vm: VM, tmp_path: Path) -> None:
    vm._wrapper = ["sh", "-c", f"echo $$ >{tmp_path}/pid; sleep 0.3; kill -ALRM $PPID; exec sleep 1000", "sh"]
    with pytest.raises(machine.VMLaunchFailure) as caught, Timeout(60, "too long"):
        vm.launch()
    assert repr(caught.value.__cause__) == "TookTooLong('too long')"
    assert not is_alive(int((tmp_path / "pid").read_text()))
    vm._wrapper = []
    vm.launch()
    assert vm.qmp("query-name") == {"return": {"name": "first"}}


def test_qemu_under_another_program(qemu: str, tmp_path: Path) -> None:
    """As with gdbserver or valgrind: then there is no limit."""
    vm = VM(str(tmp_path))
    vm._wrapper = ["env", "-u", "NOTHING", "sh", "-c", 'sleep 0.2; exec "$@"', "sh"]
    vm._qmp_timer = None
    with vm:
        vm.launch()
        assert vm.qmp("query-name") == {"return": {"name": "first"}}
    assert vm.exitcode() == 0
