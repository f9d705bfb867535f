"""`QEMUQtestProtocol` by itself: who calls whom, in all the ways that old code has."""

import gc
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import InThread, until
from vmfsm.compat import QEMUMachineError
from vmfsm.compat.qtest_protocol import QEMUQtestProtocol


@pytest.fixture
def pair() -> Iterator[tuple[QEMUQtestProtocol, socket.socket]]:
    """Connected, and the other end."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(30)
    qtest = QEMUQtestProtocol(sock=ours)
    qtest.connect()
    with theirs:
        yield qtest, theirs
    qtest.close()


def echo(theirs: socket.socket) -> None:
    theirs.settimeout(None)
    with theirs.makefile("rb") as file:
        for line in file:
            theirs.sendall(b"OK " + line)


def answered(qtest: QEMUQtestProtocol, theirs: socket.socket, answer: bytes) -> object:
    waiting = InThread(qtest.cmd, "readb 0")
    assert theirs.recv(100) == b"readb 0\n"
    theirs.sendall(answer)
    return waiting.result()


@pytest.mark.parametrize("as_keyword", [True, False])
def test_qemu_connects(qemu: str, tmp_path: Path, as_keyword: bool) -> None:
    path = str(tmp_path / "qtest")
    qtest = QEMUQtestProtocol(path, server=True) if as_keyword else QEMUQtestProtocol(path, True)
    machine = ["-display", "none", "-nodefaults", "-machine", "none", "-accel", "tcg"]
    with subprocess.Popen([qemu, *machine, "-qtest", f"unix:{path}"], stderr=subprocess.DEVNULL) as process:
        try:
            qtest.accept()
            assert qtest.cmd("endianness").startswith("OK ")
        finally:
            process.kill()
    until(lambda: _is_over(qtest))
    qtest.close()


def _is_over(qtest: QEMUQtestProtocol) -> bool:
    try:
        return qtest.cmd("endianness") == ""
    except ConnectionError:
        return True


@pytest.mark.parametrize("over_tcp", [True, False])
def test_it_connects(tmp_path: Path, over_tcp: bool) -> None:
    family = socket.AF_INET if over_tcp else socket.AF_UNIX
    with socket.socket(family) as listener:
        listener.bind(("localhost", 0) if over_tcp else str(tmp_path / "qtest"))
        listener.listen()
        qtest = QEMUQtestProtocol(listener.getsockname())
        qtest.connect()
        with listener.accept()[0] as theirs:
            assert answered(qtest, theirs, b"OK\n") == "OK\n"
            qtest.close()
            assert theirs.recv(100) == b""


def test_at_a_port_of_its_own() -> None:
    qtest = QEMUQtestProtocol(("localhost", 0), server=True)
    assert qtest._listener is not None
    with socket.create_connection(qtest._listener.getsockname()) as theirs:
        qtest.accept()
        assert answered(qtest, theirs, b"OK 1\n") == "OK 1\n"
    qtest.close()


def test_a_socket_that_nobody_listens_at_any_more_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "qtest")
    QEMUQtestProtocol(path, server=True).close()
    assert os.path.exists(path)
    QEMUQtestProtocol(path, server=True).close()


def test_what_makes_no_sense(pair: tuple[QEMUQtestProtocol, socket.socket]) -> None:
    with pytest.raises(ValueError, match="either"):
        QEMUQtestProtocol()
    with pytest.raises(ValueError, match="either"):
        QEMUQtestProtocol("/there", pair[1])
    with pytest.raises(ValueError, match="listens"):
        QEMUQtestProtocol(sock=pair[1], server=True)
    with pytest.raises(ValueError, match="one line"):
        pair[0].cmd("readb 0\nreadb 1")
    with pytest.raises(AssertionError):
        QEMUQtestProtocol("/there").cmd("readb 0")
    with pytest.raises(QEMUMachineError):
        QEMUQtestProtocol("/there").accept()
    with pytest.raises(FileNotFoundError):
        QEMUQtestProtocol("/not/there").connect()


def test_nobody_connects(tmp_path: Path) -> None:
    qtest = QEMUQtestProtocol(str(tmp_path / "qtest"), server=True)
    qtest.settimeout(0.05)
    with pytest.raises(TimeoutError):
        qtest.accept()
    qtest.close()


def test_what_comes_with_and_between_the_answers(pair: tuple[QEMUQtestProtocol, socket.socket]) -> None:
    qtest, theirs = pair
    irqs = b"IRQ raise 4\nIRQ raise 8\nIRQ lower 4\n"
    assert answered(qtest, theirs, irqs + b"OK\nIRQ nonsense\n") == "OK\n"
    waiting = InThread(qtest.cmd, "two")
    assert theirs.recv(100) == b"two\n"
    theirs.sendall(b"OK 2")
    theirs.sendall(b"2\n")
    assert waiting.result() == "OK 22\n"
    assert qtest.irqs == {4: False, 8: True}


def test_a_forked_child(pair: tuple[QEMUQtestProtocol, socket.socket]) -> None:
    """It waits for nothing, and takes nothing from its parent."""
    qtest, theirs = pair
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with pytest.raises(QEMUMachineError, match="forked child"):
                qtest.cmd("readb 0")
            qtest.close()
            status = 0
        finally:
            os._exit(status)
    ended = InThread(os.waitpid, child, 0)
    assert ended.result() == (child, 0)
    assert answered(qtest, theirs, b"OK\n") == "OK\n"


def test_a_long_answer(pair: tuple[QEMUQtestProtocol, socket.socket]) -> None:
    """As of 32 MiB of guest memory. Who looked through all of it at each part that comes took a minute."""
    qtest, theirs = pair
    qtest.settimeout(30)
    asking = InThread(qtest.cmd, "read 0x0 0x2000000")
    assert theirs.recv(100).endswith(b"\n")
    answer = "OK 0x" + 32 * 1024 * 1024 * "00" + "\n"
    theirs.sendall(answer.encode())
    assert asking.result() == answer


def test_threads_get_their_own_answers(pair: tuple[QEMUQtestProtocol, socket.socket]) -> None:
    qtest, theirs = pair

    def ask(who: int) -> None:
        for number in range(200):
            assert qtest.cmd(f"{who}-{number}") == f"OK {who}-{number}\n"

    server = InThread(echo, theirs)
    for asking in [InThread(ask, who) for who in range(4)]:
        asking.result()
    qtest.close()
    server.result()


def test_interrupted_again_and_again(pair: tuple[QEMUQtestProtocol, socket.socket]) -> None:
    """Wherever a signal handler's exception hits, the next answer is the next command's."""

    class Interrupt(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupt

    qtest, theirs = pair

    server = InThread(echo, theirs)
    interrupts = 0
    old = signal.signal(signal.SIGALRM, interrupt)
    try:
        for number in range(300):
            try:
                signal.setitimer(signal.ITIMER_REAL, 2e-5 + number * 1e-6)
                assert qtest.cmd(f"{number}") == f"OK {number}\n"
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Interrupt:
                interrupts += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert interrupts
    assert qtest.cmd("last") == "OK last\n"
    qtest.close()
    server.result()


def test_forgotten_without_being_closed() -> None:
    ours, theirs = socket.socketpair()
    theirs.settimeout(30)
    with theirs:
        QEMUQtestProtocol(sock=ours).connect()
        del ours
        gc.collect()
        assert theirs.recv(1) == b""
