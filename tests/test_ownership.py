"""Nothing outlives its harness, however that dies; and nothing of anybody else's is touched."""

import contextlib
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.conftest import MakeMachine
from tests.waiting import InThread, is_alive, stand_still, until
from vmfsm import Machine, proc, registry
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

    def __init__(
        self,
        directory: Path,
        body: str,
        *,
        wrapper: object = (),
        options: object = None,
        stdin: int = subprocess.DEVNULL,
        under: tuple[str, ...] = (),
    ) -> None:
        self.directory = directory
        self.mark = f"VMFSM_TEST_HARNESS={directory}"
        name, _, value = self.mark.partition("=")
        self.process = subprocess.Popen(
            [*under, sys.executable, "-c", HARNESS + body, str(directory), repr(wrapper), repr(options)],
            stdin=stdin,
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
        if harness.process.stdin is not None:
            harness.process.stdin.close()


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


COMPANION_WITHOUT_ENVIRONMENT = """
class Bare:
    name = "bare"

    @hookimpl
    def pre_launch(self, plan):
        plan.companion(["sh", "-c", "sleep 1000 & exec env -i sleep 1000"], name="companion")
        plan.companion(["env", "-i", "sh", "-c", "sleep 1000 & exec sleep 1000"], name="second")

vm = Machine("qemu-system-x86_64", ["-M", "none"], name="owned", base_dir=directory, plugins=[Bare()])
"""


def test_nor_does_a_companion_without_environment(harness: MakeHarness) -> None:
    one = harness(COMPANION_WITHOUT_ENVIRONMENT + UP + SLEEP).await_up()
    (entry,) = one.entries()
    sessions = {pid for pid, _ in entry.companions}
    assert len(sessions) == 2
    assert len([process for process in proc.living() if process.session in sessions]) == 4
    one.kill()
    one.assert_nothing_is_left()
    assert not [process for process in proc.living() if process.session in sessions]


WITHOUT_PIDFD = """
import ctypes, os, struct
rules = [(0x20, 0, 0, 0), (0x15, 0, 1, 434), (6, 0, 0, 0x50000 | 1), (6, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(rules), ctypes.addressof(code)))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0
import logging
warned = threading.Event()
class Handler(logging.Handler):
    def emit(self, record):
        if "no watchdog: the last one ended" in record.getMessage():
            warned.set()
logging.getLogger("vmfsm.ownership").addHandler(Handler())
vm = Machine("qemu-system-x86_64", ["-M", "none"], name="owned", base_dir=directory)
vm.launch()
assert warned.wait(60)
from vmfsm import registry
(entry,) = [entry for entry in registry.machines() if entry.harness.pid == os.getpid()]
assert vm.state.value == "running" and os.path.isdir(entry.directory)
print("up", flush=True)
vm.shutdown()
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the number of a system call")
def test_where_there_is_no_pidfd_no_watchdog_is_mistaken(harness: MakeHarness) -> None:
    """It does not take what it can't open for dead; and it is said that there is none."""
    one = harness(WITHOUT_PIDFD).await_up()
    one.assert_nothing_is_left()
    assert one.process.returncode == 0


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


def test_what_a_thread_launched_that_ended_lives_on(qemu: str) -> None:
    """A parent-death signal is sent when the kernel has done with the thread: what answers then got none."""
    with Machine(qemu, ["-M", "none", "-nodefaults"]) as vm:
        thread = InThread(lambda: (vm.launch(), threading.get_native_id())[1]).result()
        until(lambda: not os.path.exists(f"/proc/self/task/{thread}"))
        assert "status" in vm.qmp.execute("query-status")


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


def test_its_own_harness_comes_before_what_others_have_left(
    harness: MakeHarness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "vmfsm").mkdir(mode=0o700)
    os.mkfifo(tmp_path / "vmfsm" / "another_1_1_1_fifo.1.jsonl")  # who opens it to read waits for ever
    one = harness(UP + SLEEP).await_up()
    until(lambda: watchdogs(one))
    one.kill()
    until(lambda: not one.processes() and not os.listdir(directory))


def test_a_watchdog_has_what_its_interpreter_needs(
    harness: MakeHarness, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    one = harness(UP + SLEEP).await_up()
    until(lambda: watchdogs(one))
    (watchdog,) = watchdogs(one)
    assert Path(f"/proc/{watchdog}/environ").read_bytes() == f"LD_LIBRARY_PATH={tmp_path}\0".encode()


EXECUTES_ANOTHER = """
vm.launch()
again = "import sys; from vmfsm import Machine; Machine('qemu-system-x86_64', ['-M', 'none'], name='again',"
again += " base_dir=sys.argv[1]).launch().shutdown(); print('up', flush=True); sys.stdin.read()"
os.execv(sys.executable, [sys.executable, "-c", again, directory])
"""


def test_a_harness_that_executes_another_one(harness: MakeHarness, directory: Path) -> None:
    """The machines of the first are not forgotten for those of the second, which has its pid."""
    one = harness(EXECUTES_ANOTHER, stdin=subprocess.PIPE).await_up()
    (entry,) = one.entries()
    assert (entry.name, entry.status) == ("owned", Status.LIVE)
    assert os.listdir(directory) == [os.path.basename(entry.directory)]
    one.kill()
    one.assert_nothing_is_left()


FORKED = """
from vmfsm import registry
vm.launch()
(entry,) = [entry for entry in registry.machines() if entry.harness.pid == os.getpid()]
harness = os.getpid()
if os.fork() == 0:
    print("up", flush=True)
    while os.getppid() == harness:
        time.sleep(0.001)
    time.sleep(0.3)  # a machine that is too busy to run it any sooner
    os.execvpe("sleep", ["sleep", "1000"], {**os.environ, registry.MARK: entry.mark})
time.sleep(1000)
"""


def test_a_process_that_is_being_forked_when_the_harness_dies(harness: MakeHarness) -> None:
    one = harness(FORKED).await_up()
    one.kill()
    one.assert_nothing_is_left()


EXECUTING = """
import ctypes, struct
from vmfsm import registry
vm.launch()
(entry,) = [entry for entry in registry.machines() if entry.harness.pid == os.getpid()]
harness = os.getpid()
if os.fork() == 0:
    os.closerange(3, 1000)
    # As execve(2) leaves a process for a moment, which may be long on a busy machine: no arguments and no
    # environment. prctl(2), PR_SET_MM_MAP; proc_pid_stat(5).
    field = [None, None, None, *map(int, open("/proc/self/stat").read().rpartition(")")[2].split()[1:])]
    field[:0] = [None]
    libc = ctypes.CDLL(None)
    libc.sbrk.restype = ctypes.c_void_p
    layout = struct.pack(
        "12Q2I", *field[26:28], *field[45:48], libc.sbrk(0), field[28], *2 * [field[48]], *2 * [field[50]],
        0, 0, 2**32 - 1)
    libc.prctl(35, 14, layout, ctypes.c_ulong(len(layout)), 0)
    assert not open("/proc/self/environ").read()
    print(os.getpid(), flush=True)
    while os.getppid() == harness:
        time.sleep(0.001)
    time.sleep(0.3)
    os.execvpe("sleep", ["sleep", "1000"], {**os.environ, registry.MARK: entry.mark})
time.sleep(1000)
"""


def test_a_process_that_executes_its_program_when_the_harness_dies(harness: MakeHarness) -> None:
    one = harness(EXECUTING)
    assert one.process.stdout is not None
    pid = int(one.process.stdout.readline())
    one.kill()
    until(lambda: not is_alive(pid))
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
    stand_still(one.process.pid)  # so that it starts no other one
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


def test_a_harness_that_dies_young_removes_them(orphans: Harness, harness: MakeHarness) -> None:
    harness(UP + "os._exit(0)").await_up()
    orphans.assert_nothing_is_left()


def forged(
    changes: dict[str, Any],
    *,
    boot_id: str | None = None,
    namespace: int | None = None,
    path: Path | None = None,
) -> str:
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
        "companions": [],
        "sockets": [],
        "directories": [],
        "mark": "forged-1",
        **changes,
    }
    name = f"{entry['boot_id']}_{entry['pid_namespace']}_{2**22 + 1}_1_forged.1.jsonl"
    file = os.path.join(path or registry.directory(), name)
    Path(file).write_text(json.dumps(entry) + "\n")
    return file


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ({"changes": {"start_time": 2**60}}, Status.STALE),
        ({"changes": {"start_time": 1}}, Status.STALE),
        ({"changes": {"pid": None, "start_time": None, "companions": [(0, 1)]}}, Status.STALE),
        ({"changes": {}, "boot_id": "another"}, Status.STALE),
        ({"changes": {}, "namespace": 1}, Status.FOREIGN),
    ],
    ids=["earlier pid", "reused pid", "reused pid of a companion", "another boot", "another container"],
)
def test_who_has_the_pid_by_chance_is_not_touched(qemu: str, how: dict[str, Any], status: Status) -> None:
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as bystander:
        changes = {"pid": bystander.pid, **how["changes"]}
        if changes.get("companions"):
            changes["companions"] = [(bystander.pid, 1)]
        file = forged(changes, boot_id=how.get("boot_id"), namespace=how.get("namespace"))
        try:
            (entry,) = [entry for entry in registry.machines() if entry.name == "forged"]
            assert entry.status is status
            registry.clean_up()
            with pytest.raises(subprocess.TimeoutExpired):
                bystander.wait(0.05)  # SIGKILL is seen at once
            assert os.path.exists(file) == (status is Status.FOREIGN)
        finally:
            bystander.kill()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(file)


def test_who_lives_in_another_boot_is_not_touched(qemu: str, tmp_path: Path) -> None:
    """Another host with the same directory, or a container with a boot id of its own."""
    directory = tmp_path / "vmfsm-theirs"
    directory.mkdir()
    file = forged({"directory": str(directory)}, boot_id="another")
    with open(file, "rb") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        (entry,) = [entry for entry in registry.machines() if entry.name == "forged"]
        assert entry.status is Status.FOREIGN
        registry.clean_up()
        assert directory.exists()
        assert os.path.exists(file)
    registry.clean_up()
    assert not directory.exists()
    assert not os.path.exists(file)


def test_its_own_file_is_locked_also_when_it_is_written_anew(bare: MakeMachine) -> None:
    lasting = bare(name="lasting").launch()
    (entry,) = of(lasting)
    before = os.stat(entry.file).st_ino
    vm = bare(name="n" * 64)
    for _ in range(100):
        if os.stat(entry.file).st_ino != before:
            break
        vm.launch().kill()
    assert os.stat(entry.file).st_ino != before
    with open(entry.file, "rb") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_what_was_being_written_anew_when_its_program_died(qemu: str) -> None:
    new = Path(forged({"pid": None, "start_time": None}) + ".new")
    new.touch()
    registry.clean_up()
    assert not new.exists()


# What the reader may not kill is another user's. Modules are imported before the user is changed, who may not
# be allowed to read them.
AS_NOBODY = """
import os, sys, time
from vmfsm import proc, registry
proc.boot_id()
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
"""
CLEANS_UP = (
    AS_NOBODY
    + """
begin = time.monotonic()
removed = registry.clean_up()
(left,) = registry.machines() or [None]
print(len(removed), left and left.status.value, 4 <= time.monotonic() - begin < 30)
"""
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="it becomes another user")


def run(program: str, *wrapper: str) -> str:
    command = [*wrapper, sys.executable, "-c", program]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


@needs_root
def test_what_cannot_be_killed_stays_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as runtime,
        subprocess.Popen(["sleep", "1000"], start_new_session=True) as s,
    ):
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        os.chown(runtime, 65534, 65534)
        sleeper = proc.identify(s.pid)
        assert sleeper is not None
        directory = Path(runtime, "vmfsm")
        directory.mkdir(mode=0o700)
        os.chown(directory, 65534, 65534)
        file = forged({"pid": sleeper.pid, "start_time": sleeper.start_time, "uid": 65534}, path=directory)
        os.chown(file, 65534, 65534)
        try:
            assert run(CLEANS_UP) == "0 orphaned True\n"
        finally:
            s.kill()
        s.wait()
        assert run(CLEANS_UP) == "1 None False\n"


@needs_root
def test_a_runtime_directory_of_another_user_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as runtime,
        tempfile.TemporaryDirectory(dir="/tmp") as temporary,
    ):
        for path in runtime, temporary:
            os.chmod(path, 0o1777)
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        monkeypatch.setenv("TMPDIR", temporary)
        asked = run(AS_NOBODY + "print(registry.directory())").strip()
        assert asked == os.path.join(temporary, "vmfsm-registry-65534")
        assert registry.directory() == os.path.join(runtime, "vmfsm")


def test_the_root_of_a_container_is_not_the_one_of_the_host(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    run("from vmfsm import registry; registry.directory()", "unshare", "--user", "--map-root-user")
    (theirs,) = os.listdir(tmp_path)
    assert theirs.startswith("vmfsm-registry-0-")


PROC_OF_ANOTHER = """
import logging, sys
logging.basicConfig(stream=sys.stdout, format="%(message)s")
from vmfsm import Machine, registry
try:
    registry.clean_up()
except OSError as error:
    print(error)
Machine("qemu-system-x86_64", ["-M", "none"], name="owned").launch().shutdown()
"""


def test_pids_of_another_namespace_are_not_looked_up(
    qemu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that sees the host's /proc."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    forged({})
    said = run(PROC_OF_ANOTHER, "unshare", "--user", "--map-root-user", "--pid", "--fork").splitlines()
    assert said == [
        "/proc is that of another pid namespace",
        f"owned: not owned: {said[0]}. QEMU will outlive this process if that is killed",
    ]


CONTAINER = ("unshare", "--user", "--map-current-user", "--pid", "--mount-proc", "--fork", "--kill-child")


def test_a_container_with_the_same_directory(
    harness: MakeHarness, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each sees that the other one is there, and leaves it alone."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    one = harness(UP + SLEEP, under=CONTAINER).await_up()
    (entry,) = [entry for entry in registry.machines() if entry.directory.startswith(str(directory))]
    assert entry.status is Status.FOREIGN
    registry.clean_up()
    processes = one.processes()
    assert len(processes) >= 4
    assert os.path.exists(entry.file)
    assert os.path.exists(entry.directory)
    one.kill()
    until(lambda: not one.processes())


ENDED_FIRST_THREAD = """
import ctypes, os, threading, time
def report():
    while open("/proc/self/stat").read().rpartition(") ")[2][0] != "Z":
        time.sleep(0.001)
    from vmfsm import proc
    print(proc.identify(os.getpid()).is_alive, flush=True)
    os._exit(0)
threading.Thread(target=report).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_lives_as_long_as_one_of_its_threads() -> None:
    assert run(ENDED_FIRST_THREAD) == "True\n"


WITHOUT_DESCRIPTORS = """
import os, resource
from vmfsm import proc
me = proc.identify(os.getpid())
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
try:
    print(me.is_alive)
except OSError as error:
    print(error.strerror)
print(me.kill())
"""


def test_who_cannot_look_takes_nobody_for_dead() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_DESCRIPTORS], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "Too many open files\nFalse\n"


@pytest.mark.parametrize(
    "changes",
    [
        {"directory": 5},
        {"sockets": [5]},
        {"sockets": ["\0"]},
        {"directories": [1]},
        {"companions": [1]},
        {"name": None},
    ],
    ids=str,
)
def test_an_entry_that_is_damaged(qemu: str, changes: dict[str, Any]) -> None:
    file = forged(changes)
    assert [entry for entry in registry.machines() if entry.file == file] == []
    registry.clean_up()
    assert not os.path.exists(file)


def test_what_is_behind_half_a_line_is_read(tmp_path: Path) -> None:
    ledger = registry.Ledger(str(tmp_path), registry.Harness(2**22 + 1, 1, ()), "token")
    try:
        os.write(ledger.descriptor, b'{"mark": "half')  # as on a full disk
        ledger.begin("whole", name="whole", directory="/nonexistent")
        (file,) = tmp_path.iterdir()
        assert [entry.name for entry in registry._read(str(file))] == ["whole"]
    finally:
        os.close(ledger.descriptor)


@pytest.mark.parametrize(
    "text", ["", "{", '{"mark": 1}\n', "\0" * 100, '{"mark": "x", "pid": "y"}\n', "[1]\n"]
)
def test_a_file_that_is_damaged(qemu: str, text: str) -> None:
    file = forged({})
    Path(file).write_text(text)
    assert [entry for entry in registry.machines() if entry.file == file] == []
    registry.clean_up()
    assert not os.path.exists(file)


def test_a_fifo_in_the_place_of_a_file(qemu: str) -> None:
    file = forged({})
    os.unlink(file)
    os.mkfifo(file)
    asking = InThread(registry.machines).join(30)
    assert [entry for entry in asking.result() if entry.file == file] == []
    InThread(registry.clean_up).join(30).result()
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
