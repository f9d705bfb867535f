"""QMP as QEMU speaks it: `docs/interop/qmp-spec` of QEMU, and what QEMU 7.2 and 10.0 reply."""

from __future__ import annotations

import codecs
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import json
    from collections.abc import Callable
    from typing import Any

    from .channel import Channel

NO_ID: Any = object()
"""The id of a command without one."""


class Monitor:
    """One monitor, whoever is connected to it.

    :param on_command: called with every command that is one here (before the negotiation is over, only
        `qmp_capabilities` is), and its id.
    """

    def __init__(self, channel: Channel, on_command: Callable[[Monitor, str, Any], object]) -> None:
        self.channel = channel
        self.negotiated = False
        self._on_command = on_command
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        channel.on_data = self._receive

    def begin(self) -> None:
        """Somebody else is connected."""
        self.negotiated = False
        self._decoder.reset()
        self._text = ""

    def refuse(self, description: str, number: Any, kind: str = "GenericError") -> None:
        self.channel.write(reply(refusal(description, kind), number))

    def _receive(self, data: bytes) -> None:
        """Messages come without anything between them, and in pieces that end anywhere."""
        import json

        self._text = (self._text + self._decoder.decode(data)).lstrip()
        while self._text and self.channel.connected:  # nobody is heard after hanging up
            try:
                message, end = json.JSONDecoder().raw_decode(self._text)
            except json.JSONDecodeError as error:
                if not _is_cut_short(error):
                    self._text = ""
                    self.refuse(f"JSON parse error, {error.msg}", NO_ID)
                return
            self._text = self._text[end:].lstrip()
            self._take(message)

    def _take(self, message: Any) -> None:
        if not isinstance(message, dict):
            self.refuse("QMP input must be a JSON object", NO_ID)
            return
        number = message.get("id", NO_ID)
        command = message.get("execute", message.get("exec-oob"))
        if not isinstance(command, str):
            self.refuse("QMP input lacks member 'execute'", number)
        elif not self.negotiated and command != "qmp_capabilities":
            description = "Expecting capabilities negotiation with 'qmp_capabilities'"
            self.refuse(description, number, "CommandNotFound")
        else:
            self._on_command(self, command, number)


def _is_cut_short(error: json.JSONDecodeError) -> bool:
    """Whether more text may make it JSON."""
    rest = error.doc[error.pos :].rstrip()
    return (
        error.msg.startswith("Unterminated")
        or (error.msg.startswith("Invalid \\u") and len(rest) < 6)
        or any(word.startswith(rest) for word in ("true", "false", "null", "-"))
    )


def reply(body: str, number: Any) -> bytes:
    """A reply with the id of its command, if that had one. `body`: JSON without the braces."""
    import json

    identified = "" if number is NO_ID else f', "id": {json.dumps(number)}'
    return f"{{{body}{identified}}}\r\n".encode()


def refusal(description: str, kind: str = "GenericError") -> str:
    """The body of a reply that is an error."""
    import json

    return f'"error": {{"class": "{kind}", "desc": {json.dumps(description)}}}'


def greeting(version: tuple[int, int, int]) -> bytes:
    major, minor, micro = version
    return (
        f'{{"QMP": {{"version": {{"qemu": {{"micro": {micro}, "minor": {minor}, "major": {major}}}, '
        '"package": "fake"}, "capabilities": ["oob"]}}\r\n'
    ).encode()


def event(name: str, data: str = "") -> bytes:
    """`data`: JSON, or empty for none."""
    import json

    seconds, microseconds = divmod(time.time_ns() // 1000, 1_000_000)
    stamp = f'{{"seconds": {seconds}, "microseconds": {microseconds}}}'
    more = f', "data": {data}' if data else ""
    return f'{{"timestamp": {stamp}, "event": {json.dumps(name)}{more}}}\r\n'.encode()
