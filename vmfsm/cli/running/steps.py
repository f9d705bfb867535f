"""The steps of a script: what is waited for and what is sent, in the order of the command line."""

import contextlib
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from vmfsm import ConfigError, Machine
from vmfsm.cli.qmpshell.arguments import parse_command
from vmfsm.redaction import redact_message

from .outcome import StepError

_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)", re.DOTALL)
_Pattern: TypeAlias = "re.Pattern[str] | re.Pattern[bytes]"
_BYTES = "surrogateescape"
"""How Python has bytes of a command line that are no UTF-8."""
_CHARACTERS = {"n": "\n", "r": "\r", "t": "\t", "e": "\x1b", "b": "\b", "0": "\0", "\\": "\\"}


class Step(NamedTuple):
    """One of them. `do` of its kind is in `_DOERS`."""

    kind: str
    """The option without its dashes."""
    text: str
    """What was given to it."""
    what: Any
    """That, parsed."""

    @property
    def waits(self) -> bool:
        """For something to come, rather than to do something."""
        return self.kind in {"expect", "expect-text", "event"}

    def __str__(self) -> str:
        text = _without_secrets(*self.what) if self.kind == "qmp" else None
        return f"--{self.kind} {shlex.quote(text or self.text)}"

    def do(self, machine: Machine, console: str | None, timeout: float) -> str | None:
        """Do it; what there is to say about it.

        :param timeout: seconds.
        :raises VMError: as the calls of `Machine` do.
        :raises StepError: where the monitor refuses.
        """
        said: str | None = _DOERS[self.kind](machine, console, self.what, timeout)
        return said


def parse(kind: str, text: str) -> Step:
    """A step.

    :raises ValueError: for what is wrong with it.
    """
    return Step(kind, text, _PARSERS[kind](text))


def check_steps(steps: Sequence[Step], machine: Machine) -> None:
    """:raises ValueError: for a step that this machine has no console or monitor for."""
    for step in steps:
        if step.kind in {"event", "qmp"}:
            with _lack(f"{step}: there is no monitor"):
                _ = machine.qmp
        elif step.kind == "on":
            with _lack(f"{step}: there is no console {step.text!r}"):
                _ = machine.consoles[step.text]
        else:
            with _lack(f"{step}: there is no console"):
                _ = machine.console


@contextlib.contextmanager
def _lack(message: str) -> Iterator[None]:
    try:
        yield
    except ConfigError:
        raise ValueError(message) from None


def _without_secrets(name: str, arguments: Mapping[str, object]) -> str | None:
    """The command as it may be shown; `None` where there is no secret in it."""
    message = json.dumps({"execute": name, "arguments": arguments})
    shown = redact_message(message.encode())
    return None if shown == message else f"{name} {json.dumps(json.loads(shown)['arguments'])}"


def unescape(text: str) -> bytes:
    """`text` with what is meant: \\n \\r \\t \\e \\b \\0 \\\\ \\xHH (a byte) \\uHHHH (a character).

    As UTF-8, but for bytes of the command line that are none.

    :raises ValueError: for a backslash before anything else.
    """

    def character(found: "re.Match[str]") -> str:
        name = found[1]
        if len(name) > 1:
            code = int(name[1:], 16)
            return bytes([code]).decode("utf-8", _BYTES) if name[0] == "x" else chr(code)
        if name not in _CHARACTERS:
            raise ValueError(f"\\{name} stands for nothing (a backslash is \\\\)")
        return _CHARACTERS[name]

    if re.search(r"(?<!\\)(?:\\\\)*\\\Z", text):
        raise ValueError("it ends in a backslash (one is \\\\)")
    return _encode(_ESCAPE.sub(character, text))


def _encode(text: str) -> bytes:
    try:
        return text.encode("utf-8", _BYTES)
    except UnicodeEncodeError as error:
        raise ValueError(f"{text[error.start]!a} is half of a character") from None


def _pattern(text: str) -> _Pattern:
    try:
        return re.compile(text, re.MULTILINE) if _is_text(text) else re.compile(_encode(text), re.MULTILINE)
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from None


def _literal(text: str) -> _Pattern:
    """Line ends are as the guest's are."""
    wanted = unescape(text)
    return re.compile(rb"\r?\n".join(re.escape(line) for line in wanted.split(b"\n")))


def _is_text(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _event(text: str) -> tuple[str, Mapping[str, object] | None]:
    name, _, match = text.strip().partition(" ")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", name):
        raise ValueError(f"no name of an event: {name!r}")
    if not match.strip():
        return name, None
    try:
        wanted = json.loads(match)
    except json.JSONDecodeError as error:
        raise ValueError(f"after the event's name comes its data, or part of it, as JSON: {error}") from None
    if not isinstance(wanted, dict):
        raise ValueError("an event's data is a JSON object")
    return name, {"data": wanted}


def _expect(machine: Machine, console: str | None, pattern: _Pattern, timeout: float) -> None:
    _console(machine, console).expect(pattern, timeout=timeout)


def _send(machine: Machine, console: str | None, data: bytes, timeout: float) -> None:
    _console(machine, console).send(data, timeout=timeout)


def _wait_event(
    machine: Machine, console: str | None, wanted: tuple[str, Mapping[str, object] | None], timeout: float
) -> None:
    machine.qmp.wait_event(wanted[0], match=wanted[1], timeout=timeout)


def _execute(
    machine: Machine, console: str | None, command: tuple[str, dict[str, object]], timeout: float
) -> str:
    reply = machine.qmp.execute_raw(command[0], command[1], timeout=timeout)
    if "error" in reply:
        raise StepError(f"{reply['error'].get('class')}: {reply['error'].get('desc')}")
    return f"{command[0]}: {json.dumps(reply.get('return'), ensure_ascii=False)}"


def _console(machine: Machine, name: str | None) -> Any:
    return machine.console if name is None else machine.consoles[name]


_PARSERS: Mapping[str, Any] = {
    "expect": _pattern,
    "expect-text": _literal,
    "send": unescape,
    "event": _event,
    "qmp": parse_command,
    "on": str,
}
_DOERS: Mapping[str, Any] = {
    "expect": _expect,
    "expect-text": _expect,
    "send": _send,
    "event": _wait_event,
    "qmp": _execute,
}
KINDS = tuple(_PARSERS)
"""The options that make a script; `on` names the console of those after it."""
