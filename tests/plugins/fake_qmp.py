#!/usr/bin/env python3
"""A process to be run in QEMU's place, that speaks QMP as badly as it is told to.

It finds its socket on its command line, as QEMU does. What it does is a JSON object behind `--do`:

    greeting    what it sends first, literally; QEMU's greeting by default
    on          by command, what it does when that comes: a list of actions. By default `[["return", {}]]`

An action is one of

    ["return", value]       reply with a value
    ["send", text]          send this, literally, with ID in it replaced by the command's id
    ["send-many", text, n]  the same n times, with NUMBER in it replaced by 1 … n
    ["send-long", n]        reply with a string of n characters
    ["hold"]                reply only when `release` comes; the replies then come first
    ["close"]               close the connection, and wait for another where it listens
    ["exit", status]        exit
    ["vanish", seconds]     close everything, listening sockets too, and exit with status 3 so much later

`quit` is replied to, and ends it. QMP commands come without anything between them.
"""

import contextlib
import json
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

GREETING = {
    "QMP": {
        "version": {"qemu": {"major": 9, "minor": 8, "micro": 7}, "package": ""},
        "capabilities": ["oob"],
    }
}


class Closed(Exception):
    """The connection is over."""


class Monitor:
    def __init__(self, connection: socket.socket, behaviour: dict[str, Any]) -> None:
        self._connection = connection
        self._on = behaviour.get("on", {})
        self._greeting = behaviour.get("greeting", json.dumps(GREETING) + "\r\n")
        self._held: list[object] = []

    def serve(self) -> None:
        """Until the other end hangs up, or it is told to."""
        self._send(self._greeting)
        for request in self._requests():
            command, number = request.get("execute", request.get("exec-oob")), request.get("id")
            if command == "release":
                for held in self._held:
                    self._reply(held, {})
                self._held.clear()
            for action, *values in self._on.get(command, [["return", self._value(command)]]):
                self._act(action, values, number)
            if command == "quit":
                sys.exit(0)

    def _value(self, command: object) -> object:
        return {"status": "running"} if command == "query-status" else {}

    def _act(self, action: str, values: list[Any], number: object) -> None:
        match action, values:
            case "return", [value]:
                self._reply(number, value)
            case "send", [text]:
                self._send(text.replace("ID", json.dumps(number)))
            case "send-many", [text, count]:
                self._send("".join(text.replace("NUMBER", str(n + 1)) for n in range(count)))
            case "send-long", [length]:
                self._reply(number, "x" * length)
            case "hold", []:
                self._held.append(number)
            case "close", []:
                raise Closed
            case "vanish", [seconds]:
                os.closerange(3, 256)
                time.sleep(seconds)
                os._exit(3)
            case "exit", [status]:
                sys.exit(status)
            case _:
                raise ValueError(f"no action {action!r} with {values!r}")

    def _reply(self, number: object, value: object) -> None:
        self._send(json.dumps({"return": value, "id": number}) + "\r\n")

    def _send(self, text: str) -> None:
        self._connection.sendall(text.encode())

    def _requests(self) -> Iterator[dict[str, Any]]:
        decoder, text = json.JSONDecoder(), ""
        while data := self._connection.recv(65536):
            text = (text + data.decode()).lstrip()
            while text:
                try:
                    request, end = decoder.raw_decode(text)
                except json.JSONDecodeError:
                    break
                text = text[end:].lstrip()
                yield request


def connections(args: list[str]) -> Iterator[socket.socket]:
    """Those that QEMU would have with these arguments: of the sockets given to it, one after the other."""
    for chardev in args:
        found = re.match(r"socket,id=vmfsm-qmp.*\bfd=(\d+)", chardev)
        if not found:
            continue
        given = socket.socket(fileno=int(found[1]))
        if "server=on" not in chardev:
            yield given
            continue
        while True:
            yield given.accept()[0]


def main() -> None:
    behaviour = json.loads(sys.argv[sys.argv.index("--do") + 1])
    for connection in connections(sys.argv):
        with contextlib.suppress(Closed, ConnectionError), connection:
            Monitor(connection, behaviour).serve()


if __name__ == "__main__":
    main()
