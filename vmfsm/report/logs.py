"""What was said, line by line: on a console, by QEMU, at the monitor."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from json.encoder import encode_basestring_ascii as _encoded
from typing import NamedTuple, Protocol

from vmfsm.jsonable import JSON

from .sampling import Density
from .values import shortened

LONGEST = 4_000
"""Characters of a line."""
_OF_A_MARK = 100
"""More, for what says how much is missing."""
_PIECE = 16_384
"""Characters that are taken at once, and kept at once: fewer where there is little room."""
_NEAR = 60
"""Lines before and after a mark."""
_MOST_NEAR = 20 * _NEAR
_OF_A_LINE = 20
"""Bytes of JSON, beside its text."""


class Writing(Protocol):
    """A file for the whole text."""

    name: str
    """Relative to the page."""

    def write(self, text: str, /) -> object: ...


class Line(NamedTuple):
    """One that is kept."""

    number: int
    at: float
    text: str
    tone: str | None


def told(kept: Sequence[Line], total: int, begin: float) -> dict[str, JSON]:
    """As the data has it, in seconds since `begin`.

    :param kept: what is left of so many.
    """
    lines: list[JSON] = []
    gaps: list[JSON] = []
    expected = 0
    for line in kept:
        if line.number > expected:
            gaps.append({"before": len(lines), "lines": line.number - expected})
        expected = line.number + 1
        said = shortened(line.text.removesuffix("\r"), LONGEST + _OF_A_MARK)
        one: list[JSON] = [round(line.at - begin, 6), said]
        lines.append(one if line.tone is None else [*one, line.tone])
    if total > expected:
        gaps.append({"before": len(lines), "lines": total - expected})
    return {"lines": lines, "total": total, "gaps": gaps}


class _Lines(NamedTuple):
    """Some that came at once."""

    number: int
    """Of the first one."""
    began: float
    at: float
    texts: list[str]
    size: int

    def each(self) -> Iterator[Line]:
        at = self.began
        for number, text in enumerate(self.texts, self.number):
            yield Line(number, at, text, None)
            at = self.at


class Log:
    """The first and the last lines, and those near a mark.

    :param budget: about how many bytes of JSON they may come to.
    :param beside: makes the file for all of it, as soon as something has to be left out here.
    """

    def __init__(self, budget: int, beside: Callable[[], Writing | None]) -> None:
        self.total = 0
        self.density = Density()
        """Of lines."""
        self._beside = beside
        self._file: Writing | None = None
        self._is_whole = True
        self._piece = min(_PIECE, budget // (2 * _OF_A_LINE))
        self._room = budget // 4
        self._room_last = budget // 2
        self._room_near = budget // 4
        self._first: list[_Lines] = []
        self._last: deque[_Lines] = deque()
        self._near: dict[int, Line] = {}
        self._after = 0
        self._rest = ""
        self._rest_at = 0.0
        self._rest_left_out = 0

    def feed(self, at: float, said: str) -> None:
        """What came next: a part of a line, or many lines."""
        for start in range(0, len(said), self._piece):
            self._feed(at, said[start : start + self._piece])

    @property
    def file(self) -> str | None:
        """The one that has all of it, where there is one."""
        return None if self._file is None else self._file.name

    def mark(self) -> None:
        """What is near the line that came last is to be kept."""
        if len(self._near) >= _MOST_NEAR:
            return
        self._after = _NEAR
        left = _NEAR
        for lines in reversed(self._last):
            for line in list(lines.each())[-left:]:
                self._keep_near(line)
            left -= len(lines.texts)
            if left <= 0:
                break

    def close(self) -> None:
        """Nothing more is expected: what has no end is a line as well."""
        if self._rest:
            self.density.add(self._rest_at)
            self._add(_Lines(self.total, self._rest_at, self._rest_at, [self._ended("")], 0))
            self._rest = ""

    def kept(self) -> list[Line]:
        """In order."""
        found = dict(self._near)
        for lines in (*self._first, *self._last):
            found.update((line.number, line) for line in lines.each())
        return [found[number] for number in sorted(found)]

    def _feed(self, at: float, said: str) -> None:
        texts = said.split("\n")
        rest = texts.pop()
        size = len(_encoded(said)) + _OF_A_LINE * len(texts)
        if self._is_whole:
            longest = max(map(len, (*texts, rest)))
            longest = max(longest, len(self._rest) + len(texts[0] if texts else rest))
            if longest > LONGEST or size > self._room_last:
                self._have_it_elsewhere()
        if self._file is not None:
            self._file.write(said)
        if texts:
            began = self._rest_at if self._rest else at
            texts[0] = self._ended(texts[0])
            self._rest = rest
            self._rest_at = at
            self.density.add(at, len(texts))
            self._add(_Lines(self.total, began, at, texts, size))
        else:
            self._rest_at = self._rest_at if self._rest else at
            self._rest += rest
        if len(self._rest) > 2 * LONGEST:
            self._rest_left_out += len(self._rest) - LONGEST
            self._rest = self._rest[: LONGEST // 2] + self._rest[-LONGEST // 2 :]

    def _have_it_elsewhere(self) -> None:
        """Begin the file, before anything is left out here: all that came before is still here."""
        self._is_whole = False
        self._file = self._beside()
        if self._file is not None:
            for lines in (*self._first, *self._last):
                self._file.write("".join(f"{text}\n" for text in lines.texts))
            self._file.write(self._rest)

    def _ended(self, text: str) -> str:
        """A line that began earlier."""
        text = self._rest + text
        left_out, self._rest_left_out = self._rest_left_out, 0
        if not left_out:
            return text
        begin, end = text[: LONGEST // 2], text[LONGEST // 2 :][-LONGEST // 2 :]
        return f"{begin} […{left_out + len(text) - LONGEST:,} characters left out…] {end}"

    def _add(self, lines: _Lines) -> None:
        self.total += len(lines.texts)
        if self._after:
            for line in lines.each():
                if self._after:
                    self._after -= 1
                    self._keep_near(line)
        if not self._last and lines.size <= self._room:
            self._room -= lines.size
            self._first.append(lines)
            return
        self._last.append(lines)
        self._room_last -= lines.size
        while self._room_last < 0 and len(self._last) > 1:
            self._room_last += self._last.popleft().size

    def _keep_near(self, line: Line) -> None:
        size = len(_encoded(line.text)) + _OF_A_LINE
        if line.number not in self._near and size <= self._room_near:
            self._room_near -= size
            self._near[line.number] = line
