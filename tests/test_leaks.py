"""The check for what tests leave behind finds each kind of it."""

import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import leaks
from tests.waiting import until
from vmfsm.iothread import IOThread

Leaving = Iterator[str]


def until_it_shows_its_command(pid: int) -> None:
    """A process that has just been started shows none for a moment."""
    until(lambda: b"sleep" in Path(f"/proc/{pid}/cmdline").read_bytes())


def a_process() -> Leaving:
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            until_it_shows_its_command(process.pid)
            yield f"process: {process.pid} sleep 1000"
        finally:
            process.kill()


def a_zombie() -> Leaving:
    with subprocess.Popen(["true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        yield f"process: {process.pid} (zombie)"


def an_orphan() -> Leaving:
    script = "sleep 1000 >/dev/null & echo $!"
    pid = int(subprocess.run(["sh", "-c", script], check=True, stdout=subprocess.PIPE).stdout)
    try:
        until_it_shows_its_command(pid)
        yield f"process: {pid} sleep 1000"
    finally:
        os.kill(pid, 9)


def a_descriptor() -> Leaving:
    read, write = os.pipe()
    yield f"fd: {read} -> {os.readlink(f'/proc/self/fd/{read}')}"
    os.close(read)
    os.close(write)


def a_socket() -> Leaving:
    with socket.socket(socket.AF_UNIX) as left:
        yield f"fd: {left.fileno()} -> socket:["


def a_thread() -> Leaving:
    over = threading.Event()
    thread = threading.Thread(target=over.wait, name="left-alone")
    thread.start()
    try:
        yield "thread: left-alone"
    finally:
        over.set()
        thread.join()


def a_task() -> Leaving:
    io = IOThread.get()
    started: list[Callable[[], object]] = []

    async def lingering() -> None:
        over = io.loop.create_future()
        started.append(lambda: io.post(over.set_result, None))
        await over

    io.post(lambda: io.start(lingering()))
    while not started:
        time.sleep(0.001)
    yield "lingering() running at"
    started[0]()


def a_directory() -> Leaving:
    with tempfile.TemporaryDirectory(prefix="vmfsm-") as directory:
        yield f"file: {directory}"


@pytest.mark.parametrize(
    "leave", [a_process, a_zombie, an_orphan, a_descriptor, a_socket, a_thread, a_task, a_directory]
)
def test_each_kind_of_leak_is_found_and_named(leave: Callable[[], Leaving]) -> None:
    leaving = leave()
    with pytest.raises(leaks.Leak) as caught, leaks.nothing_left(patience=0):
        what = next(leaving)
    assert what in str(caught.value)
    assert str(caught.value).count("\n") <= 2, "it names what was left and nothing else"
    assert list(leaving) == []


def test_what_was_there_before_is_no_leak() -> None:
    with socket.socket(), leaks.nothing_left(patience=0):
        pass


def test_what_ends_soon_is_waited_for() -> None:
    with leaks.nothing_left():
        thread = threading.Timer(0.05, lambda: None)
        thread.start()


def test_a_test_that_leaks_fails(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("from tests.conftest import *; leaks.PATIENCE = 0")
    pytester.makepyfile("def test_leak(): globals()['left'] = open('/dev/null')")
    result = pytester.runpytest_subprocess("--import-mode=importlib")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.re_match_lines([r"left behind:", r"  fd: \d+ -> /dev/null"])
