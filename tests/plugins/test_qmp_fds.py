"""Commands that go with a descriptor."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from typing import IO, Any

import pytest

from tests.plugins.descriptors import What, has_open, some_files, what
from tests.plugins.monitors import MakeMachine
from tests.waiting import InThread, until
from vmfsm import ConfigError, Machine, MachineDied, MachineTimeout, Reason, TransitionError


def in_sets(vm: Machine) -> dict[str, What]:
    """What the descriptors in sets are open on, by their `opaque`."""
    fdsets = vm.qmp.execute("query-fdsets")
    return {fd["opaque"]: what(fd["fd"], vm.pid) for fdset in fdsets for fd in fdset["fds"]}


def commands(vm: Machine) -> list[object]:
    return [record.data["command"] for record in vm.timeline if record.kind == "qmp-command"]


@contextlib.contextmanager
def stopped(vm: Machine) -> Iterator[None]:
    assert vm.pid
    os.kill(vm.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(vm.pid, signal.SIGCONT)


@pytest.mark.parametrize("address", [None, "monitor"])
def test_a_descriptor_in_a_set(monitored: MakeMachine, tmp_path: Any, address: str | None) -> None:
    vm = monitored(qmp={"address": None if address is None else str(tmp_path / address)})
    with some_files(1) as [file]:
        before = os.fstat(file.fileno()), os.get_inheritable(file.fileno())
        added = vm.qmp.execute_with_fd(file.fileno(), "add-fd", {"fdset-id": 7}, opaque="mine")
        assert added["fdset-id"] == 7
        assert what(added["fd"], vm.pid) == what(file)
        assert (os.fstat(file.fileno()), os.get_inheritable(file.fileno())) == before
    vm.qmp.execute("remove-fd", fdset_id=7)


def test_a_descriptor_under_a_name(monitored: MakeMachine) -> None:
    vm = monitored()
    with some_files(2) as files:
        for number, file in enumerate(files):
            assert vm.qmp.execute_with_fd(file.fileno(), "getfd", fdname=f"file{number}") == {}
        vm.qmp.execute("closefd", fdname="file0")
        assert [has_open(vm, file) for file in files] == [False, True]


def test_in_coroutines(monitored: MakeMachine) -> None:
    vm = monitored()

    async def add(file: IO[bytes]) -> Any:
        return await vm.qmp.aio.execute_with_fd(file.fileno(), "add-fd", timeout=20)

    async def add_all(files: list[IO[bytes]]) -> list[Any]:
        return await asyncio.gather(*map(add, files))

    with some_files(5) as files:
        added = asyncio.run(add_all(files))
        assert [what(one["fd"], vm.pid) for one in added] == [what(f) for f in files]


def test_many_threads_at_once(monitored: MakeMachine) -> None:
    vm = monitored()

    def add(files: list[IO[bytes]]) -> None:
        for file in files:
            added = vm.qmp.execute_with_fd(file.fileno(), "add-fd")
            assert what(added["fd"], vm.pid) == what(file)
            vm.qmp.execute("remove-fd", fdset_id=added["fdset-id"])

    with some_files(40) as files:
        for thread in [InThread(add, files[number::8]) for number in range(8)]:
            thread.result()
        assert not any(has_open(vm, file) for file in files)


def test_the_next_descriptor_waits_for_an_answer_nobody_waits_for(monitored: MakeMachine) -> None:
    vm = monitored()
    with some_files(3) as files:
        with stopped(vm):
            with pytest.raises(MachineTimeout):
                vm.qmp.execute_with_fd(files[0].fileno(), "add-fd", opaque="0", timeout=0.05)
            queued = InThread(vm.qmp.execute_with_fd, files[1].fileno(), "add-fd", opaque="1")
            until(lambda: commands(vm).count("add-fd") == 2)
            with pytest.raises(MachineTimeout):
                vm.qmp.execute_with_fd(files[2].fileno(), "add-fd", opaque="2", timeout=0.05)
        queued.result()
        expected = {str(number): what(files[number]) for number in (0, 1)}
        assert in_sets(vm) == expected, "and the third, that was given up while it waited, was never sent"


def test_a_descriptor_closed_by_who_gave_up(monitored: MakeMachine) -> None:
    vm = monitored()
    with some_files(1) as [file]:
        with stopped(vm):
            copy = os.dup(file.fileno())
            with pytest.raises(MachineTimeout):
                vm.qmp.execute_with_fd(copy, "add-fd", opaque="0", timeout=0.05)
            os.close(copy)
        until(lambda: "0" in in_sets(vm))
        assert in_sets(vm) == {"0": what(file)}


def test_it_overtakes_nothing_that_waits_for_room(monitored: MakeMachine) -> None:
    vm = monitored()
    with some_files(2) as files:
        with stopped(vm):
            large = [
                InThread(vm.qmp.execute_raw, "query-name", {"x": "x" * 150_000}, timeout=30) for _ in range(3)
            ]
            until(lambda: commands(vm).count("query-name") == 3)
            fds = [
                InThread(vm.qmp.execute_with_fd, file.fileno(), "add-fd", opaque=str(number))
                for number, file in enumerate(files)
            ]
            until(lambda: commands(vm).count("add-fd") == 2)
            with pytest.raises(MachineTimeout):
                vm.qmp.execute_with_fd(0, "add-fd", opaque="late", timeout=0.05)
        for thread in large:
            assert "error" in thread.result(), "what was sent came whole"
        for thread in fds:
            thread.result()
        assert in_sets(vm) == {str(n): what(file) for n, file in enumerate(files)}


def test_a_command_larger_than_the_socket(monitored: MakeMachine) -> None:
    vm = monitored()
    opaque = "x" * 400_000
    with some_files(1) as [file]:
        added = InThread(vm.qmp.execute_with_fd, file.fileno(), "add-fd", opaque=opaque)
        others = [InThread(vm.qmp.execute, "query-name") for _ in range(5)]
        assert what(added.result()["fd"], vm.pid) == what(file)
        for other in others:
            assert other.result() == {}
        assert opaque in in_sets(vm)


def test_an_error_of_qemu(monitored: MakeMachine) -> None:
    vm = monitored()
    with some_files(2) as files:
        reply = InThread(vm.qmp.execute_with_fd, files[0].fileno(), "add-fd", fdset_id=-1).join()
        assert "fdset-id" in str(reply.error)
        added = vm.qmp.execute_with_fd(files[1].fileno(), "add-fd")
        assert what(added["fd"], vm.pid) == what(files[1])


def closed_fd() -> int:
    fd = os.open("/", os.O_RDONLY)
    os.close(fd)
    return fd


@pytest.mark.parametrize("fd", [-1, True, None, "3", 2.0, 2**80, closed_fd])
def test_what_is_no_open_descriptor(monitored: MakeMachine, fd: Any) -> None:
    vm = monitored()
    before = commands(vm)
    with pytest.raises(ConfigError) as caught:
        vm.qmp.execute_with_fd(fd() if callable(fd) else fd, "add-fd")
    assert caught.value.field == "fd"
    assert commands(vm) == before


def test_over_tcp(monitored: MakeMachine) -> None:
    vm = monitored(qmp={"address": ("127.0.0.1", 0)})
    before = commands(vm)
    with pytest.raises(ConfigError, match="can't pass over TCP") as caught:
        vm.qmp.execute_with_fd(0, "add-fd")
    assert caught.value.field == "options['qmp']['address']"
    assert commands(vm) == before


def test_without_a_monitor(monitored: MakeMachine) -> None:
    vm = monitored(qmp={"enabled": False}, launch=False)
    with pytest.raises(ConfigError, match="no monitor"):
        vm.qmp.execute_with_fd(0, "add-fd")
    vm = monitored(launch=False)
    with pytest.raises(TransitionError, match="before the first launch"):
        vm.qmp.execute_with_fd(0, "add-fd")


def test_the_end_of_qemu_under_way(monitored: MakeMachine) -> None:
    vm = monitored()
    assert vm.pid
    os.kill(vm.pid, signal.SIGSTOP)
    with some_files(2) as files:
        calls = [InThread(vm.qmp.execute_with_fd, file.fileno(), "add-fd") for file in files]
        until(lambda: commands(vm).count("add-fd") == 2)
        vm.kill()
        for call in calls:
            assert isinstance(call.join().error, MachineDied)
    assert vm.reason is Reason.KILLED


def test_the_end_of_the_connection_under_way(monitored: MakeMachine, tmp_path: Any) -> None:
    vm = monitored(qmp={"address": str(tmp_path / "monitor")})
    with some_files(3) as files:
        with stopped(vm):
            calls = [InThread(vm.qmp.execute_with_fd, file.fileno(), "add-fd") for file in files[:2]]
            until(lambda: commands(vm).count("add-fd") == 2)
            reconnecting = InThread(vm.qmp.reconnect)
            for call in calls:
                assert "no connection to the monitor" in str(call.join().error)
        reconnecting.result()
        added = vm.qmp.execute_with_fd(files[2].fileno(), "add-fd")
        assert what(added["fd"], vm.pid) == what(files[2])
