"""Nothing outlives its harness, however that dies; and nothing of anybody else's is touched."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.conftest import MakeMachine
from tests.waiting import InThread, is_alive, until
from vmfsm import Machine, State, proc, registry
from vmfsm.registry import Status

SEEDS = int(os.environ.get("VMFSM_TEST_SEEDS", "15"))

# A machine with what is hardest to end: a companion whose child has a session of its own.
HARNESS = """
import os, signal, sys, threading, time
from vmfsm import Machine, hookimpl

class Companions:
    name = "companions"

    @hookimpl
    def pre_launch(self, plan):
        plan.companion(["sh", "-c", "setsid sleep 1000 & exec sleep 1000"], name="companion")

directory, wrapper, options = sys.argv[1], eval(sys.argv[2]), eval(sys.argv[3])
vm = Machine("qemu-system-x86_64", ["-M", "none"], name="owned", base_dir=directory, wrapper=wrapper,
             options=options, plugins=[Companions()])
"""
UP = """
vm.launch()
print("up", flush=True)
"""
SLEEP = "time.sleep(1000)"


class Harness:
    """A program with a machine, in a process of its own."""

    def __init__(self, directory: Path, body: str, *, wrapper: object = (), options: object = None) -> None:
        self.directory = directory
        self.mark = f"VMFSM_TEST_HARNESS={directory}"
        name, _, value = self.mark.partition("=")
        self.process = subprocess.Popen(
            [sys.executable, "-c", HARNESS + body, str(directory), repr(wrapper), repr(options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, name: value},
        )

    def await_up(self) -> Self:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"up\n"
        return self

    def processes(self) -> set[proc.Identity]:
        """All that it has started, but for itself and its watchdog, which is nobody's machine."""
        name, _, value = self.mark.partition("=")
        return {
            process.identity
            for process in proc.living()
            if process.environment(name) == value and process.identity.pid != self.process.pid
        }

    def entries(self) -> list[registry.Entry]:
        return [entry for entry in registry.machines() if entry.harness.pid == self.process.pid]

    def assert_nothing_is_left(self) -> None:
        self.process.wait(60)
        until(lambda: not self.processes() and not self.entries() and not os.listdir(self.directory))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "machines"
    directory.mkdir()
    return directory


MakeHarness = Callable[..., Harness]


@pytest.fixture
def harness(qemu: str, directory: Path) -> Iterator[MakeHarness]:
    """Runs harnesses, and kills what there may be of them at the end."""
    harnesses: list[Harness] = []

    def make(body: str, **how: Any) -> Harness:
        harnesses.append(Harness(directory, body, **how))
        return harnesses[-1]

    yield make
    for harness in harnesses:
        harness.kill()
        for process in harness.processes():
            process.kill()
        assert harness.process.stdout is not None
        harness.process.stdout.close()


# -- however it dies ----------------------------------------------------------------------------------------

DEATHS = {
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM)",
    "SIGSEGV": "os.kill(os.getpid(), signal.SIGSEGV)",
    "os._exit": "os._exit(0)",
    "exception": "raise ValueError",
    "its end": "",
    "a thread that calls os._exit": "threading.Thread(target=os._exit, args=(0,)).start(); time.sleep(1000)",
}


@pytest.mark.parametrize("death", DEATHS.values(), ids=DEATHS)
def test_nothing_outlives_a_harness_that_dies(harness: MakeHarness, death: str) -> None:
    harness(UP + death).await_up().assert_nothing_is_left()


WRAPPERS: dict[str, tuple[str, ...]] = {
    "forks": ("timeout", "1000"),
    "shell": ("sh", "-c", '"$@"; true', "sh"),
    "new session": ("setsid", "--fork", "--wait"),
    "no environment": ("env", "-i", f"PATH={os.environ['PATH']}"),
}


@pytest.mark.parametrize("wrapper", WRAPPERS.values(), ids=WRAPPERS)
def test_nor_does_what_is_behind_a_wrapper(harness: MakeHarness, wrapper: tuple[str, ...]) -> None:
    one = harness(UP + SLEEP, wrapper=wrapper).await_up()
    entry = one.entries()[0]
    one.kill()
    one.assert_nothing_is_left()
    assert entry.pid is not None
    assert not is_alive(entry.pid)


def test_a_socket_outside_of_the_private_directory(harness: MakeHarness, tmp_path: Path) -> None:
    path = tmp_path / "monitor"
    one = harness(UP + SLEEP, options={"qmp": {"address": str(path)}}).await_up()
    assert one.entries()[0].sockets == (str(path),)
    assert path.exists()
    one.kill()
    one.assert_nothing_is_left()
    assert not path.exists()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_at_any_moment_of_a_launch(harness: MakeHarness, seed: int) -> None:
    one = harness('print("up", flush=True)\nwhile True: vm.launch().shutdown()').await_up()
    time.sleep(random.Random(seed).uniform(0, 0.15))  # it is the moment that is tried, not waited for
    one.kill()
    one.assert_nothing_is_left()


def test_what_a_thread_launched_that_ended_lives_on(bare: MakeMachine) -> None:
    vm = bare()
    InThread(vm.launch).join()
    assert threading.active_count() > 0
    assert vm.state is State.RUNNING
    assert vm.pid is not None
    assert is_alive(vm.pid)
    vm.shutdown()


def watchdogs(harness: Harness) -> list[int]:
    found = []
    for process in proc.living():
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{process.identity.pid}/stat").read_text()
            if "(vmfsm-watchdog)" in stat and stat.rpartition(") ")[2].split()[1] == str(harness.process.pid):
                found.append(process.identity.pid)
    return found


def test_a_watchdog_that_dies_gets_a_successor(harness: MakeHarness) -> None:
    one = harness(UP + SLEEP).await_up()
    until(lambda: watchdogs(one))
    (first,) = watchdogs(one)
    os.kill(first, signal.SIGKILL)
    until(lambda: watchdogs(one) not in ([], [first]))
    one.kill()
    one.assert_nothing_is_left()


def test_it_ignores_what_is_sent_to_the_terminals_programs(harness: MakeHarness) -> None:
    one = harness(UP + SLEEP).await_up()
    until(lambda: watchdogs(one))
    (watchdog,) = watchdogs(one)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(watchdog, number)
    one.kill()
    one.assert_nothing_is_left()


# -- the registry -------------------------------------------------------------------------------------------


def of(vm: Machine) -> list[registry.Entry]:
    return [entry for entry in registry.machines() if entry.name == vm.name]


def test_a_machine_is_registered_while_there_is_something_of_it(bare: MakeMachine) -> None:
    vm = bare(name="registered")
    assert of(vm) == []
    vm.launch()
    (entry,) = of(vm)
    assert entry.status is Status.LIVE
    assert (entry.pid, entry.harness.pid, entry.uid) == (vm.pid, os.getpid(), os.geteuid())
    assert vm.pid is not None
    assert proc.identify(vm.pid) == (entry.pid, entry.start_time)
    assert os.path.isdir(entry.directory)
    assert 0 <= time.time() - entry.since < 600
    assert entry.harness.command == tuple(sys.orig_argv)
    assert registry.clean_up() == [] or vm.pid is not None
    assert vm.pid is not None
    vm.shutdown()
    assert of(vm) == []


def test_many_at_once(bare: MakeMachine) -> None:
    machines = [bare(name=f"many-{number}").launch() for number in range(5)]
    machines[1].shutdown()
    names = [entry.name for entry in registry.machines() if entry.name.startswith("many-")]
    assert names == ["many-0", "many-2", "many-3", "many-4"]
    for vm in machines:
        vm.shutdown()
    assert not any(of(vm) for vm in machines)


def test_a_file_does_not_grow_with_launches(bare: MakeMachine) -> None:
    lasting = bare(name="lasting").launch()
    (entry,) = of(lasting)
    vm = bare(name="n" * 64)
    for _ in range(60):
        vm.launch().kill()
    assert os.path.getsize(entry.file) < 200_000
    assert len(of(lasting)) == 1


@pytest.fixture
def orphans(harness: MakeHarness) -> Harness:
    """A harness that has died together with its watchdog, and left all."""
    one = harness(UP + SLEEP).await_up()
    until(lambda: watchdogs(one))
    (watchdog,) = watchdogs(one)
    os.kill(one.process.pid, signal.SIGSTOP)  # so that it starts no other one
    os.kill(watchdog, signal.SIGKILL)
    one.kill()
    return one


def test_orphans_are_found_and_removed(orphans: Harness) -> None:
    (entry,) = orphans.entries()
    assert entry.status is Status.ORPHANED
    assert len(orphans.processes()) == 3
    (removed,) = [left for left in registry.clean_up() if left.name == "owned"]
    assert removed == entry
    orphans.assert_nothing_is_left()


def test_the_next_harness_removes_them(orphans: Harness, harness: MakeHarness, directory: Path) -> None:
    assert orphans.entries()
    other = harness("vm.launch()\nprint('up', flush=True)\n" + SLEEP).await_up()
    until(lambda: not orphans.entries())
    until(
        lambda: {entry.directory for entry in other.entries()} == {str(path) for path in directory.iterdir()}
    )


def forged(changes: dict[str, Any], *, boot_id: str | None = None, namespace: int | None = None) -> str:
    """A file of a program that never was; its entry is about this very process."""
    me = proc.identify(os.getpid())
    assert me is not None
    entry = {
        "name": "forged",
        "pid": me.pid,
        "start_time": me.start_time,
        "harness": (2**22 + 1, 1, ["gone"]),
        "uid": os.geteuid(),
        "boot_id": boot_id or proc.boot_id(),
        "pid_namespace": namespace or proc.pid_namespace(),
        "since": 1.0,
        "directory": "/nonexistent/vmfsm-forged",
        "sockets": [],
        "mark": "forged-1",
        **changes,
    }
    name = f"{entry['boot_id']}_{entry['pid_namespace']}_{2**22 + 1}_1.1.jsonl"
    file = os.path.join(registry.directory(), name)
    Path(file).write_text(json.dumps(entry) + "\n")
    return file


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ({"changes": {"start_time": 2**60}}, Status.STALE),
        ({"changes": {}, "boot_id": "another"}, Status.STALE),
        ({"changes": {}, "namespace": 1}, Status.FOREIGN),
    ],
    ids=["reused pid", "another boot", "another container"],
)
def test_who_has_the_pid_by_chance_is_not_touched(qemu: str, how: dict[str, Any], status: Status) -> None:
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as bystander:
        file = forged({"pid": bystander.pid, **how.pop("changes")}, **how)
        try:
            (entry,) = [entry for entry in registry.machines() if entry.name == "forged"]
            assert entry.status is status
            registry.clean_up()
            assert bystander.poll() is None
            assert os.path.exists(file) == (status is Status.FOREIGN)
        finally:
            bystander.kill()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(file)


@pytest.mark.parametrize(
    "text", ["", "{", '{"mark": 1}\n', "\0" * 100, '{"mark": "x", "pid": "y"}\n', "[1]\n"]
)
def test_a_file_that_is_damaged(qemu: str, text: str) -> None:
    file = forged({})
    Path(file).write_text(text)
    assert [entry for entry in registry.machines() if entry.file == file] == []
    registry.clean_up()
    assert not os.path.exists(file)


def test_a_registry_that_others_can_write_is_not_used(
    harness: MakeHarness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "vmfsm").mkdir(mode=0o777)
    (tmp_path / "vmfsm").chmod(0o777)
    with pytest.raises(PermissionError, match="not a directory that is this user's alone"):
        registry.machines()
    one = harness(UP + SLEEP).await_up()  # it goes on without
    processes = one.processes()
    assert len(processes) == 3
    one.kill()
    until(lambda: not one.processes())
    assert os.listdir(tmp_path / "vmfsm") == []
