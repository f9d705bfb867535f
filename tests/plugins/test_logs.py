"""QEMU's stdout and stderr: live in a file, in the timeline, in errors."""

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from vmfsm_plugins.logs import Logs

from tests.plugins.fake_console import program
from tests.waiting import LIMIT, SLACK, InThread, catches, until
from vmfsm import (
    AbnormalExit,
    ConfigError,
    LaunchError,
    Machine,
    MachineTimeout,
    TransitionError,
    hookimpl,
)
from vmfsm.offers import Log as OfferedLog

Make = Callable[..., Machine]
BARE = ("-M", "none", "-nodefaults")


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes machines that run code in QEMU's place, whose stdout and stderr are descriptors 1 and 2."""
    machines = []

    def make(code: str, **parameters: object) -> Machine:
        settings: dict[str, object] = {"display": None, "block": ["qmp", "console"], **parameters}
        machines.append(Machine("true", wrapper=program(code), **settings))  # type: ignore[arg-type]
        return machines[-1]

    yield make
    for machine in machines:
        machine.kill()


class Waits:
    """A launch that goes on until QEMU ends."""

    name = "waits"

    @hookimpl
    async def post_launch(self, machine: Machine) -> None:
        await machine.arun(_for_ever(), timeout=30, operation="waiting")


async def _for_ever() -> None:
    await asyncio.get_running_loop().create_future()


def test_is_what_the_core_promises() -> None:
    def accept(log: OfferedLog) -> None: ...

    def check(log: Logs) -> None:
        accept(log)  # mypy reads this

    assert callable(check)


def test_live_in_the_file_and_in_text(make: Make, tmp_path: Path) -> None:
    vm = make("os.write(1, b'one\\n'); os.write(2, b'two')", name="vm", log_dir=tmp_path)
    assert (vm.log.text, vm.log.path, vm.log.tail()) == ("", "", "")
    vm.launch()
    until(lambda: vm.log.text == "one\ntwo")
    assert vm.log.path == str(tmp_path / "vm.log")
    assert Path(vm.log.path).read_bytes() == b"one\ntwo"
    assert vm.evidence().output == "one\ntwo"
    vm.kill()
    assert vm.log.text == "one\ntwo"
    said = [record.data["text"] for record in vm.timeline if record.kind == "output"]
    assert "".join(map(str, said)) == "one\ntwo"


def test_without_log_dir_the_last_mebibyte_stays(make: Make) -> None:
    vm = make("for n in range(300000): os.write(1, b'%06d\\n' % n)\nos._exit(0)")
    vm.launch()
    path = vm.log.path
    vm.wait(timeout=60)
    assert not os.path.exists(path)
    assert len(vm.log.text) == 1024 * 1024
    assert vm.log.tail(2) == "299998\n299999\n"


def test_text_is_the_whole_while_there_is_the_file(make: Make, tmp_path: Path) -> None:
    vm = make("for n in range(300000): os.write(1, b'%06d\\n' % n)\nos._exit(0)", log_dir=tmp_path)
    vm.launch()
    vm.wait(timeout=60)
    assert vm.log.text == "".join(f"{n:06d}\n" for n in range(300_000))
    assert vm.log.tail(200_000).startswith("100000\n100001\n")


@pytest.mark.parametrize(
    ("said", "lines", "expected"),
    [
        ("a\nb\nc\n", 2, "b\nc\n"),
        ("a\nb\nc", 2, "b\nc"),
        ("a\nb\x0b\u2028c\n", 1, "b\x0b\u2028c\n"),
        ("a\n", 9, "a\n"),
        ("a\n\n\n", 2, "\n\n"),
        ("a\n", 0, ""),
    ],
)
def test_tail(make: Make, said: str, lines: int, expected: str) -> None:
    vm = make(f"os.write(1, {said.encode()!r}); os._exit(0)")
    vm.launch()
    vm.wait(timeout=30)
    assert vm.log.tail(lines) == expected


def test_bytes_that_are_no_text(make: Make, tmp_path: Path) -> None:
    data = b"\xff\xfe ok \xe2\x82\xac \xe2\x82 \\xff \x1b[31m\x00 \xf0\x9f"
    vm = make(f"for b in {data!r}: os.write(2, bytes([b])); time.sleep(0.001)\nos._exit(0)", log_dir=tmp_path)
    vm.launch()
    vm.wait(timeout=30)
    assert Path(vm.log.path).read_bytes() == data
    assert vm.log.text == data.decode(errors="backslashreplace")
    assert vm.evidence().output == vm.log.text
    assert "".join(vm.log.follow()) == vm.log.text
    os.remove(vm.log.path)
    assert vm.log.text == data.decode(errors="backslashreplace")


def test_a_flood_of_wrong_bytes_does_not_stop_the_others(make: Make) -> None:
    vm = make("while True: os.write(1, b'\\xff\\xfe' * 30000)")
    vm.launch()
    other = make("while True: time.sleep(0.02); os.write(1, b'x')").launch()
    for _ in range(20):
        seen = len(other.log.text)
        until(lambda seen=seen: len(other.log.text) > seen)  # type: ignore[misc]


def test_kept_after_a_failed_launch(qemu: str, tmp_path: Path) -> None:
    vm = Machine(
        qemu,
        [*BARE, "-device", "nonsense"],
        log_dir=tmp_path,
        name="vm",
        block=["qmp", "console"],
        plugins=[Waits()],
    )
    for number in (1, 2):
        with pytest.raises(LaunchError, match="nonsense") as caught:
            vm.launch()
        assert "nonsense" in caught.value.output
        assert caught.value.output == vm.log.text
        path = tmp_path / ("vm.log" if number == 1 else "vm.2.log")
        assert path.read_text() == vm.log.text
        assert vm.log.path == str(path)
    assert vm.log.tail(1) == vm.log.text
    assert "".join(vm.log.follow()) == vm.log.text


def test_each_launch_has_its_file(make: Make, tmp_path: Path) -> None:
    (tmp_path / "vm.log").write_text("of an older run")
    vm = make(
        "os.write(1, os.environ['N'].encode()); os._exit(0)", name="vm", log_dir=tmp_path, env={"N": "x"}
    )
    for _ in range(3):
        vm.launch()
        vm.wait(timeout=30)
        assert vm.log.text == "x"
    assert sorted(os.listdir(tmp_path)) == ["vm.2.log", "vm.3.log", "vm.log"]
    assert (tmp_path / "vm.log").read_text() == "x"


def test_option_path(make: Make, tmp_path: Path) -> None:
    vm = make("os.write(1, b'x'); os._exit(0)", options={"logs": {"path": tmp_path / "qemu.txt"}})
    for _ in range(2):
        vm.launch()
        vm.wait(timeout=30)
    assert sorted(os.listdir(tmp_path)) == ["qemu.2.txt", "qemu.txt"]


@pytest.mark.parametrize("options", [{"path": 3}, {"paht": "x"}, {"path": ""}, {"path": "a\0b"}])
def test_wrong_options(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="logs") as caught:
        Machine("qemu", options={"logs": options})
    assert caught.value.field == f"options['logs'][{next(iter(options))!r}]"


def test_follow(make: Make, tmp_path: Path) -> None:
    vm = make(
        "for n in range(5):\n"
        "    os.write(1, b'%d\\n' % n)\n"
        f"    while not os.path.exists(f'{tmp_path}/{{n}}'): time.sleep(0.001)\n"
        "os.write(1, b'end'); os._exit(0)"
    )
    with pytest.raises(TransitionError):
        vm.log.follow()
    vm.launch()
    parts = []
    for part in vm.log.follow():
        parts.append(part)
        (tmp_path / part.strip()).touch()  # it goes on only then
    assert parts == ["0\n", "1\n", "2\n", "3\n", "4\n", "end"]
    vm.wait(timeout=30)
    assert list(vm.log.follow()) == ["0\n1\n2\n3\n4\nend"]


def test_follow_gets_all_of_it(make: Make) -> None:
    """Also where that is more than is kept in memory, and the file goes away meanwhile."""
    vm = make("for n in range(300000): os.write(1, b'%06d\\n' % n)\nos._exit(0)")
    vm.launch()
    lines = vm.log.follow()
    first = next(lines)
    vm.wait(timeout=60)
    assert first + "".join(lines) == "".join(f"{n:06d}\n" for n in range(300_000))


def test_follow_ends_at_its_deadline(make: Make) -> None:
    vm = make("os.write(1, b'x')")
    vm.launch()
    until(lambda: vm.log.text)
    begin = time.monotonic()
    parts = vm.log.follow(timeout=0.3)
    assert next(parts) == "x"
    with pytest.raises(MachineTimeout) as caught:
        next(parts)
    assert 0.25 < time.monotonic() - begin < SLACK
    assert caught.value.timeout == pytest.approx(0.3)
    with pytest.raises(ConfigError):
        vm.log.follow(timeout=-1)


def test_follow_ends_with_qemu(make: Make) -> None:
    vm = make("os.write(1, b'x')")
    vm.launch()
    following = InThread(lambda: list(vm.log.follow()))
    until(lambda: vm.log.text == "x")
    vm.kill()
    assert following.result() == ["x"]


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL, signal.SIGUSR1])
def test_a_signal_nobody_asked_for_is_a_warning(
    qemu: str, number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.suppress(AbnormalExit), Machine(qemu, [*BARE, "-S"], block=["qmp", "console"]) as vm:
        vm.launch()
        assert vm.pid is not None
        os.kill(vm.pid, number)
        with pytest.raises(AbnormalExit):
            vm.wait(timeout=30)
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [(record.name, record.levelno) for record in warnings] == [("vmfsm.logs", logging.WARNING)]
    assert number.name in caplog.text
    assert vm.name in caplog.text
    assert "nodefaults" not in caplog.text  # a command line may hold secrets


@pytest.mark.parametrize("way", ["shutdown", "kill", "terminated", "exit"])
def test_no_warning_on_normal_paths(
    make: Make, qemu: str, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    vm = Machine(qemu, [*BARE, "-S"], block=["qmp", "console"]) if way != "exit" else make("os._exit(0)")
    with vm:
        vm.launch()
        if way == "kill":
            vm.kill()
        elif way == "terminated":
            assert vm.pid is not None
            until(lambda: vm.pid and catches(vm.pid, signal.SIGTERM))
            os.kill(vm.pid, signal.SIGTERM)
            vm.wait(timeout=30)
        elif way == "exit":
            vm.wait(timeout=30)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("where", ["path", "log_dir"])
def test_a_file_that_cannot_be_opened(make: Make, tmp_path: Path, where: str) -> None:
    if where == "path":
        vm = make("", options={"logs": {"path": tmp_path / "missing" / "log"}})
    else:
        vm = make("", log_dir=tmp_path, name="vm")
        (tmp_path / "vm.log").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(LaunchError, match=f"'{where}'.*{tmp_path}"):
        vm.launch()
    assert vm.log.text == vm.log.path == ""
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_that_cannot_be_written(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    vm = make("os.write(1, b'said'); os._exit(0)", options={"logs": {"path": "/dev/full"}})
    vm.launch()
    vm.wait(timeout=30)
    assert vm.log.text == "said"
    assert [record.kind for record in vm.timeline].count("log-file") == 1
    assert caplog.text.count("cannot write") == 1


@pytest.mark.parametrize("kind", ["fifo", "tty", "null"])
def test_what_is_no_ordinary_file_is_not_read(make: Make, tmp_path: Path, kind: str) -> None:
    reader = other = -1
    path = "/dev/null"
    if kind == "fifo":
        path = str(tmp_path / "fifo")
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    elif kind == "tty":
        reader, other = os.openpty()
        path = os.ttyname(other)
    try:
        vm = make("os.write(1, b'said')", options={"logs": {"path": path}})
        for _ in range(2):
            vm.launch()
            assert vm.log.path == path
            assert InThread(lambda: next(vm.log.follow(timeout=LIMIT))).result() == "said"
            assert InThread(lambda: (vm.log.text, vm.log.tail())).result() == ("said", "said")
            if reader >= 0:
                assert os.read(reader, 99) == b"said"
            vm.kill()
    finally:
        for fd in {reader, other} - {-1}:
            os.close(fd)


def test_a_fifo_without_a_reader(make: Make, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    vm = make("", options={"logs": {"path": tmp_path / "fifo"}})
    with pytest.raises(LaunchError, match="'path' of plugin 'logs'"):
        vm.launch(timeout=LIMIT)


def test_no_file_is_written_twice(make: Make, tmp_path: Path) -> None:
    """By machines of one name, at once and one after the other, nor under another name of the directory."""
    link = tmp_path / "link"
    logs = tmp_path / "logs"
    logs.mkdir()
    link.symlink_to(logs)
    expected = {}
    for number, directory in enumerate([logs, link, logs, logs]):
        vm = make(f"os.write(1, b'{number}'); os._exit(0)", name="vm", log_dir=directory)
        for _ in range(2):
            vm.launch()
            until(lambda vm=vm, number=number: vm.log.text == str(number))  # type: ignore[misc]
            expected[os.path.basename(vm.log.path)] = str(number)
            vm.wait(timeout=30)
    names = ["vm.log", *(f"vm.{number}.log" for number in range(2, 9))]
    assert list(expected) == names
    assert {path.name: path.read_text() for path in logs.iterdir()} == expected


def test_full_disk(make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """QEMU goes on, and so does what is kept in memory."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted: {done.stderr.strip()}")
    try:
        vm = make("for n in range(15000): os.write(1, b'%05d\\n' % n)\nos._exit(0)", log_dir=tmp_path)
        vm.launch()
        vm.wait(timeout=60)
        assert vm.log.text == "".join(f"{n:05d}\n" for n in range(15_000))
        assert vm.log.tail(1) == "14999\n"
        assert [record.kind for record in vm.timeline].count("log-file") == 1
        assert caplog.text.count("No space left") == 1
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_process_left_behind_does_not_hold_up_the_end(make: Make) -> None:
    """It has QEMU's stdout, in a session of its own, and floods it."""
    code = """
if os.fork() == 0:
    os.setsid()
    end = time.monotonic() + 60
    try:
        while time.monotonic() < end: os.write(1, b"x" * 60000)
    except OSError: pass
    os._exit(0)
time.sleep(0.2)
os._exit(0)
"""
    vm = make(code)
    vm.launch()
    begin = time.monotonic()
    vm.wait(timeout=30)
    assert time.monotonic() - begin < SLACK


def test_qemu_inherits_the_output_once(make: Make) -> None:
    vm = make(
        "print([os.readlink(f'/proc/self/fd/{n}') for n in (0, 1, 2)], end=' ')\n"
        "print(os.listdir('/proc/self/fd'), flush=True)"
    )
    vm.launch()
    until(lambda: vm.log.text.endswith("\n"))
    assert vm.log.text.count("pipe:") == 2
    numbers = vm.log.text.partition("] ")[2].strip()
    assert len(numbers.split(",")) == 4  # the standard three, and the one it looked with
