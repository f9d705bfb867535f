"""Whatever comes over the drop-in's qtest connection: each command has its line, and nothing else breaks."""

import contextlib
import logging
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.effort import tries
from tests.fuzz.hostile import raw, sizes, split
from tests.waiting import LIMIT, InThread
from vmfsm.compat.qtest_protocol import QEMUQtestProtocol

numbers = st.one_of(
    st.integers(-5, 70).map(str),
    st.sampled_from(["9" * 5000, "1e9", "\u0663", "\u00b2", "0x1", "", "1 2", "_1"]),
)
interrupts = st.builds(
    lambda word, number: f"IRQ {word} {number}\n".encode(),
    st.sampled_from(["raise", "lower", "", "x"]),
    numbers,
)
replies = st.one_of(
    raw, st.binary(max_size=20), st.sampled_from([b"OK", b"OK 0x12\r", b"FAIL", b"", b"IRQS"])
).map(lambda line: line.replace(b"\n", b" "))
exchanges = st.lists(st.tuples(st.lists(interrupts, max_size=3).map(b"".join), replies), max_size=5)


@pytest.fixture(autouse=True)
def nothing_else_breaks(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert [record for record in caplog.get_records("call") if record.levelno >= logging.WARNING] == []


def _serve(end: socket.socket, exchanges: list[tuple[bytes, bytes]], sizes: list[int]) -> None:
    with end.makefile("rb") as commands:
        for interrupts, reply in exchanges:
            commands.readline()
            for piece in split(interrupts + reply + b"\n", [size * 20 for size in sizes]):
                end.sendall(piece)


@tries(60)
@given(exchanges, sizes)
def test_each_command_has_its_line(exchanges: list[tuple[bytes, bytes]], sizes: list[int]) -> None:
    theirs, ours = socket.socketpair()
    exchanges = [
        exchange for exchange in exchanges if exchange[1].decode(errors="replace").split()[:1] != ["IRQ"]
    ]
    qtest = QEMUQtestProtocol(sock=ours)
    qtest.settimeout(LIMIT / 3)
    with contextlib.closing(theirs), contextlib.closing(qtest):
        qtest.connect()
        serving = InThread(_serve, theirs, exchanges, sizes)
        for _, reply in exchanges:
            assert qtest.cmd("command") == reply.decode(errors="replace") + "\n"
        serving.result()
        assert all(type(level) is bool for level in qtest.irqs.values())
