"""Secrets on command lines and in QMP commands: found, and hidden in what is shown.

What users hold stays exact (`Machine.command`); what is written somewhere for people does not have them:
records, messages and notes of errors, logs, the registry, QEMU's own output, which quotes its options.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from .errors import ConfigError

HIDDEN = "***"
"""What stands in place of a secret."""

SHORTEST = 6
"""Characters. A shorter value is hidden only in the option that has it: it may be part of any text."""

# An option's `key=value,…`, with commas inside of a value doubled (QEMU documentation, "Invocation").
_PART = re.compile(r"((?:[^,]|,,)*)(,|$)")
_SECRET_TYPES = frozenset({"secret", "qom-type=secret"})
"""QEMU documentation, "Providing secret data to QEMU"; a `secret_keyring` has only a key's number."""
_SECRET_KEYS = frozenset({"password", "pwd"})
"""Keys of options (the last of a dotted one), and of QMP arguments; `data` is one for objects of type secret.

`pwd` is swtpm's (swtpm(8), `--key`).
"""
_SWITCHES = frozenset({"", "on", "off", "yes", "no", "true", "false"})
"""`-vnc …,password=on` says only that there is one."""
_IN_URL = re.compile(r"(://[^/@:\s,]*:)([^/@\s,]+)(?=@)")
"""The password of a user, RFC 3986, 3.2.1."""
_LAST_WORD_OF = ("set_password", "change vnc password")
"""Commands of the human monitor that have one (QEMU documentation, "QEMU Monitor")."""
_MAY_HAVE_ONE = re.compile(rb'"qom-type"|password|"human-monitor-command"')


class Secrets:
    """The secrets of one machine, as far as they are known. From any thread.

    Known are those of its command lines and QMP commands; `add` adds what can't be told from other values.
    """

    def __init__(self) -> None:
        self._shown: dict[str, str] = {}
        self._pattern: re.Pattern[str] | None = None

    def __bool__(self) -> bool:
        return self._pattern is not None

    def __repr__(self) -> str:
        return f"<Secrets, {len(self._shown)} texts>"

    def add(self, value: str) -> None:
        """Hide `value` from now on, wherever it stands in what is shown of this machine.

        :raises ConfigError: for what is no `str`, or shorter than 6 characters: it would be hidden in other
            words, too.
        """
        if not isinstance(value, str) or len(value) < SHORTEST:
            raise ConfigError(f"a secret must be a str of at least {SHORTEST} characters", field="value")
        self._learn({value: HIDDEN})

    def learn_command(self, command: Iterable[str]) -> None:
        """Learn those of a command line."""
        for word in command:
            shown, values = _examine(word)
            if values:
                # The word as a whole, too: QEMU quotes it, and a value in it may be too short to be sought.
                self._learn({word: shown} | {value: HIDDEN for value in values if len(value) >= SHORTEST})

    def learn_message(self, message: bytes) -> None:
        """Learn those of a QMP command."""
        if _MAY_HAVE_ONE.search(message):
            values = list(_values_in(json.loads(message)))
            self._learn({value: HIDDEN for value in values if len(value) >= SHORTEST})

    def redact(self, text: str) -> str:
        """`text` without them."""
        return text if self._pattern is None else self._pattern.sub(self._replacement, text)

    def redact_all(self, value: Any) -> Any:
        """The same for every text in mappings, tuples and lists."""
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, Mapping):
            return {key: self.redact_all(item) for key, item in value.items()}
        if type(value) in {list, tuple}:
            return type(value)(map(self.redact_all, value))
        return value

    def filter(self) -> "Filter":
        """For bytes that come in pieces."""
        return Filter(lambda: self._shown)

    def _learn(self, shown: dict[str, str]) -> None:
        if shown.keys() <= self._shown.keys():
            return
        self._shown = self._shown | shown  # a new one: other threads may look at it
        self._pattern = re.compile("|".join(map(re.escape, _longest_first(self._shown))))

    def _replacement(self, match: re.Match[str]) -> str:
        return self._shown[match[0]]


class Filter:
    """Hides secrets in bytes that come in pieces, which may end in the middle of one. On one thread.

    :param shown: says what there is to hide at that moment, and what to show for it.
    """

    def __init__(self, shown: Callable[[], Mapping[str, str]]) -> None:
        self._get = shown
        self._known: Mapping[str, str] = {}
        self._shown: dict[bytes, bytes] = {}
        self._pattern: re.Pattern[bytes] | None = None
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What is to be shown now. What may be the beginning of a secret is held back."""
        self._update()
        if self._pattern is None:
            return data
        data = self._held + data
        parts, position = [], 0
        held = self._beginning(data, position)
        while True:
            match = self._pattern.search(data, position)
            if match is None or match.start() >= held:
                parts.append(data[position:held])
                self._held = data[held:]
                return b"".join(parts)
            parts += [data[position : match.start()], self._shown[match[0]]]
            position = match.end()
            if position > held:
                held = self._beginning(data, position)

    def finish(self) -> bytes:
        """There is no more; what was held back."""
        held, self._held = self._held, b""
        return held if self._pattern is None else self._pattern.sub(lambda m: self._shown[m[0]], held)

    def _beginning(self, data: bytes, position: int) -> int:
        """Where the rest of `data` begins that is the beginning of a secret; its end where there is none."""
        longest = max(map(len, self._shown))
        for start in range(max(position, len(data) - longest + 1), len(data)):
            rest = data[start:]
            if any(secret.startswith(rest) for secret in self._shown):
                return start
        return len(data)

    def _update(self) -> None:
        known = self._get()
        if not known or known is self._known:
            return
        self._known = known
        self._shown = {_encode(secret): _encode(shown) for secret, shown in known.items()}
        self._pattern = re.compile(b"|".join(map(re.escape, _longest_first(self._shown))))


def redact_command(command: Iterable[str]) -> tuple[str, ...]:
    """A command line without the secrets that it has by its form."""
    return tuple(_examine(word)[0] for word in command)


def redact_message(message: bytes) -> str:
    """A QMP command likewise."""
    if not _MAY_HAVE_ONE.search(message):
        return message.decode()
    return json.dumps(_without(json.loads(message)), separators=(",", ":"), ensure_ascii=False)


def _examine(word: str) -> tuple[str, list[str]]:
    """A word of a command line as it may be shown, and the secrets in it, as written and as meant."""
    if word.startswith("{"):
        try:
            options = json.loads(word)
        except ValueError:
            return word, []
        values = list(_values_in(options))
        return (json.dumps(_without(options)), values) if values else (word, [])
    if "=" not in word and "://" not in word:
        return word, []
    values = []
    parts = [match for match in _PART.finditer(word) if match[0]]
    is_secret = any(part[1] in _SECRET_TYPES for part in parts)

    def hide(value: str) -> str:
        values.extend({value, value.replace(",,", ",")})
        return HIDDEN

    def show(part: re.Match[str]) -> str:
        key, equals, value = part[1].partition("=")
        last = key.rpartition(".")[2].lstrip("-")
        if (last in _SECRET_KEYS and value not in _SWITCHES) or (last == "data" and is_secret and value):
            return f"{key}{equals}{hide(value)}{part[2]}"
        return _IN_URL.sub(lambda url: url[1] + hide(url[2]), part[0])

    return "".join(map(show, parts)), values


def _is_secret(key: object, value: object, holder: Mapping[Any, Any]) -> bool:
    if not isinstance(value, str) or not value:
        return False
    return key in _SECRET_KEYS or (key == "data" and holder.get("qom-type") == "secret")


def _values_in(message: object) -> Iterator[str]:
    """The secrets in JSON, as objects and commands have them."""
    if isinstance(message, Mapping):
        for key, value in message.items():
            if _is_secret(key, value, message):
                yield value
            elif key == "props" and message.get("qom-type") == "secret" and isinstance(value, Mapping):
                yield from _values_in({"qom-type": "secret", **value})
            elif key == "command-line" and isinstance(value, str):
                yield from _values_of_line(value)
            else:
                yield from _values_in(value)
    elif isinstance(message, list):
        for value in message:
            yield from _values_in(value)


def _values_of_line(line: str) -> Iterator[str]:
    """Those of a command of the human monitor."""
    words = line.split()
    if line.strip().startswith(_LAST_WORD_OF) and len(words) > 2:
        yield words[2] if words[0] == "set_password" else words[-1]
    for word in words:
        yield from _examine(word)[1]


def _without(message: Any) -> Any:
    """JSON with those hidden, however short they are."""
    values = set(_values_in(message))

    def hide(value: Any, key: object = None) -> Any:
        if isinstance(value, Mapping):
            return {name: hide(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [hide(item) for item in value]
        if key == "command-line" and isinstance(value, str):
            return " ".join(HIDDEN if word in values else _examine(word)[0] for word in value.split(" "))
        return HIDDEN if isinstance(value, str) and value in values else value

    return hide(message)


def _longest_first(texts: Iterable[Any]) -> Sequence[Any]:
    return sorted(texts, key=len, reverse=True)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
