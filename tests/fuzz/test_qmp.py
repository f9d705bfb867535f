"""Whatever comes from the monitor, however it is cut: calls end as documented, and nothing else breaks."""

import contextlib
import functools
import gc
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vmfsm_plugins.qmp import QMP, QMPCommandError, QMPConnectionError
from vmfsm_plugins.qmp import session as sessions
from vmfsm_plugins.qmp.handed import HandedQMP

from tests.conftest import BUILT_IN
from tests.fuzz.effort import tries
from tests.fuzz.hostile import encode, raw, sizes, split, texts, values
from tests.waiting import LIMIT, InThread
from vmfsm import GuestPanicked, LaunchError, Machine, MachineTimeout, State, VMError
from vmfsm.caller import GRACE
from vmfsm.testing import FakeQEMU
from vmfsm.testing import actions as do

STAGES = ("greeting", "negotiation", "query-status", "query-name", "later")
"""What the hostile bytes come instead of, or when."""
GREETING: dict[str, Any] = {
    "QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}}, "capabilities": []}
}
SHORT = 0.05
"""Seconds for calls that may get no answer."""
ALLOWED = (QMPConnectionError, QMPCommandError, MachineTimeout, GuestPanicked)

keys = st.one_of(
    st.sampled_from(["return", "error", "event", "id", "data", "timestamp", "QMP", "class", "desc"]), texts
)
names = st.one_of(
    values,
    st.sampled_from(
        ["STOP", "RESUME", "RESET", "SHUTDOWN", "SUSPEND", "WAKEUP", "GUEST_PANICKED", "MIGRATION"]
    ),
)
ids = st.one_of(st.just("$id"), values)


messages = st.one_of(
    values,
    st.dictionaries(keys, values, max_size=4),
    st.builds(lambda value, number: {"return": value, "id": number}, values, ids),
    st.builds(lambda value, number: {"error": value, "id": number}, values, ids),
    st.builds(
        lambda kind, text, number: {"error": {"class": kind, "desc": text}, "id": number}, values, values, ids
    ),
    st.builds(
        lambda name, data, stamp: {"event": name, "data": data, "timestamp": stamp}, names, values, values
    ),
    st.builds(lambda name, more: {"event": name} | more, names, st.dictionaries(keys, values, max_size=2)),
    st.builds(lambda value: {"QMP": value}, values),
    st.builds(lambda version, offers: {"QMP": {"version": version, "capabilities": offers}}, values, values),
    st.builds(
        lambda qemu: {"QMP": {"version": {"qemu": qemu, "package": ""}, "capabilities": ["oob"]}}, values
    ),
    st.builds(lambda value: {"return": {"status": value, "running": value}, "id": "$id"}, values),
)
hostile = st.lists(
    st.one_of(
        raw, st.tuples(messages.map(encode), st.sampled_from([b"\r\n", b"\n", b"", b"\0\n"])).map(b"".join)
    ),
    min_size=1,
    max_size=4,
).map(b"".join)


class Peer:
    """The other end of a monitor: right up to a stage, and then it sends what it is given."""

    def __init__(self, stage: str, data: bytes, sizes: list[int]) -> None:
        self._stage, self._data, self._sizes = stage, data, sizes
        self.address = None
        self._ours, self._theirs = socket.socketpair()
        self._ours.settimeout(LIMIT)
        self._serving = InThread(self._serve)

    async def connect(self) -> socket.socket:
        self._theirs.setblocking(False)
        return self._theirs

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # it was cut
            self._reach("greeting", b"null", GREETING)
            for command in self._commands():
                number = encode(command.get("id"))
                name = str(command.get("execute"))
                stage = {"qmp_capabilities": "negotiation", "query-status": "query-status"}.get(name, name)
                reply = {"return": {"status": "running", "running": True} if stage == "query-status" else {}}
                self._reach(stage, number, reply | ({"id": command["id"]} if "id" in command else {}))

    def _commands(self) -> Iterator[dict[str, Any]]:
        """One after the other; nothing ends them but that they are whole."""
        text = ""
        while data := self._ours.recv(4096):
            text += data.decode()
            with contextlib.suppress(json.JSONDecodeError):
                while text := text.lstrip():
                    command, end = json.JSONDecoder().raw_decode(text)
                    text = text[end:]
                    yield command

    def _reach(self, stage: str, number: bytes, reply: dict[str, Any]) -> None:
        if stage == self._stage:
            for piece in split(self._data.replace(b'"$id"', number), self._sizes):
                self._ours.sendall(piece)
        self._ours.sendall(encode(reply) + b"\r\n")

    def close(self) -> None:
        for end in (self._ours, self._theirs):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._serving.join()
        self._ours.close()
        self._theirs.close()


class Lab:
    """A machine whose monitor is handed to it, and another one with a real QEMU, which nothing may touch."""

    def __init__(self, qemu: str) -> None:
        self.qmp = HandedQMP(self)
        self.machine = Machine("sleep", ["1000"], display=None, block=BUILT_IN, plugins=[self.qmp])
        self.other = Machine(qemu, ["-M", "none", "-nodefaults"], block=BUILT_IN, plugins=[QMP()])
        self.peer: Peer | None = None
        self.address = None

    async def connect(self) -> socket.socket:
        assert self.peer is not None
        return await self.peer.connect()

    @contextlib.contextmanager
    def connected_to(self, peer: Peer) -> Iterator[None]:
        self.peer = peer
        try:
            yield
        finally:
            with contextlib.suppress(VMError):
                self.qmp.hang_up(LIMIT)
            peer.close()

    def check(self, call: Callable[[], object], timeout: float) -> object:
        """Make the call: it returns, or raises what is documented, in time."""
        begin = time.monotonic()
        try:
            return call()
        except ALLOWED as error:
            return error
        finally:
            assert time.monotonic() - begin < timeout + GRACE + LIMIT


@pytest.fixture(scope="module")
def lab(qemu: str) -> Iterator[Lab]:
    lab = Lab(qemu)
    with lab.machine, lab.other:
        lab.machine.launch()
        lab.other.launch()
        yield lab
        lab.machine.kill()


@pytest.fixture(autouse=True)
def nothing_else_breaks(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No task's exception is left behind, and nothing is logged."""
    monkeypatch.setattr(sessions, "_EXIT_GRACE", 0.01)
    yield
    gc.collect()
    assert [record for record in caplog.get_records("call") if record.levelno >= logging.WARNING] == []


@tries(120)
@given(st.sampled_from(STAGES), hostile, sizes)
def test_whatever_comes(lab: Lab, stage: str, data: bytes, sizes: list[int]) -> None:
    qmp, vm = lab.qmp, lab.machine
    with lab.connected_to(Peer(stage, data, sizes)):
        is_fine = stage in {"query-name", "later"}
        connected = lab.check(lambda: qmp.connect(LIMIT if is_fine else SHORT), LIMIT)
        if is_fine:
            assert connected is None
            assert qmp.greeting == GREETING
            assert qmp.run_state == "running"
            assert qmp.execute("query-version") == {}, "what is right is right up to there"
        for command in ("query-name", "later", "query-name"):
            reply = lab.check(functools.partial(qmp.execute_raw, command, timeout=SHORT), SHORT)
            assert isinstance(reply, (dict, *ALLOWED))
        lab.check(lambda: qmp.execute("query-name", timeout=SHORT), SHORT)
        lab.check(lambda: qmp.wait_event("STOP", timeout=0), 0)
        lab.check(lambda: qmp.wait_any([("RESET", {"a": None}), ("STOP", None)], timeout=0), 0)
        assert all(isinstance(event["event"], str) for event in qmp.events())
        assert isinstance(vm.run_state, str | None)
        assert isinstance(qmp.greeting, dict)
        repr(qmp), repr(vm.evidence()), repr(vm.timeline)
        with contextlib.suppress(*ALLOWED):
            str(qmp.version)
    assert vm.state is State.RUNNING
    assert lab.other.qmp.execute("query-name") == {}


@tries(4)
@given(st.sampled_from(["greeting", "connect"]), hostile, sizes)
def test_a_launch(qemu: str, stage: str, data: bytes, sizes: list[int]) -> None:
    """With a real process, up to the end of its launch."""
    pieces = [do.send(piece) for piece in split(data, [size * 10 for size in sizes])]
    with FakeQEMU(greeting=[*pieces, do.as_qemu()]) as fake:
        vm = Machine(fake.binary, block=BUILT_IN, plugins=[QMP()])
        with contextlib.suppress(LaunchError):
            vm.launch(timeout=1)
        assert vm.state in {State.RUNNING, State.FAILED}
        with contextlib.suppress(VMError):
            vm.shutdown(timeout=1)
        vm.kill(LIMIT)
        assert vm.pid is None
        assert not [thread for thread in threading.enumerate() if vm.name in thread.name]
