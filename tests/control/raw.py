"""A client that says whatever it likes to this process's own server."""

import json
import os
import socket
from typing import Any, Self

from tests.waiting import LIMIT
from vmfsm import control


def own_socket() -> str:
    """Where this process can be asked."""
    (path,) = [harness.path for harness in control.harnesses() if harness.pid == os.getpid()]
    return path


class Raw:
    """A connection, lines as they are."""

    def __init__(self, path: str | None = None) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(LIMIT)
        self.socket.connect(path or own_socket())
        self.file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()
        self.socket.close()

    def greeting(self) -> Self:
        assert self.receive()["pid"] == os.getpid()
        return self

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def ask(self, request: dict[str, Any]) -> None:
        self.send(json.dumps(request).encode() + b"\n")

    def receive(self) -> dict[str, Any]:
        line = self.file.readline()
        assert line.endswith(b"\n"), "the connection was closed"
        message = json.loads(line)
        assert isinstance(message, dict)
        return message

    def is_closed(self) -> bool:
        """Nothing comes any more; waits for that."""
        try:
            return self.file.read() == b""
        except ConnectionResetError:
            return True


def assert_it_answers() -> None:
    """To others, as ever."""
    with Raw() as other:
        other.greeting().ask({"id": 1, "op": "machines"})
        assert other.receive()["result"]["harness"]["pid"] == os.getpid()
