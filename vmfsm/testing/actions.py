"""What a `FakeQEMU` can be told to do at a point: one after the other, the next when that is done.

    from vmfsm.testing import FakeQEMU, actions as do

    FakeQEMU(greeting=[do.wait(2), do.as_qemu()], on={"quit": [], "query-status": [do.hang_up()]})

An action that waits holds up the rest of its own list only, other than `wedge`.
"""

import json
import signal
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from vmfsm.errors import ConfigError

__all__ = [
    "Action",
    "as_qemu",
    "close_console",
    "die_of",
    "emit",
    "exit_with",
    "fork",
    "hang_up",
    "hold",
    "output",
    "refuse",
    "release",
    "reply",
    "say",
    "send",
    "shut_down",
    "wait",
    "wedge",
]

ONLY_AT_COMMANDS: Final = frozenset({"reply", "refuse"})
"""Actions that need a command to answer."""
_LONGEST_WAIT: Final = 1e6
_FASTEST: Final = 1e6
_HARMLESS: Final = frozenset(
    {
        *(signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH),
        *(signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),
    }
)
"""Signals that by default do not end a process (signal(7))."""
_SAME: Final[Any] = object()


class Action(NamedTuple):
    """Something to be done; made by the functions here."""

    name: str
    values: tuple[object, ...]

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(map(_shorten, self.values))})"


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def as_qemu() -> Action:
    """What QEMU does here: greets, executes the command, ends."""
    return Action("as_qemu", ())


def wait(seconds: float) -> Action:
    """Wait, while all else goes on."""
    return Action("wait", (_seconds("seconds", seconds),))


def hold() -> Action:
    """Wait until a `release` elsewhere: for replies out of order, without a delay to guess."""
    return Action("hold", ())


def release() -> Action:
    """Let all that is held go on, in order of its holding, before what comes next here."""
    return Action("release", ())


# -- the monitor --------------------------------------------------------------------------------------------


def reply(value: object = None, *, id: object = _SAME) -> Action:  # noqa: A002 - QMP's word
    """Reply to the command with `{"return": value}`; `None`: with an empty object.

    :param id: instead of the command's own.
    """
    return _answer("reply", "return", {} if value is None else value, id)


def refuse(
    description: str = "no",
    *,
    error_class: str = "GenericError",
    id: object = _SAME,  # noqa: A002
) -> Action:
    """Reply to the command with an error (QMP specification, "Error")."""
    error = {"class": _text("error_class", error_class), "desc": _text("description", description)}
    return _answer("refuse", "error", error, id)


def send(data: str | bytes, *, times: int | None = 1) -> Action:
    """Send this on the monitor as it is: half a message, garbage, an event that is none.

    :param times: so often; `None`: for ever.

    `$id` in it becomes the id of the command, as JSON, and `$number` 1, 2, … Where the point is none of one
    monitor's, it goes to all that are connected.
    """
    return Action("send", (_bytes(data), _times(times)))


def emit(
    event: str,
    data: Mapping[str, object] | None = None,
    *,
    times: int | None = 1,
    per_second: float | None = None,
) -> Action:
    """Send an event to all monitors that are past the negotiation.

    :param data: of the event; a value `"$number"` in it becomes 1, 2, …
    :param times: so often; `None`: for ever.
    :param per_second: how many a second; `None`: as fast as they are read.
    """
    fine = per_second is None or (_is_number(per_second) and 1 / _LONGEST_WAIT <= per_second <= _FASTEST)
    _require("per_second", fine, "a number from 1e-6 to 1e6, or None", per_second)
    _require("data", data is None or isinstance(data, Mapping), "a mapping or None", data)
    encoded = "" if data is None else _json("data", dict(data))
    return Action("emit", (_text("event", event), encoded, _times(times), per_second))


def hang_up(*, for_good: bool = False, everywhere: bool = False) -> Action:
    """Close the connection of this monitor, or of all; a monitor that listens can be connected to again.

    :param for_good: it can't: the listening socket is closed, too.
    :param everywhere: of all monitors, also where the point is one monitor's.
    """
    return Action("hang_up", (_flag("for_good", for_good), _flag("everywhere", everywhere)))


# -- consoles and output ------------------------------------------------------------------------------------


def say(data: str | bytes, *, times: int | None = 1, console: int | None = None) -> Action:
    """Write to a console; what is not there is not written to.

    :param data: bytes may be undecodable; `$number` in it becomes 1, 2, …
    :param times: so often; `None`: for ever, as fast as it is read.
    :param console: its number, in the order of QEMU's arguments; `None`: the one at hand, or else the first.
    """
    return Action("say", (_bytes(data), _times(times), _console(console)))


def close_console(console: int | None = None) -> Action:
    """Close a console, as `say` has it: its other end is at the end of the file."""
    return Action("close_console", (_console(console),))


def output(data: str | bytes, *, stdout: bool = False) -> Action:
    """Write to stderr, or stdout; it waits for whoever reads that, and so does all else."""
    return Action("output", (_bytes(data), 1 if _flag("stdout", stdout) else 2))


# -- the process --------------------------------------------------------------------------------------------


def fork(*, leaving: str | None = None) -> Action:
    """Leave a child that has all descriptors and ends by SIGKILL only: it blocks all other signals.

    :param leaving: `"group"` or `"session"`: it leaves that of QEMU.
    """
    _require("leaving", leaving in (None, "group", "session"), "'group', 'session' or None", leaving)
    return Action("fork", (leaving,))


def wedge(seconds: float | None = None) -> Action:
    """Stop doing anything, SIGTERM included; for so many seconds, or for ever."""
    return Action("wedge", (None if seconds is None else _seconds("seconds", seconds),))


def shut_down(reason: str = "guest-shutdown", *, status: int = 0) -> Action:
    """End as QEMU does, with a `SHUTDOWN` event.

    :param reason: of the event (QMP reference, `ShutdownCause`).
    """
    return Action("shut_down", (_text("reason", reason), _status(status)))


def exit_with(status: int = 0) -> Action:
    """End with this status, without a word."""
    return Action("exit_with", (_status(status),))


def die_of(number: int) -> Action:
    """Die of a signal, without a core file.

    :param number: of a signal that ends a process (signal(7), "Term" and "Core").
    """
    fine = isinstance(number, int) and number in signal.valid_signals() - _HARMLESS
    _require("number", fine, "the number of a signal that ends a process", number)
    return Action("die_of", (int(number),))


# -- what is given ------------------------------------------------------------------------------------------


def _require(field: str, fine: bool, wanted: str, value: object) -> None:
    if not fine:
        raise ConfigError(f"{field} must be {wanted}, not {_shorten(value)}", field=field)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _seconds(field: str, value: float) -> float:
    _require(
        field, _is_number(value) and 0 <= value <= _LONGEST_WAIT, "seconds, at least 0 and finite", value
    )
    return float(value)


def _times(value: int | None) -> int | None:
    _require(
        "times", value is None or (type(value) is int and value >= 0), "an int, at least 0, or None", value
    )
    return value


def _console(value: int | None) -> int | None:
    fine = value is None or (type(value) is int and value >= 0)
    _require("console", fine, "an int, at least 0, or None", value)
    return value


def _status(value: int) -> int:
    _require("status", type(value) is int and 0 <= value <= 255, "an int from 0 to 255", value)
    return value


def _flag(field: str, value: bool) -> bool:
    _require(field, isinstance(value, bool), "a bool", value)
    return value


def _text(field: str, value: str) -> str:
    _require(field, isinstance(value, str), "a str", value)
    return value


def _bytes(data: str | bytes) -> bytes:
    _require("data", isinstance(data, str | bytes), "a str or bytes", data)
    try:
        return data if isinstance(data, bytes) else data.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"data is nothing for UTF-8, give it as bytes: {error}", field="data") from error


def _json(field: str, value: object) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{field} is nothing for JSON: {error}", field=field) from error


def _answer(name: str, key: str, value: object, number: object) -> Action:
    body = f'"{key}": {_json("value", value)}'
    if number is _SAME:
        return Action(name, (body, ()))
    _json("id", number)
    return Action(name, (body, (number,)))
