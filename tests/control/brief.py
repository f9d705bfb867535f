"""Harnesses that are brief: processes that are registered and listen, and die or hang up at a given moment.

    brief(["answer", "asked:dies"])

serves the first who connects, and dies when the second one has asked.
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence

from vmfsm import proc, registry
from vmfsm.control.protocol import PROTOCOL

MOMENTS = ("waiting", "accepted", "half-greeted", "greeted", "asked", "half-answered")
"""`waiting`: nobody has accepted the connection. `greeted`: the request is there, and nobody reads it. There
is `answered`, too."""
NAME = "box"
_GREETING = {"vmfsm": "1", "protocol": PROTOCOL, "pid": 1}
_ROW = {"name": NAME, "number": 1, "state": "running", "seconds": 1.0, "launches": 1}
_RESULTS = {
    "machines": {"harness": {"command": ["brief"]}, "machines": [_ROW]},
    "snapshot": {"name": NAME, "state": "running"},
}


@contextlib.contextmanager
def brief(connections: Sequence[str]) -> Iterator[int]:
    """Such a one, in a process of its own, whose pid it is."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.control.brief", *connections], stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            yield process.pid
        finally:
            process.kill()


def _serve(connections: Sequence[str]) -> None:
    harness = proc.identify(os.getpid())
    assert harness is not None
    ledger = registry.Ledger(registry.directory(), registry.Harness(*harness, ("brief",)), "0")
    ledger.begin("brief-0", name=NAME, directory="/nowhere")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(ledger.socket)
        listener.listen()
        os.write(1, b"up\n")
        kept = [_serve_one(listener, what) for what in connections]
        signal.pause()
        assert kept


def _serve_one(listener: socket.socket, what: str) -> socket.socket:
    moment, _, how = what.partition(":")

    def reached(here: str) -> bool:
        if here != moment:
            return False
        if how == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        return True

    select.select([listener], [], [])
    reached("waiting")
    connection, _ = listener.accept()
    if reached("accepted"):
        connection.close()
        return connection
    greeting = json.dumps(_GREETING).encode() + b"\n"
    connection.sendall(greeting[: 10 if moment == "half-greeted" else None])
    if not reached("half-greeted"):
        select.select([connection], [], [])
        if not reached("greeted"):
            request = _request(connection)
            if not reached("asked"):
                answer = _answer(request)
                connection.sendall(answer[:-1] if moment == "half-answered" else answer)
                reached("half-answered")
                reached("answered")
    if how:
        connection.close()
    return connection


def _request(connection: socket.socket) -> dict[str, object]:
    line = b""
    while not line.endswith(b"\n"):
        line += connection.recv(4096)
    request: dict[str, object] = json.loads(line)
    return request


def _answer(request: dict[str, object]) -> bytes:
    result = _RESULTS.get(str(request["op"]))
    replies: list[dict[str, object]] = [{"item": {"begin": {}}}, {"item": {"data": "b25lCg=="}}]
    if result is not None:
        replies = [{"result": result}]
    return b"".join(json.dumps({"id": request["id"], **reply}).encode() + b"\n" for reply in replies)


if __name__ == "__main__":
    _serve(sys.argv[1:])
