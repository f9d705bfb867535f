"""What `expect` looks for, and how far a console has been read."""

import re
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from vmfsm import ConfigError
from vmfsm_plugins.streams.buffer import Buffer, Position, View

Pattern = str | bytes | re.Pattern[str] | re.Pattern[bytes]


class Expected(NamedTuple):
    """What `expect` found."""

    index: int  # type: ignore[assignment]  # hides a method of tuple
    """Which of the patterns it was."""
    match: re.Match[Any]
    """Its match, of str or bytes as the pattern is."""
    before: Any
    """What was skipped to get there, str or bytes as the pattern is."""


class Search:
    """Some patterns, of which the match that begins first in the stream counts.

    :raises ConfigError: for what is no pattern.
    """

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        if not patterns:
            raise ConfigError("expect needs a pattern", field="patterns")
        self._patterns = [_compile(pattern) for pattern in patterns]
        kinds = {type(pattern.pattern) for pattern in self._patterns}
        self._of_text = str in kinds
        self._of_bytes = bytes in kinds

    def __str__(self) -> str:
        text = ", ".join(repr(pattern.pattern) for pattern in self._patterns)
        return text if len(text) <= 120 else text[:119] + "…"

    def find(self, view: View, start: Position) -> tuple[Expected, Position] | None:
        """The earliest match from `start` on, and where it ends; of those that begin together the first."""
        text = view.text(start) if self._of_text else ""
        data = view.data(start) if self._of_bytes else b""
        best: tuple[int, int, re.Match[Any]] | None = None
        for index, pattern in enumerate(self._patterns):
            is_text = isinstance(pattern.pattern, str)
            match = pattern.search(text if is_text else data)
            if match is None:
                continue
            begin = match.start()
            if is_text and self._of_bytes:
                begin = view.at_char(start.char + begin).byte - start.byte
            if best is None or begin < best[0]:
                best = begin, index, match
        if best is None:
            return None
        _, index, match = best
        if isinstance(match.re.pattern, str):
            end = view.at_char(start.char + match.end())
        else:
            end = view.at_byte(start.byte + match.end())
        return Expected(index, match, match.string[: match.start()]), end


def _compile(pattern: object) -> re.Pattern[Any]:
    if isinstance(pattern, re.Pattern):
        return pattern
    if not isinstance(pattern, str | bytes):
        raise ConfigError(
            f"expect takes regular expressions as str or bytes, not {pattern!r} (timeout is keyword-only)",
            field="patterns",
        )
    try:
        return re.compile(pattern, re.MULTILINE)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(f"not a regular expression: {pattern!r}: {error}", field="patterns") from error


class Cursor:
    """Up to where the console has been read. For any thread; never waits.

    :param skipped: called with how many bytes a reader missed, since they were not kept any more.
    """

    def __init__(self, buffer: Buffer, skipped: Callable[[int], object]) -> None:
        self._buffer = buffer
        self._tell_skipped = skipped
        self._position = buffer.end
        self._skipped = 0
        self._advancing = threading.Lock()

    @property
    def unread(self) -> int:
        """How many bytes came that were not read, be they kept or not."""
        return self._buffer.end.byte - self._position.byte

    @property
    def lost(self) -> int:
        """How many bytes fell out of the buffer before anybody read them."""
        return self._skipped + max(0, self._buffer.view().start.byte - self._position.byte)

    def take(self, most: int = -1) -> str:
        """Read what is there, `most` characters at most."""
        while True:
            seen, view = self._position, self._buffer.view()
            start = view.clamp(seen)
            text, end = view.text(start), view.end
            if 0 <= most < len(text):
                text, end = text[:most], view.at_char(start.char + most)
            if self._advance(seen, start, end):
                return text

    def find(self, search: Search) -> Expected | None:
        """Look for `search` in what was not read, and read through its match."""
        while True:
            seen, view = self._position, self._buffer.view()
            start = view.clamp(seen)
            found = search.find(view, start)
            if found is None:
                return None
            if self._advance(seen, start, found[1]):
                return found[0]

    def _advance(self, seen: Position, start: Position, end: Position) -> bool:
        """Move from `seen` to `end`, unless another thread has moved meanwhile."""
        with self._advancing:
            if self._position is not seen:
                return False
            self._position = end
            self._skipped += start.byte - seen.byte
        if start.byte > seen.byte:
            self._tell_skipped(start.byte - seen.byte)
        return True
