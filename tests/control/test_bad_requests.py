"""Whatever a client says: it is told what is wrong, and nobody else notices."""

import contextlib
import json
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.control.raw import Raw, assert_it_answers
from tests.fuzz.effort import tries
from tests.waiting import until
from vmfsm import Machine
from vmfsm.control.protocol import LONGEST_REQUEST
from vmfsm.control.server import Server

GUEST = {"machine": "never-launched"}
OF_THE_MACHINE: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "machine"),
    "a list": ({"machine": []}, "machine"),
    "true": ({"machine": True}, "machine"),
    "a fraction": ({"machine": 1.5}, "machine"),
    "unknown": ({"machine": "\udcff"}, "machine"),
    "no number": ({"machine": 10**9}, "machine"),
}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no op": ({}, "op"),
    "op is no text": ({"op": 1}, "op"),
    "unknown op": ({"op": "machine"}, "op"),
    "private op": ({"op": "__class__"}, "op"),
    "superfluous": ({"op": "machines", "machine": "x"}, "machine"),
    **{
        f"machine: {name}": ({"op": "snapshot", **fields}, field)
        for name, (fields, field) in OF_THE_MACHINE.items()
    },
    "snapshot": ({"op": "snapshot", **GUEST, "deep": True}, "deep"),
    "history": ({"op": "records", **GUEST, "history": 1}, "history"),
    "follow": ({"op": "records", **GUEST, "follow": None}, "follow"),
    "events": ({"op": "events", **GUEST, "name": "STOP"}, "name"),
    "command": ({"op": "qmp", **GUEST}, "command"),
    "command is no text": ({"op": "qmp", **GUEST, "command": {"execute": "stop"}}, "command"),
    "arguments": ({"op": "qmp", **GUEST, "command": "stop", "arguments": []}, "arguments"),
    "timeout": ({"op": "qmp", **GUEST, "command": "stop", "timeout": -1}, "timeout"),
    "timeout is text": ({"op": "qmp", **GUEST, "command": "stop", "timeout": "1"}, "timeout"),
    "timeout is true": ({"op": "qmp", **GUEST, "command": "stop", "timeout": True}, "timeout"),
    "timeout for ever": ({"op": "kill", **GUEST, "timeout": 1e300}, "timeout"),
    "console": ({"op": "console", **GUEST, "console": 0}, "console"),
    "unknown console": ({"op": "console", **GUEST, "console": "hvc0"}, "console"),
    "tail": ({"op": "console", **GUEST, "tail": -1}, "tail"),
    "much tail": ({"op": "console", **GUEST, "tail": 2**40}, "tail"),
    "no data": ({"op": "write", **GUEST}, "data"),
    "data": ({"op": "write", **GUEST, "data": "é"}, "data"),
    "data is no base64": ({"op": "write", **GUEST, "data": "a"}, "data"),
    "guest": ({"op": "shutdown", **GUEST, "guest": 1}, "guest"),
    "reason": ({"op": "hold", **GUEST, "reason": 1}, "reason"),
    "superfluous in release": ({"op": "release", **GUEST, "reason": "x"}, "reason"),
    "path": ({"op": "screendump", **GUEST, "path": "relative.png"}, "path"),
    "path with NUL": ({"op": "screendump", **GUEST, "path": "/tmp/\0"}, "path"),
    "format": ({"op": "screendump", **GUEST, "path": "/tmp/x", "format": "gif"}, "format"),
    "stop": ({"op": "stop", "of": "1"}, "of"),
}


@pytest.fixture
def machine() -> Machine:
    return Machine("qemu-system-x86_64", name="never-launched")


def test_what_is_wrong_with_a_field_is_said(machine: Machine) -> None:
    """On one connection, which outlives all of it."""
    with Raw() as client:
        client.greeting()
        for number, (name, (request, field)) in enumerate(WRONG.items(), 1):
            client.ask({"id": number, **request})
            reply = client.receive()
            assert reply["id"] == number, name
            assert (reply["error"]["type"], reply["error"]["field"]) == ("ConfigError", field), (name, reply)
            assert field in reply["error"]["message"], name
        client.ask({"id": 0, "op": "snapshot", **GUEST})
        assert client.receive()["result"]["name"] == machine.name


@pytest.mark.parametrize("number", ["1", None, True, 1.5, [], {}, 2**60])
def test_ids(number: object) -> None:
    with Raw() as client:
        client.greeting().ask({"id": number, "op": "machines"})
        reply = client.receive()
        assert (reply["id"], reply["error"]["field"]) == (None, "id")
        client.ask({"id": 1, "op": "machines"})
        assert client.receive()["id"] == 1


def test_an_id_that_is_in_use(machine: Machine) -> None:
    with Raw() as client:
        client.greeting().ask({"id": 1, "op": "records", **GUEST})
        assert client.receive() == {"id": 1, "item": {"begin": {"machine": machine.name}}}
        client.ask({"id": 1, "op": "machines"})
        assert client.receive()["error"]["field"] == "id"
        client.ask({"id": 2, "op": "stop", "of": 1})
        replies = sorted((client.receive() for _ in range(2)), key=lambda reply: str(reply["id"]))
        assert replies == [
            {"id": 1, "result": {"over": "stopped"}},
            {"id": 2, "result": {"stopped": True}},
        ]
        client.ask({"id": 1, "op": "stop", "of": 7})
        assert client.receive() == {"id": 1, "result": {"stopped": False}}


NO_REQUESTS = {
    "nothing": b"\n",
    "text": b"hello\n",
    "HTTP": b"GET / HTTP/1.1\r\n\r\n",
    "a list": b"[]\n",
    "a number": b"1\n",
    "no UTF-8": b"\xff\xfe\n",
    "two": b"{}{}\n",
    "NaN": b'{"id": NaN}\n',
    "deep": b"[" * 100_000 + b"\n",
    "long number": b'{"id": ' + b"1" * 10_000 + b"}\n",
    "long": b'{"id": "' + b"x" * LONGEST_REQUEST + b'"}\n',
    "endless": b"x" * (LONGEST_REQUEST + 1),
}


@pytest.mark.parametrize("said", NO_REQUESTS.values(), ids=NO_REQUESTS)
def test_what_is_no_request_ends_the_connection(said: bytes) -> None:
    with Raw() as client, Raw() as other:
        client.greeting()
        other.greeting()
        client.send(said)
        reply = client.receive()
        assert (reply["id"], reply["error"]["type"]) == (None, "ProtocolError")
        assert client.is_closed()
        other.ask({"id": 1, "op": "machines"})
        assert other.receive()["id"] == 1


def test_the_longest_line_is_one() -> None:
    with Raw() as client:
        client.greeting()
        request = json.dumps({"id": 1, "op": "machines"}).encode()
        client.send(request + b" " * (LONGEST_REQUEST - len(request)) + b"\n")
        assert client.receive()["id"] == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
OPS = ("machines", "snapshot", "records", "events", "qmp", "console", "write", "screendump", "stop", "hold")
FIELDS = (
    "id",
    "machine",
    "history",
    "follow",
    "command",
    "arguments",
    "timeout",
    "console",
    "tail",
    "data",
    "of",
)
REQUESTS = st.fixed_dictionaries(
    {"id": st.integers(0, 5), "op": st.sampled_from(OPS), "machine": st.just("never-launched")},
    optional={name: JSON for name in FIELDS if name not in {"id", "machine"}},
)
LINES = (
    st.binary(max_size=60).map(lambda data: data + b"\n")
    | JSON.map(lambda value: json.dumps(value).encode() + b"\n")
    | REQUESTS.map(lambda value: json.dumps(value).encode() + b"\n")
)


@tries(30)
@given(st.lists(LINES, max_size=12), st.integers(1, 200))
def test_whatever_is_said(lines: list[bytes], piece: int) -> None:
    machine = Machine("qemu-system-x86_64", name="never-launched")
    said = b"".join(lines)
    with Raw() as client:
        client.greeting()
        with contextlib.suppress(OSError):  # it has hung up
            for start in range(0, len(said), piece):
                client.send(said[start : start + piece])
            client.socket.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            for line in client.file:
                reply = json.loads(line)
                assert set(reply) in ({"id", "result"}, {"id", "error"}, {"id", "item"})
    assert_it_answers()
    until(lambda: not Server.get().tasks)
    assert machine.state.value == "configured"
