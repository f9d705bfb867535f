"""The check for what is left behind finds each kind of it, says what it is, and blames nobody else."""

import asyncio
import functools
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import MakeMachine
from tests.waiting import InThread, is_alive, until
from vmfsm import (
    ConfigError,
    LaunchPlan,
    Machine,
    MachineTimeout,
    TransitionError,
    VMError,
    hookimpl,
    registry,
)
from vmfsm.iothread import IOThread
from vmfsm.testing import GUEST_ARGS, Leak, inventory, leakcheck, leaks
from vmfsm.testing.leaks import MARK

Leaving = Iterator[str]
"""Leaves something, yields a pattern for its description, and removes it."""


def until_it_shows_its_command(pid: int) -> None:
    """A process that has just been started shows none for a moment, or its parent's."""
    until(lambda: Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep"))


def a_process(_: Path) -> Leaving:
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            until_it_shows_its_command(process.pid)
            yield rf"process {process.pid}: sleep 1000 \(a child, started \d\.\d s ago\)"
        finally:
            process.kill()


def a_zombie(_: Path) -> Leaving:
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        yield rf"process {process.pid}: true \(a child, .*, a zombie that nobody reaps\)"


def an_orphan(_: Path) -> Leaving:
    yield from orphaned("sleep 1000 >/dev/null & echo $!")


def an_orphan_in_a_session_of_its_own(_: Path) -> Leaving:
    yield from orphaned("setsid sleep 1000 >/dev/null & echo $!")


def orphaned(script: str) -> Leaving:
    pid = int(subprocess.run(["sh", "-c", script], check=True, stdout=subprocess.PIPE).stdout)
    try:
        until_it_shows_its_command(pid)
        yield rf"process {pid}: sleep 1000 \(a child of \d+, started \d\.\d s ago\)"
    finally:
        os.kill(pid, 9)
        until(lambda: not is_alive(pid))


def an_open_file(directory: Path) -> Leaving:
    with open(__file__, "rb") as file:
        yield rf"fd {file.fileno()} -> {re.escape(__file__)}"


def a_pipe(_: Path) -> Leaving:
    read, write = os.pipe()
    os.close(write)
    yield rf"fd {read} -> pipe:\[\d+\]"
    os.close(read)


def a_socket(directory: Path) -> Leaving:
    with socket.create_server(("127.0.0.1", 0)) as left:
        port = left.getsockname()[1]
        yield rf"fd {left.fileno()} -> socket:\[\d+\] \(AF_INET \('127\.0\.0\.1', {port}\)\)"


def a_thread(_: Path) -> Leaving:
    over = threading.Event()
    thread = threading.Thread(target=over.wait, name="left-alone")
    thread.start()
    try:
        yield r'thread \'left-alone\', which stands at\n    File ".*threading.py", line \d+, in wait\n'
    finally:
        over.set()
        thread.join()


def a_task(_: Path) -> Leaving:
    io = IOThread.get()
    started: list[Callable[[], object]] = []

    async def lingering() -> None:
        over = io.loop.create_future()
        started.append(lambda: io.post(over.set_result, None))
        await over

    io.post(lambda: io.start(lingering()))
    until(lambda: started)
    yield r"task '.*' of the I/O thread, .*lingering, which stands at\n    File .*, in lingering$"
    started[0]()


def a_file(directory: Path) -> Leaving:
    path = directory / "left"
    path.touch()
    yield f"file {path}"
    path.unlink()


def a_directory(directory: Path) -> Leaving:
    path = directory / "left"
    path.mkdir()
    yield f"directory {path}"
    path.rmdir()


def a_socket_in_a_directory(directory: Path) -> Leaving:
    path = directory / "left"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
    yield f"socket {path}"
    path.unlink()


KINDS = [
    a_process,
    a_zombie,
    an_orphan,
    an_orphan_in_a_session_of_its_own,
    an_open_file,
    a_pipe,
    a_socket,
    a_thread,
    a_task,
    a_file,
    a_directory,
    a_socket_in_a_directory,
]


@pytest.mark.parametrize("leave", KINDS)
def test_each_kind_of_leak_is_found_and_described(leave: Callable[[Path], Leaving], tmp_path: Path) -> None:
    leaving = leave(tmp_path)
    with pytest.raises(Leak) as caught, leakcheck(patience=0, directories=[tmp_path]):
        what = next(leaving)
    assert list(leaving) == []
    assert len(caught.value.leaks) == 1, "it names what was left and nothing else"
    assert re.match(what, caught.value.leaks[0]), caught.value.leaks[0]
    assert str(caught.value) == "left behind:\n  " + caught.value.leaks[0].replace("\n", "\n  ")


def test_a_machine_that_still_runs_is_named_first(qemu: str, tmp_path: Path) -> None:
    with Machine(qemu, GUEST_ARGS, name="forgotten", base_dir=tmp_path) as vm:
        with pytest.raises(Leak) as caught, leakcheck(patience=0):
            vm.launch()
        first, second, *others = caught.value.leaks
        assert re.fullmatch(rf"machine 'forgotten' is still running \(pid {vm.pid}, for \d\.\d s\)", first)
        assert second.startswith(f"process {vm.pid}: ")
        assert any(re.fullmatch(rf"directory {tmp_path}/vmfsm-[\w-]+", leak) for leak in others)


class Littering:
    """Sees to it that the private directory can't be removed."""

    name = "littering"

    @hookimpl
    def pre_launch(self, plan: LaunchPlan) -> None:
        self.directory = Path(plan.directory)
        self.directory.symlink_to(self.directory.rename(self.directory.with_name("elsewhere")))


def test_a_private_directory_that_cannot_be_removed(bare: MakeMachine, tmp_path: Path) -> None:
    littering = Littering()
    vm = bare(littering, base_dir=tmp_path)
    with pytest.raises(Leak) as caught, leakcheck(patience=0):  # noqa: PT012
        vm.launch()
        with pytest.raises(VMError, match="symbolic link"):
            vm.shutdown()
    file, entry = caught.value.leaks
    assert file == f"file {littering.directory}"
    assert re.fullmatch(rf"registry entry of machine '{vm.name}' \(pid \d+\)", entry)
    littering.directory.unlink()


def test_what_a_wrapper_leaves_when_it_has_ended_is_found(qemu: str, tmp_path: Path) -> None:
    left = tmp_path / "pid"
    # Without the launch's own mark: what has that is ended with the machine.
    script = f'env -u {registry.MARK} setsid sleep 1000 >/dev/null 2>&1 & echo $! >{left}; exec "$@"'
    vm = Machine(qemu, GUEST_ARGS, wrapper=["sh", "-c", script, "sh"])
    with pytest.raises(Leak) as caught, leakcheck(patience=0.2), vm:  # noqa: PT012
        vm.launch()
        until_it_shows_its_command(int(left.read_text()))
    pid = int(left.read_text())
    os.kill(pid, 9)
    assert [leak.partition(" (")[0] for leak in caught.value.leaks] == [f"process {pid}: sleep 1000"]
    until(lambda: not is_alive(pid))


def test_an_io_thread_that_is_held_up_is_a_leak() -> None:
    io = IOThread.get()
    over = threading.Event()
    with pytest.raises(Leak) as caught, leakcheck(patience=0):
        io.post(over.wait, 30)
    over.set()
    assert [leak.partition(", which")[0] for leak in caught.value.leaks] == [
        "the I/O thread, held up: thread 'vmfsm-io', a daemon"
    ]
    assert "in wait" in caught.value.leaks[0]


def test_an_io_thread_that_is_held_up_before_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMFSM_TIMEOUT_SCALE", "0.01")
    over = threading.Event()
    IOThread.get().post(over.wait, 60)
    try:
        with pytest.raises(MachineTimeout, match=r"held up for 0\.3 s: thread 'vmfsm-io'"), leakcheck():
            pytest.fail("it was entered")
    finally:
        over.set()


def test_describing_a_socket_that_is_none_any_more_leaves_nothing() -> None:
    """As if it had no addresses: some kinds have none."""
    with socket.socket() as one, open(os.devnull, "rb") as other:
        fd = one.fileno()
        (describe,) = [about for key, about in inventory.take([]).items() if is_fd(key, fd)]
        os.dup2(other.fileno(), fd)
        before = os.listdir("/proc/self/fd")
        assert re.fullmatch(rf"fd {fd} -> socket:\[\d+\]", describe())
        assert os.listdir("/proc/self/fd") == before


def is_fd(key: Hashable, fd: int) -> bool:
    return isinstance(key, tuple) and key[:2] == ("fd", fd)


# -- what is no leak ----------------------------------------------------------------------------------------


def test_what_was_there_before_is_none(tmp_path: Path) -> None:
    """Whatever becomes of it meanwhile."""
    file = tmp_path / "file"
    helper = "read go; sleep 1000 & echo $!; wait"
    with (
        file.open("wb"),
        socket.socket(),
        subprocess.Popen(["sh", "-c", helper], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        with leakcheck(patience=0, directories=[tmp_path]):
            file.unlink()
            process.stdin.write(b"\n")
            process.stdin.flush()
            child = int(process.stdout.readline())
        process.kill()
        os.kill(child, 9)
        until(lambda: not is_alive(child))


def test_what_ends_soon_is_waited_for_and_no_longer() -> None:
    begin = time.monotonic()
    with leakcheck(patience=30):
        threading.Timer(0.05, lambda: None).start()
    assert time.monotonic() - begin < 15


def test_what_nobody_can_reach_is_none() -> None:
    class Node:
        def __init__(self) -> None:
            self.itself = self
            self.read, self.write = os.pipe()

        def __del__(self) -> None:
            os.close(self.read)
            os.close(self.write)

    with leakcheck(patience=0):
        Node()


def test_what_is_ignored_is_none() -> None:
    with leakcheck(patience=0, ignore=["nothing", r"^fd \d+ -> /dev/null$"]):
        file = open("/dev/null", "rb")  # noqa: SIM115
    file.close()


def test_fifty_machines_in_a_row_are_none(qemu: str) -> None:
    for _ in range(50):
        with leakcheck(), Machine(qemu, ["-M", "none", "-nodefaults"]) as vm:
            vm.launch()


def test_machines_beside_each_other_are_none(qemu: str) -> None:
    def launch(number: int) -> None:
        with Machine(qemu, GUEST_ARGS) as vm:
            vm.launch()
            vm.console.expect("ready")

    with leakcheck(), ThreadPoolExecutor(4) as pool:
        list(pool.map(launch, range(12)))


def test_a_machine_that_dies_is_none(qemu: str) -> None:
    for _ in range(10):
        with leakcheck():
            vm = Machine(qemu, GUEST_ARGS).launch()
            assert vm.pid
            os.kill(vm.pid, 11)  # and nobody waits for it


def test_a_failed_launch_is_none(qemu: str) -> None:
    with leakcheck(), pytest.raises(VMError):
        Machine(qemu, ["-nonsense"]).launch()


OTHER_HARNESS = """
from vmfsm.testing import GUEST_ARGS, leakcheck
for _ in range(5):
    with leakcheck(patience=0.2):
        file = None
    with leakcheck(), Machine("qemu-system-x86_64", GUEST_ARGS) as vm:
        vm.launch()
"""


def test_harnesses_beside_each_other_do_not_blame_each_other(qemu: str, tmp_path: Path) -> None:
    """Parallel workers of pytest, say: they have the place for temporary files in common."""
    with leakcheck(directories=[tmp_path]):
        script = tmp_path / "harness.py"
        script.write_text("from vmfsm import Machine\n" + OTHER_HARNESS)
        harnesses = [
            subprocess.Popen([sys.executable, script], stderr=subprocess.PIPE, text=True) for _ in range(3)
        ]
        said = [harness.communicate(timeout=60)[1] for harness in harnesses]
        script.unlink()
    assert said == ["", "", ""]
    assert [harness.returncode for harness in harnesses] == [0, 0, 0]


# -- as a context manager -----------------------------------------------------------------------------------


def test_an_exception_of_the_block_gets_a_note() -> None:
    with pytest.raises(ZeroDivisionError) as caught, leakcheck(patience=0):  # noqa: PT012
        read, write = os.pipe()
        raise ZeroDivisionError
    os.close(read)
    os.close(write)
    (note,) = caught.value.__notes__
    assert re.match(rf"left behind:\n  fd {read} -> pipe:.*\n  fd {write} -> pipe:", note)


def test_ctrl_c_is_not_held_up() -> None:
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt) as caught, leakcheck(patience=30):  # noqa: PT012
        read, write = os.pipe()
        raise KeyboardInterrupt
    os.close(read)
    os.close(write)
    assert time.monotonic() - begin < 15
    assert not hasattr(caught.value, "__notes__")


def test_ctrl_c_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment is as it was then, though the traceback is kept."""
    # Nowhere else: what it hits while a file is being opened is closed with a warning.
    asleep = SimpleNamespace(sleep=lambda seconds: signal.raise_signal(signal.SIGINT))
    monkeypatch.setattr(leaks, "time", asleep)
    before = os.environ.get(MARK)
    read, write = os.pipe()
    with pytest.raises(KeyboardInterrupt), leakcheck(patience=30):
        left = os.dup(write)
    for fd in (read, write, left):
        os.close(fd)
    assert os.environ.get(MARK) == before


def test_nested_blocks_both_find_what_the_inner_one_leaves() -> None:
    leaving = an_orphan_in_a_session_of_its_own(Path())
    with pytest.raises(Leak) as outer, leakcheck(patience=0):  # noqa: PT012
        with pytest.raises(Leak) as inner, leakcheck(patience=0):
            next(leaving)
        with leakcheck(patience=0):
            pass
    assert list(leaving) == []
    assert len(outer.value.leaks) == 1
    assert [leak.partition(", ")[0] for leak in outer.value.leaks] == [
        leak.partition(", ")[0] for leak in inner.value.leaks
    ]


def test_blocks_of_several_threads_that_end_in_any_order() -> None:
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with leakcheck(ignore=[r"^process \d+: .*sleep"]):
            entered.set()
            leave.wait(30)

    before = os.environ.get(MARK)
    leaving = an_orphan_in_a_session_of_its_own(Path())
    thread = InThread(other)
    assert entered.wait(30)
    with pytest.raises(Leak) as caught, leakcheck(patience=0):  # noqa: PT012
        leave.set()
        thread.result()  # ends, while this block lasts
        next(leaving)
    assert list(leaving) == []
    assert [leak.partition(":")[0].partition(" ")[0] for leak in caught.value.leaks] == ["process"]
    assert os.environ.get(MARK) == before


def test_each_block_takes_one_of_its_own() -> None:
    check = leakcheck()
    with check, pytest.raises(RuntimeError, match="in use"), check:
        pytest.fail("it was entered")
    with check:
        pass


def test_what_was_left_can_be_sent_to_another_process() -> None:
    leak = Leak(["fd 1", "fd 2"])
    same = pickle.loads(pickle.dumps(leak))
    assert (
        (str(same), same.leaks)
        == (str(leak), leak.leaks)
        == ("left behind:\n  fd 1\n  fd 2", ("fd 1", "fd 2"))
    )


def test_around_coroutines() -> None:
    """What the loop is about to close is no leak."""

    async def harness() -> None:
        loop = asyncio.get_running_loop()
        async with leakcheck(patience=30):
            read, write = os.pipe()
            loop.call_later(0.05, os.close, read)
            loop.call_later(0.05, os.close, write)
        with pytest.raises(Leak):
            async with leakcheck(patience=0):
                read, write = os.pipe()
        os.close(read)
        os.close(write)

    asyncio.run(harness())


def test_not_on_the_io_thread() -> None:
    io = IOThread.get()
    raised: list[BaseException] = []

    def enter() -> None:
        try:
            leakcheck().__enter__()
        except TransitionError as error:
            raised.append(error)

    io.post(enter)
    until(lambda: raised)


def test_a_forked_child_that_leaves_the_block_does_nothing() -> None:
    script = """
import os
from vmfsm.testing import leakcheck
child = None
with leakcheck(patience=0):
    child = os.fork()
    if child:
        status = os.waitpid(child, 0)[1]
    else:
        left = os.pipe()
os._exit(0) if child == 0 else print(os.waitstatus_to_exitcode(status))
"""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], check=True, capture_output=True, text=True, timeout=60
    )
    assert (result.stdout, result.stderr) == ("0\n", "")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("patience", -1),
        ("patience", None),
        ("patience", "long"),
        ("directories", "/tmp"),
        ("directories", [1]),
        ("ignore", "text"),
        ("ignore", ["("]),
        ("ignore", [1]),
    ],
)
def test_wrong_parameters(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field) as caught:
        leakcheck(**{field: value})  # type: ignore[arg-type]
    assert caught.value.field == field


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), leakcheck(directories=[tmp_path / "missing"]):
        pytest.fail("it was entered")


def test_only_the_permanent_helper_is_exempted() -> None:
    helper = [sys.executable, "-c", "import sys; sys.stdin.read()  # from vmfsm.watchdog import main"]
    machine = ["sh", "-c", "read _", "qemu-system-x86_64", "-action", "watchdog=none", "/tmp/vmfsm-1/log"]
    for command, is_exempted in ((helper, True), (machine, False)):
        with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
            assert process.stdin is not None
            words = b"\0".join(word.encode() for word in command)
            until(functools.partial(has_command, process.pid, words))
            found = {
                key
                for key in inventory.take([])
                if isinstance(key, tuple) and key[:2] == ("process", process.pid)
            }
            assert bool(found) is not is_exempted
            process.stdin.close()


def has_command(pid: int, words: bytes) -> bool:
    return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(words)


# -- as a fixture -------------------------------------------------------------------------------------------

CONFTEST = """
import pytest
pytest_plugins = ["vmfsm.testing.pytest_leakcheck"]

@pytest.fixture
def leakcheck_options(tmp_path):
    return {"patience": 0, "directories": [tmp_path]}
"""


def test_a_test_that_leaks_fails(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makeini("[pytest]\nusefixtures = leakcheck")
    pytester.makepyfile("""
        left = []
        def test_fd(): left.append(open('/dev/null'))
        def test_file(tmp_path): (tmp_path / "file").touch()
        def test_clean(): pass
    """)
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=3, errors=2)
    result.stdout.re_match_lines(
        [r"left behind:", r"  fd \d+ -> /dev/null", r"left behind:", r"  file .*/file"]
    )
    result.stdout.no_fnmatch_line("*Traceback*")


def test_what_fixtures_remove_is_no_leak(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile("""
        import pytest
        @pytest.fixture
        def file():
            with open('/dev/null') as file:
                yield file
        @pytest.mark.usefixtures("leakcheck")
        def test_with_a_mark(file): pass
        def test_with_a_parameter(leakcheck, file): pass
    """)
    pytester.runpytest_subprocess().assert_outcomes(passed=2)


def test_imported_instead_of_registered(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        from vmfsm.testing.pytest_leakcheck import leakcheck, leakcheck_options
        def test_with_a_parameter(leakcheck): pass
    """)
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


def test_pytest_is_imported_by_nothing_but_the_fixture() -> None:
    script = "import sys, vmfsm.testing; sys.exit('pytest' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
