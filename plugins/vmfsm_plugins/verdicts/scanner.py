"""Patterns searched for in a stream that comes in any pieces, in bounded memory and time.

What comes is searched for a rare byte of each pattern and, if it has that, for the longest piece of it: a few
calls of `bytes.find`. Only lines that have such a piece are looked at one by one, once for each pattern.
"""

import bisect
import functools
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .patterns import LINE, OVERLAP, Pattern

# Control sequences (ECMA-48, 5.4): colours and the like. There is one way only to read them.
_ESCAPE = re.compile(rb"\x1b\[[0-9;:?]{0,32}[@-~]")
_UNFINISHED_ESCAPE = re.compile(rb"\x1b(?:\[[0-9;:?]{0,32})?\Z")
_LONGEST_UNFINISHED = 34

_Place = tuple[int, bytes]
"""Where in the buffer a match ends: the beginning of that line; and the lines."""


class Found(NamedTuple):
    """A pattern, in a stream."""

    pattern: int
    """Its number."""
    position: int
    """Bytes of the stream before the line that it ends in."""
    text: bytes
    """Its lines, without control sequences."""


@functools.lru_cache(maxsize=64)  # most machines have the same patterns
def _gates(patterns: tuple[Pattern, ...]) -> Sequence[tuple[bytes, Sequence[tuple[bytes, Sequence[int]]]]]:
    """By rare byte and key, the numbers of the patterns that have both."""
    gates: dict[int, dict[bytes, list[int]]] = {}
    for number, pattern in enumerate(patterns):
        gates.setdefault(pattern.gate, {}).setdefault(pattern.key, []).append(number)
    return [(bytes([gate]), list(keys.items())) for gate, keys in gates.items()]


class Scanner:
    """Of one stream. A pattern is found once in each line that it ends in.

    :param most: each is found so often; after that it is counted.
    :param wanted: of the number of a pattern, whether it is found all the same.
    """

    def __init__(
        self,
        patterns: tuple[Pattern, ...],
        most: int,
        wanted: Callable[[int], bool] = lambda number: False,
    ) -> None:
        self._patterns = patterns
        self._most = most
        self._wanted = wanted
        self._gates = _gates(patterns)
        self._longest_key = max((len(pattern.key) for pattern in patterns), default=0)
        self._lines_back = max((len(pattern.parts) for pattern in patterns), default=1) - 1
        """Whole lines before the unfinished one that a match may begin in."""
        self.restart()

    def restart(self) -> None:
        """A new stream."""
        self.found = [0] * len(self._patterns)
        """How often each was found,"""
        self.counted = [0] * len(self._patterns)
        """and how often it was no more than counted."""
        self.tries = 0
        """How often a line was looked at for a pattern; the work is in proportion to that and the bytes."""
        self.pending = False
        """The unfinished line has what may be a match when it is finished."""
        self._raw = self._plain = self._escape = b""
        """What came last, as it is and without control sequences; the beginning of one at the end of it."""
        self._raw_position = self._length = 0
        """Of `_raw`; and of its end and `_escape`."""
        self._begins: tuple[list[int], list[int]] | None = None
        """Where lines begin in `_plain` and in `_raw`, while matches are found that ask for it."""
        self._added = 0
        """How much of `_plain` was looked at."""
        self._kept = b""
        """Lines that a match may begin in, and the unfinished one."""
        self._waiting: list[int] = []
        """The patterns whose keys these have."""
        self._is_cut = False
        """The first of these lines is the end of a long one."""
        self._line = 0
        """Where the unfinished line begins in that."""
        self._line_position = 0
        """And in the stream."""
        self._in_line: set[int] = set()
        """What was found in the unfinished line already."""

    def feed(self, data: bytes) -> list[Found]:
        """What is found by now in whole lines, in their order."""
        self._raw_position, self._raw = self._length - len(self._escape), self._escape + data
        self._length += len(data)
        self._plain, self._escape = self._raw, b""
        if b"\x1b" in self._raw:
            unfinished = _UNFINISHED_ESCAPE.search(self._raw, max(0, len(self._raw) - _LONGEST_UNFINISHED))
            if unfinished is not None:
                self._escape, self._raw = unfinished[0], self._raw[: unfinished.start()]
            self._plain = _ESCAPE.sub(b"", self._raw)
        self._added = 0
        found = []
        while True:
            found += self._add(self._until_too_long())
            if self._added == len(self._plain):
                self._begins = None
                return found
            found += self.flush()
            self._kept, self._line, self._is_cut = self._kept[-OVERLAP:], 0, True

    def flush(self) -> list[Found]:
        """What is found in the unfinished line as it is."""
        self.pending = False
        return self._search(self._waiting, self._kept, as_is=True)

    # -- the stream -----------------------------------------------------------------------------------------

    def _until_too_long(self) -> int:
        """To where in `_plain` no line is longer than `LINE`."""
        at, room = self._added, LINE - (len(self._kept) - self._line)
        while at + room < len(self._plain):
            newline = self._plain.rfind(b"\n", at, at + room + 1)
            if newline < 0:
                return at + room
            at, room = newline + 1, LINE
        return len(self._plain)

    def _add(self, to: int) -> list[Found]:
        buffer = self._kept + self._plain[self._added : to]
        self.pending = False
        candidates = self._candidates(buffer)
        found = self._search(candidates, buffer) if candidates else []
        line = buffer.rfind(b"\n") + 1
        if line > self._line:
            self._line_position = self._position(line)
            self._in_line.clear()
        begin = line
        for _ in range(self._lines_back):
            begin = buffer.rfind(b"\n", 0, max(0, begin - 1)) + 1
        self._is_cut = self._is_cut and begin == 0
        self._kept, self._line, self._added = buffer[begin:], line - begin, to
        self._waiting = [number for number in candidates if self._patterns[number].key in self._kept]
        return found

    def _candidates(self, buffer: bytes) -> list[int]:
        """The patterns whose keys it has."""
        new = max(0, len(self._kept) - self._longest_key)
        numbers = self._waiting.copy()
        for gate, keys in self._gates:
            if gate in buffer:
                begin = new if gate in self._kept else 0  # else nobody has searched these
                for key, of_key in keys:
                    if buffer.find(key, begin) >= 0:
                        numbers += of_key
        return sorted({*numbers}) if self._waiting else numbers

    def _position(self, line: int) -> int:
        """In the stream, of a line that begins there in the buffer."""
        if line <= self._line:
            return self._line_position
        at = self._added + line - len(self._kept)
        if len(self._plain) < len(self._raw):
            self._begins = self._begins or (_begins(self._plain), _begins(self._raw))
            plain, raw = self._begins
            at = raw[bisect.bisect_left(plain, at)]
        return self._raw_position + at

    # -- the search -----------------------------------------------------------------------------------------

    def _search(self, numbers: Sequence[int], buffer: bytes, *, as_is: bool = False) -> list[Found]:
        """The matches that end in lines that are new.

        :param as_is: in the unfinished line, too.
        """
        found = []
        for number in numbers:
            pattern = self._patterns[number]
            at = self._line if len(pattern.parts) == 1 else 0
            while (hit := buffer.find(pattern.key, at)) >= 0:
                end = buffer.find(b"\n", hit)
                at = len(buffer) if end < 0 else end
                place = self._match(pattern, buffer, buffer.rfind(b"\n", 0, hit) + 1, as_is=as_is)
                if place is None or (place[0] == self._line and number in self._in_line):
                    continue
                if as_is:
                    self._in_line.add(number)
                if self.found[number] >= self._most and not self._wanted(number):
                    self.counted[number] += 1
                else:
                    self.found[number] += 1
                    found.append(Found(number, self._position(place[0]), place[1]))
        found.sort(key=lambda one: one.position)
        return found

    def _match(self, pattern: Pattern, buffer: bytes, begin: int, *, as_is: bool) -> _Place | None:
        """Look at the lines around the one with the key, which begins there."""
        self.tries += 1
        for _ in range(pattern.key_line):
            if begin == 0:
                return None
            begin = buffer.rfind(b"\n", 0, begin - 1) + 1
        texts, line = [], begin
        for part in pattern.parts:
            line, end = begin, buffer.find(b"\n", begin)
            if end < 0:
                if part.to_end:
                    return None
                if not as_is:
                    self.pending = True
                    return None
                end = len(buffer)
            if (part.from_start and line == 0 and self._is_cut) or not part.fits(buffer, line, end):
                return None
            texts.append(buffer[line:end].rstrip(b"\r"))
            begin = end + 1
        return (line, b"\n".join(texts)) if line >= self._line else None


def _begins(data: bytes) -> list[int]:
    """Where its lines begin, but for the first."""
    return [newline.end() for newline in re.finditer(b"\n", data)]
