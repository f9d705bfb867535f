"""Who asks much, or does not read, is bounded; the harness and the others do not notice."""

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.bench import flooder
from tests.control.harnesses import doing, program
from tests.control.raw import Raw, assert_it_answers
from tests.waiting import LIMIT, InThread, until
from vmfsm import Machine, Record, control
from vmfsm.control import connection, server
from vmfsm.control.server import Server
from vmfsm.iothread import IOThread
from vmfsm.testing import GUEST_ARGS


@pytest.fixture
def guest(qemu: str) -> Iterator[Machine]:
    with Machine(qemu, GUEST_ARGS, name="guest") as vm:
        vm.launch()
        vm.console.expect("ready", timeout=LIMIT)
        yield vm


def find() -> control.Client:
    return control.find(f"{os.getpid()}/guest", timeout=LIMIT)


def test_a_console_that_is_faster_than_those_who_follow() -> None:
    """They are told how much they missed, to the byte; one who does not read misses more."""
    size = 8_000_000
    flood = [sys.executable, flooder.__file__, str(size), "80"]
    with Machine(sys.executable, wrapper=flood, block=["qmp", "fdpass"], name="guest") as vm:
        vm.launch()
        vm.console.expect("ready\n", timeout=LIMIT)
        with find() as client, client.console(tail=0) as one, client.console(tail=0) as other:
            vm.console.send(b"g")
            reading = InThread(missed, one)
            vm.wait(LIMIT)
            came, lost = reading.result()
            assert came + lost == size
            came, lost = missed(other)
            assert came + lost == size
            assert lost > size // 2


def missed(console: control.Stream[control.Output]) -> tuple[int, int]:
    """What came of a launch, and what did not, in bytes."""
    came = lost = 0
    for output in console:
        came += len(output.data)
        lost += output.lost
        if output.closed:
            break
    return came, lost


def is_last(record: Record) -> bool:
    return record.kind == "qmp-reply" and record.data["command"] == "query-version"


def test_records_that_are_not_read(guest: Machine) -> None:
    happened: list[Record] = []
    with find() as client, client.records(history=False) as records:
        IOThread.get().post(guest._timeline.listen, lambda record, _: happened.append(record))
        for _ in range(3_000):
            guest.qmp.execute("query-name")
        guest.qmp.execute("query-version")
        lost = seen = 0
        for record in records:
            if record.kind == "dropped":
                lost += record.data["records"]  # type: ignore[operator]
            else:
                seen += 1
            if is_last(record):
                break
    assert lost + seen == [is_last(record) for record in happened].index(True) + 1
    assert lost > 0


def test_replies_that_are_not_read() -> None:
    """What is asked is not even read then, so that nothing grows; all of it is answered in the end."""
    request = json.dumps({"id": 1, "op": "stop", "of": 0}).encode() + b"\n"
    with Raw() as client:
        client.greeting()
        client.socket.setblocking(False)
        sent, since = 0, time.monotonic()
        while time.monotonic() - since < 0.5:
            try:
                sent += client.socket.send(request * 1000)
                since = time.monotonic()
            except BlockingIOError:
                assert_it_answers()
        until(lambda: len(Server.get().connections) == 1)
        (served,) = Server.get().connections
        assert len(served._input) < 1024 * 1024
        client.socket.settimeout(LIMIT)
        client.socket.shutdown(socket.SHUT_WR)
        answers = client.file.read().splitlines()
        assert len(answers) == sent // len(request)


def test_who_reads_nothing_at_all_is_dropped(guest: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where more is on its way than may be kept: all of this is asked for before the first reply comes."""
    monkeypatch.setattr(connection, "_MOST_PENDING", 512 * 1024)
    asked = {"op": "qmp", "machine": "guest", "command": "query-qmp-schema"}
    with Raw() as client, find() as other:
        client.greeting()
        client.send(b"".join(json.dumps({"id": n, **asked}).encode() + b"\n" for n in range(8)))
        until(lambda: not Server.get().connections)
        assert "return" in other.qmp("query-status")


def test_requests_in_progress(guest: Machine) -> None:
    with Raw() as client:
        client.greeting()
        for number in range(70):
            client.ask({"id": number, "op": "records", "machine": "guest", "history": False})
        first: dict[int, dict[str, Any]] = {}
        while len(first) < 70:
            reply = client.receive()  # also of what happens meanwhile
            first.setdefault(reply["id"], reply)
        refused = {number: reply["error"]["message"] for number, reply in first.items() if "error" in reply}
        assert refused == dict.fromkeys(range(64, 70), "more than 64 requests are in progress")
        assert_it_answers()
    until(lambda: not Server.get().tasks)


def test_others_have_their_turns_between(guest: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many requests come at once, also when those before are answered meanwhile."""
    serve, io = connection.Connection._request, IOThread.get()
    turns = [0]
    is_over = False

    def count(self: connection.Connection, line: bytes) -> None:
        turns[-1] += 1
        serve(self, line)

    def turn() -> None:
        turns.append(0)
        if not is_over:
            io.loop.call_soon(turn)

    monkeypatch.setattr(connection.Connection, "_request", count)
    asked = {"op": "qmp", "machine": "guest", "command": "query-name"}
    with Raw() as client:
        client.greeting()
        requests = b"".join(json.dumps({"id": n, **asked}).encode() + b"\n" for n in range(1000))
        io.post(turn)
        sending = InThread(client.send, requests)
        for _ in range(1000):
            client.receive()
        is_over = True
        sending.result()
    assert sum(turns) == 1000
    assert max(turns) <= connection._LINES_A_TURN


def test_connections(guest: Machine) -> None:
    most = server._MOST_CONNECTIONS
    clients = [Raw().greeting() for _ in range(most)]
    try:
        with Raw() as one_more:
            assert one_more.receive()["error"]["type"] == "Busy"
            assert one_more.is_closed()
        (listing,) = [one for one in control.machines(LIMIT) if one.harness == os.getpid()]
        assert (listing.status, listing.problem) == ("silent", f"there are {most} connections already")
        with pytest.raises(control.NoAnswer):
            find()
    finally:
        for client in clients:
            client.__exit__()
    until(lambda: not Server.get().connections)
    assert_it_answers()


def test_who_has_said_all_gets_the_answers() -> None:
    """As `echo … | socat - UNIX:…` does; what would go on for ever is over then."""
    with Raw() as client:
        client.ask({"id": 1, "op": "machines"})
        client.ask({"id": 2, "op": "machines"})
        client.socket.shutdown(socket.SHUT_WR)
        lines = client.file.read().splitlines()
        assert [json.loads(line).get("id") for line in lines] == [None, 1, 2]


def test_a_stream_of_who_has_said_all(guest: Machine) -> None:
    with Raw() as client:
        client.ask({"id": 1, "op": "records", "machine": "guest", "history": False})
        client.socket.shutdown(socket.SHUT_WR)
        assert json.loads(client.file.read().splitlines()[-1]) == {"id": 1, "result": {"over": "stopped"}}


def test_a_history_of_who_has_said_all(guest: Machine) -> None:
    """All of it, more than is sent at a time."""
    for _ in range(200):
        guest.qmp.execute("query-name")
    with Raw() as client:
        client.greeting().ask({"id": 1, "op": "records", "machine": "guest", "follow": False})
        client.socket.shutdown(socket.SHUT_WR)
        _, *items, last = map(json.loads, client.file.read().splitlines())
    assert last == {"id": 1, "result": {"over": "done"}}
    kinds = [item["item"]["kind"] for item in items]
    assert kinds.count("qmp-reply") >= 200


def test_a_harness_without_descriptors() -> None:
    """It takes nobody for a while, and says so once."""
    body = """
    import logging, resource
    logging.basicConfig(format="%(message)s")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.open("/", os.O_RDONLY)
    os.close(spare)
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare, limits[1]))
    say("none left")
    wait()
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    wait()
    """
    with program(doing(body)) as ran:
        ran.said().said("none left")
        (listing,) = [one for one in control.machines(0.3) if one.harness == ran.pid]
        assert listing.status == "silent"
        ran.go_on()
        with ran.find() as client:
            assert client.snapshot()["state"] == "running"
        ran.go_on()
        status, said = ran.end()
        assert status == 0
        assert said.count("takes nobody for a while") == 1, said
