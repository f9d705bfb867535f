"""`ConsoleSocket`: a socket like any other, whether or not it drains."""

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import SLACK, InThread, rests, until
from vmfsm.compat import spool
from vmfsm.compat.console_socket import ConsoleSocket
from vmfsm.testing import GUEST_ARGS

MakeConsole = Callable[..., tuple[ConsoleSocket, socket.socket]]


@pytest.fixture(params=[False, True], ids=["plain", "draining"])
def drain(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def make() -> Iterator[MakeConsole]:
    """Makes consoles, and their other ends."""
    with contextlib.ExitStack() as stack:

        def make(**parameters: Any) -> tuple[ConsoleSocket, socket.socket]:
            ours, theirs = socket.socketpair()
            stack.enter_context(theirs)
            console = ConsoleSocket(sock_fd=ours.detach(), **parameters)
            return stack.enter_context(console), theirs

        yield make


def read(console: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = console.recv(min(65536, size - len(data)))
        assert part, f"the end after {len(data)} of {size} bytes"
        data += part
    return data


def test_a_guest_says_hello_and_goes(qemu: str, tmp_path: Path, drain: bool) -> None:
    """A console of a real QEMU, by its address, the only positional parameter of old code."""
    path = str(tmp_path / "console")
    chardev = f"socket,id=c,path={path},server=on,wait=on"
    with subprocess.Popen(
        [qemu, *GUEST_ARGS, "-display", "none", "-chardev", chardev, "-serial", "chardev:c"]
    ) as process:
        try:
            until(lambda: os.path.exists(path))
            console = connect(path, drain)
            with console:
                text = b""
                while b"ready" not in text:
                    byte = console.recv()
                    assert len(byte) == 1
                    text += byte
                console.sendall(b"poweroff\n")
                while byte := console.recv():
                    text += byte
                assert console.recv(100) == b""
            assert process.wait(30) == 0
        finally:
            process.kill()


def connect(path: str, drain: bool) -> ConsoleSocket:
    """There is the file a moment before somebody listens there."""
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            return ConsoleSocket(path, drain=drain)


def test_an_address_or_a_descriptor() -> None:
    with pytest.raises(ValueError, match="either"):
        ConsoleSocket()
    with pytest.raises(ValueError, match="either"):
        ConsoleSocket("/there", sock_fd=0)
    with pytest.raises(FileNotFoundError):
        ConsoleSocket("/not/there", drain=True)


def test_recv_gives_what_there_is(make: MakeConsole, drain: bool) -> None:
    console, theirs = make(drain=drain)
    theirs.sendall(b"login: ")
    assert console.recv(1) == b"l"
    assert console.recv() == b"o"
    assert console.recv(1000) == b"gin: "


def test_the_end_is_told(make: MakeConsole, drain: bool) -> None:
    console, theirs = make(drain=drain)
    theirs.sendall(b"bye")
    theirs.close()
    assert read(console, 3) == b"bye"
    assert console.recv(1) == b""
    assert console.recv(1) == b""


def test_a_reset_is_the_end_of_a_drained_console(make: MakeConsole) -> None:
    console, theirs = make(drain=True)
    console.sendall(b"nobody reads this")
    theirs.sendall(b"bye")
    until(lambda: len(theirs.recv(100, socket.MSG_PEEK)) == 17)
    theirs.close()
    assert read(console, 3) == b"bye"
    assert console.recv(1) == b""


def test_not_blocking_is_an_error_at_once(make: MakeConsole, drain: bool) -> None:
    console, theirs = make(drain=drain)
    console.setblocking(False)
    with pytest.raises(BlockingIOError):
        console.recv(1)
    console.setblocking(True)
    theirs.sendall(b"x")
    assert console.recv(1) == b"x"


def test_a_timeout_is_what_it_is_set_to(make: MakeConsole, drain: bool) -> None:
    console, _ = make(drain=drain)
    console.settimeout(0.05)
    begin = time.monotonic()
    with pytest.raises(TimeoutError):
        console.recv(1)
    assert 0.04 < time.monotonic() - begin < SLACK
    console.settimeout(None)
    assert console.gettimeout() is None


def test_it_waits_no_longer_than_it_always_did(make: MakeConsole) -> None:
    assert make(drain=False)[0].gettimeout() is None
    assert make(drain=True)[0].gettimeout() == 300


@pytest.mark.parametrize("mode", ["r", "rb"])
def test_as_a_file(make: MakeConsole, drain: bool, mode: str) -> None:
    console, theirs = make(drain=drain)
    with console.makefile(mode) as file:  # type: ignore[call-overload]
        theirs.sendall(b"one\ntwo\n")
        lines = [file.readline(), file.readline()]
    assert lines == (["one\n", "two\n"] if mode == "r" else [b"one\n", b"two\n"])


def test_a_file_outlives_its_socket(make: MakeConsole, drain: bool) -> None:
    console, theirs = make(drain=drain)
    file = console.makefile("rb", buffering=0)
    console.close()
    theirs.sendall(b"x")
    assert file.read(1) == b"x"
    file.close()
    assert theirs.recv(1) == b""


def test_flags_are_for_the_system(make: MakeConsole, drain: bool) -> None:
    console, theirs = make(drain=drain)
    theirs.sendall(b"again")
    until(lambda: console.recv(5, socket.MSG_PEEK) == b"again")
    assert console.recv(5) == b"again"


def test_what_is_sent_arrives_before_the_end(make: MakeConsole, drain: bool) -> None:
    console, theirs = make(drain=drain)
    sent = bytes(range(256)) * 4000
    reader = InThread(read, theirs, len(sent))
    console.sendall(sent)
    console.close()
    assert reader.result() == sent
    assert theirs.recv(1) == b""


def test_closed_twice(make: MakeConsole, drain: bool) -> None:
    console, theirs = make(drain=drain)
    console.close()
    console.close()
    assert console.fileno() == -1
    assert theirs.recv(1) == b""


def test_what_nobody_takes_does_not_keep_it_open(make: MakeConsole) -> None:
    console, theirs = make(drain=True)
    console.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            console.send(bytes(100_000))
    begin = time.monotonic()
    console.close()
    assert time.monotonic() - begin < SLACK
    until(lambda: not is_open(theirs))


def is_open(end: socket.socket) -> bool:
    """Whether the other end is."""
    try:
        end.send(b"x", socket.MSG_DONTWAIT)
    except BlockingIOError:
        return True
    except ConnectionError:
        return False
    return True


def test_forgotten_without_being_closed(make: MakeConsole) -> None:
    ours, theirs = socket.socketpair()
    with pytest.warns(ResourceWarning):
        ConsoleSocket(sock_fd=ours.detach(), drain=True)
    with theirs:
        until(lambda: not is_open(theirs))


def test_the_file_gets_all_of_it_though_nobody_reads(make: MakeConsole, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"of old")
    console, theirs = make(file=str(log))
    theirs.sendall(b"boot\xff\n" * 1000)
    until(lambda: log.read_bytes() == b"boot\xff\n" * 1000)
    assert read(console, 6000) == log.read_bytes()
    assert str(log) in repr(console)
    console.close()


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with theirs, pytest.raises(FileNotFoundError):
        ConsoleSocket(sock_fd=ours.detach(), file=str(tmp_path / "not" / "there"), drain=True)


def test_nobody_reads_and_nothing_waits_or_is_lost(make: MakeConsole) -> None:
    """Much more than fits into memory or any socket; and it is the same, byte for byte."""
    console, theirs = make(drain=True)
    piece = b"".join(number.to_bytes(4, "big") for number in range(spool.MEMORY // 4))
    theirs.settimeout(30)
    for _ in range(5):
        theirs.sendall(piece)
    theirs.close()
    begin = read(console, len(piece))
    assert begin == piece
    assert read(console, 4 * len(piece)) == piece * 4
    assert console.recv(1) == b""


def test_a_full_disk_is_an_end_and_no_gap(
    make: MakeConsole, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(spool, "LIMIT", 100)
    console, theirs = make(drain=True)
    theirs.settimeout(30)
    sent = b"".join(number.to_bytes(4, "big") for number in range(spool.MEMORY))
    theirs.sendall(sent)  # it is drained all the same
    got = b""
    while part := console.recv(65536):
        got += part
    assert len(got) < len(sent)
    assert sent.startswith(got)
    assert "cannot be kept" in caplog.text


def test_idle_takes_no_processor_time(make: MakeConsole) -> None:
    """Neither before nor after its end."""
    console, theirs = make(drain=True)
    idle, other = make(drain=True)
    theirs.sendall(b"x")
    assert console.recv(1) == b"x"
    theirs.close()
    assert console.recv(1) == b""
    waiting = InThread(idle.recv, 1)
    others = [thread for thread in threading.enumerate() if thread is not threading.current_thread()]
    until(lambda: all(map(rests, others)))
    other.sendall(b"y")
    assert waiting.result() == b"y"


def test_it_is_fast(make: MakeConsole) -> None:
    """The old one read byte by byte, 0.3 MB/s."""
    console, theirs = make(drain=True)
    size = 4 * 1024 * 1024
    writer = InThread(theirs.sendall, bytes(size))
    begin = time.monotonic()
    read(console, size)
    assert size / (time.monotonic() - begin) > 1e6
    writer.join()


def test_a_signal_handler_that_raises_loses_nothing(make: MakeConsole, drain: bool) -> None:
    class Interrupt(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupt

    console, theirs = make(drain=drain)
    old = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Interrupt):
            console.recv(10)
    finally:
        signal.signal(signal.SIGALRM, old)
    theirs.sendall(b"still")
    assert read(console, 5) == b"still"
