"""Harnesses of another version, and what is none: they are told from one that answers."""

import contextlib
import json
import os
import socket
from pathlib import Path

import pytest

from tests.waiting import LIMIT, InThread
from vmfsm import control, proc, registry

GREETING = {"vmfsm": "9.9", "protocol": 1, "pid": 1, "what": "is new"}
HARNESS = {"pid": 1, "what": "is new"}
MACHINE = {"name": "guest", "number": 0, "state": "hibernating", "what": "is new"}
NONE = {
    "no machines": {"harness": HARNESS},
    "no harness": {"machines": [MACHINE]},
    "no name": {"harness": HARNESS, "machines": [{**MACHINE, "name": None}]},
    "no number of seconds": {"harness": HARNESS, "machines": [{**MACHINE, "seconds": "\x1b[2J"}]},
    "no pid": {"harness": HARNESS, "machines": [{**MACHINE, "pid": "\x1b[2J"}]},
    "no state": {"harness": HARNESS, "machines": [{**MACHINE, "state": []}]},
}


@pytest.fixture(autouse=True)
def registry_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def listing_of(greeting: object, result: object) -> control.Listing:
    """What is found where a harness, which is this process, answers like that."""
    ledger = registry.Ledger(
        registry.directory(), registry.Harness(os.getpid(), own_start_time(), ()), "token"
    )
    ledger.begin("mark", name="guest", directory="/nowhere")

    def answer() -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(json.dumps(greeting).encode() + b"\n")
            connection.recv(1000)
            connection.sendall(json.dumps({"id": 1, "result": result}).encode() + b"\n")
            connection.recv(1000)  # they hang up

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(ledger.socket)
        listener.listen()
        answering = InThread(answer)
        (listing,) = control.machines(LIMIT)
        answering.result()
    os.close(ledger.descriptor)
    return listing


def own_start_time() -> int:
    own = proc.identify(os.getpid())
    assert own is not None
    return own.start_time


def test_a_newer_one_that_tells_more() -> None:
    listing = listing_of(GREETING, {"harness": HARNESS, "machines": [MACHINE], "what": "is new"})
    assert (listing.status, listing.name, listing.state) == ("live", "guest", "hibernating")


def test_one_of_another_protocol() -> None:
    listing = listing_of({**GREETING, "protocol": 2}, {})
    assert listing.status == "silent"
    assert listing.problem is not None
    assert listing.problem.endswith("it speaks version 2 of the protocol (vmfsm 9.9), not 1")


@pytest.mark.parametrize("result", NONE.values(), ids=NONE)
def test_what_is_no_answer(result: object) -> None:
    listing = listing_of(GREETING, result)
    assert (listing.status, listing.name) == ("silent", "guest")
    assert listing.problem == "that is not a harness's answer"
