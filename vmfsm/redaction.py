"""Secrets on command lines and in QMP commands: found, and hidden in what is shown.

What users hold stays exact (`Machine.command`); what is written somewhere for people does not have them:
records, messages and notes of errors, logs, the registry, QEMU's own output, which quotes its options.
"""

import heapq
import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, AnyStr

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
_SECRET_VARIABLE = re.compile(
    "pass|secret|token|credential|cookie|private|apikey|(?:^|_)(?:auth|keys?)(?:_|$)", re.IGNORECASE
)
"""What the names of environment variables that hold secrets have in them, mostly."""
_IN_URL = re.compile(r"(://[^/@:\s,]*:)([^/@\s,]+)(?=@)")
"""The password of a user, RFC 3986, 3.2.1."""
_LAST_WORD_OF = ("set_password", "change vnc password")
"""Commands of the human monitor that have one (QEMU documentation, "QEMU Monitor")."""
_MAY_HAVE_ONE = re.compile(rb'"qom-type"|password|"human-monitor-command"|://')


class Secrets:
    """The secrets of one machine, as far as they are known. From any thread.

    Known are those of its command lines and QMP commands; `add` adds what can't be told from other values.
    """

    def __init__(self) -> None:
        self._shown: dict[str, str] = {}
        self._learning = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._shown)

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
        shown = self._shown
        return "".join(_pieces(text, shown)) if shown else text

    def redact_message(self, message: bytes) -> str:
        """A QMP command without them, and without those that it has by its form, however short."""
        return self.redact(redact_message(message))

    def redact_all(self, value: Any) -> Any:
        """The same for every text in mappings, tuples and lists."""
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, Mapping):
            return {key: self.redact_all(item) for key, item in value.items()}
        if isinstance(value, tuple) and hasattr(value, "_make"):  # a named one
            return value._make(map(self.redact_all, value))
        if type(value) in {list, tuple}:
            return type(value)(map(self.redact_all, value))
        return value

    def filter(self) -> "Filter":
        """For bytes that come in pieces."""
        return Filter(lambda: self._shown)

    def _learn(self, shown: dict[str, str]) -> None:
        with self._learning:
            if not shown.keys() <= self._shown.keys():
                self._shown = self._shown | shown  # a new one: other threads may look at it


class Filter:
    """Hides secrets in bytes that come in pieces, which may end in the middle of one. On one thread.

    :param shown: says what there is to hide at that moment, and what to show for it.
    """

    def __init__(self, shown: Callable[[], Mapping[str, str]]) -> None:
        self._get = shown
        self._known: Mapping[str, str] = {}
        self._shown: dict[bytes, bytes] = {}
        self._held = b""

    @property
    def holds(self) -> bool:
        """Something is held back."""
        return bool(self._held)

    def feed(self, data: bytes) -> bytes:
        """What is to be shown now. What may be the beginning of a secret is held back."""
        self._update()
        if not self._shown:
            return data
        data = self._held + data
        parts, position = [], 0
        held = self._beginning(data, position)
        for start, secret in _matches(data, self._shown):
            if start >= held:
                break
            parts += [data[position:start], self._shown[secret]]
            position = start + len(secret)
            if position > held:
                held = self._beginning(data, position)
        parts.append(data[position:held])
        self._held = data[held:]
        return b"".join(parts)

    def finish(self) -> bytes:
        """There is no more, or it is not waited for; what was held back."""
        held, self._held = self._held, b""
        return b"".join(_pieces(held, self._shown))

    def _beginning(self, data: bytes, position: int) -> int:
        """Where the rest of `data` begins that is the beginning of a secret; its end where there is none."""
        found = len(data)
        view = memoryview(data)
        for secret in self._shown:
            start = data.find(secret[:1], max(position, len(data) - len(secret) + 1), found)
            while start >= 0 and not secret.startswith(view[start:]):
                start = data.find(secret[:1], start + 1, found)
            if start >= 0:
                found = start
        return found

    def _update(self) -> None:
        known = self._get()
        if known is not self._known:
            self._known = known
            self._shown = {_encode(secret): _encode(shown) for secret, shown in known.items()}


def redact_command(command: Iterable[str]) -> tuple[str, ...]:
    """A command line without the secrets that it has by its form."""
    return tuple(_examine(word)[0] for word in command)


def redact_environment(differences: Mapping[str, str | None]) -> dict[str, str | None]:
    """Differences to an environment, without what is secret: by a variable's name, or in a URL."""
    return {
        name: value and (HIDDEN if _SECRET_VARIABLE.search(name) else _IN_URL.sub(rf"\1{HIDDEN}", value))
        for name, value in differences.items()
    }


def redact_message(message: bytes) -> str:
    """A QMP command likewise."""
    if not _MAY_HAVE_ONE.search(message):
        return message.decode()
    return json.dumps(_without(json.loads(message)), separators=(",", ":"), ensure_ascii=False)


def _examine(word: str) -> tuple[str, list[str]]:
    """A word of a command line as it may be shown, and the secrets in it, as written and as meant."""
    if word.startswith("json:"):  # the name of an image that is its options
        shown, values = _examine(word.removeprefix("json:"))
        return (f"json:{shown}" if values else word), values
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
        if value.startswith("json:"):
            shown, found = _examine(value.replace(",,", ","))
            values.extend(found)
            return f"{key}={shown.replace(',', ',,')}{part[2]}"
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
    elif isinstance(message, str):
        yield from (url[2] for url in _IN_URL.finditer(message))


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
        if isinstance(value, str):
            return HIDDEN if value in values else _IN_URL.sub(rf"\1{HIDDEN}", value)
        return value

    return hide(message)


def _matches(text: AnyStr, sought: Iterable[AnyStr]) -> Iterator[tuple[int, AnyStr]]:
    """Where which of them is in `text`, from left to right, the longest where several begin.

    Each is looked for by itself: a regular expression of all takes long to compile, for each that is added,
    and longer to search.
    """
    found = [(start, -len(word), word) for word in sought if (start := text.find(word)) >= 0]
    heapq.heapify(found)
    position = 0
    while found:
        start, length, word = found[0]
        if start >= position:
            yield start, word
            position = start - length
        start = text.find(word, position)
        if start >= 0:
            heapq.heapreplace(found, (start, length, word))
        else:
            heapq.heappop(found)


def _pieces(text: AnyStr, shown: Mapping[AnyStr, AnyStr]) -> Iterator[AnyStr]:
    position = 0
    for start, word in _matches(text, shown):
        yield text[position:start]
        yield shown[word]
        position = start + len(word)
    yield text[position:]


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
