"""A stream that is watched: from its bytes to verdicts."""

import asyncio
import functools
from collections.abc import Callable, Mapping

from vmfsm import Verdict, printable

from .patterns import Pattern
from .rules import Rule
from .scanner import Found, Scanner

MOST = 200
"""Verdicts of one kind in one launch; further ones are counted."""
PATIENCE = 0.2
"""Seconds that a line with a match has to come to its end: a guest that is lost may never finish it."""
_LONGEST = 500
"""Characters of a message."""
_BEFORE = 100
"""Of these, before the match in a long line."""


class Watcher:
    """Of one stream, in all launches. On the I/O thread only; it is called with the bytes.

    :param name: the stream's, for verdicts.
    :param rules: all there are; those for `source` count.
    :param report: gets the verdicts.
    :param wanted: whether somebody waits for a verdict of this kind, however many there were.
    """

    def __init__(
        self,
        name: str,
        source: str,
        rules: Mapping[str, Rule],
        report: Callable[[Verdict], object],
        wanted: Callable[[str], bool] = lambda kind: False,
    ) -> None:
        self._name = name
        self._report = report
        self._patterns, patterns = _compiled(tuple(rules.items()), source)
        self.scanner = Scanner(patterns, MOST, lambda number: wanted(self._patterns[number][0]))
        self._last: dict[str, tuple[int, set[int]]] = {}
        """By kind, where the last verdict was found, and by which patterns."""
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self, data: bytes) -> None:
        """What came; nothing at the end of a launch."""
        if not data:
            self.flush()
            self.scanner.restart()
            self._last.clear()
            return
        self._tell(self.scanner.feed(data))
        if self.scanner.pending and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PATIENCE, self.flush)

    def flush(self) -> None:
        """Wait no longer for the end of a line."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.scanner.pending:
            self._tell(self.scanner.flush())

    def uncounted(self) -> dict[str, int]:
        """By kind, how much was found that nobody was told of any more, as there was so much of it."""
        counts: dict[str, int] = {}
        for (kind, _, _), count in zip(self._patterns, tuple(self.scanner.counted), strict=True):
            counts[kind] = counts.get(kind, 0) + count
        return counts

    def _tell(self, found: list[Found]) -> None:
        for number, position, text in found:
            kind, rule, pattern = self._patterns[number]
            if any(words.encode() in text for words in rule.unless):
                continue
            last, by = self._last.get(kind, (-rule.apart, set()))
            if position - last < rule.apart and number not in by:
                by.add(number)
                continue
            self._last[kind] = position, {number}
            what = {
                "message": _message(text, pattern.key),
                "source": self._name,
                "position": position,
                "pattern": pattern.text,
            }
            self._report(Verdict(kind, "verdicts", what))


@functools.lru_cache(maxsize=64)  # most machines have the same rules
def _compiled(
    rules: tuple[tuple[str, Rule], ...], source: str
) -> tuple[tuple[tuple[str, Rule, Pattern], ...], tuple[Pattern, ...]]:
    """The patterns for a source, with and without whose they are."""
    found = tuple(
        (kind, rule, Pattern.compile(text))
        for kind, rule in rules
        if source in rule.sources
        for text in rule.patterns
    )
    return found, tuple(pattern for _, _, pattern in found)


def _message(text: bytes, key: bytes) -> str:
    begin = max(0, text.find(key) - _BEFORE) if len(text) > _LONGEST else 0
    return printable(text[begin : begin + _LONGEST].decode(errors="replace")).strip()
