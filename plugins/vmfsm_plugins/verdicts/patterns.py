"""Patterns for what is seen in a stream: plain text, in which `*` stands for anything within a line.

No regular expressions: whatever a guest writes, a line is matched in one pass over it for each part of the
pattern, without going back.
"""

import re
from typing import NamedTuple

LINE = 16 * 1024
"""Bytes of a line that are looked at together. A longer one is looked at in pieces of that size."""
OVERLAP = 1024
"""Bytes that such pieces have in common, so that nothing is lost at their ends that is not longer."""
MOST_LINES = 8
"""Lines that a pattern may span."""
LEAST = 4
"""Bytes in a row that a pattern must have: text is searched for the longest of these."""

# From the most to the least frequent in what consoles say: the last one of a pattern is searched for first.
_FREQUENT = (
    b" \r\neatiorsndlcpm0ufhg1:b2._v3/-y5k46w879=x,()[]'TISCAEPDRMNLOFBUj\"zGVHWKq+*XY<>@JQZ&%#;?!|{}~$^\\`"
)


class Part(NamedTuple):
    """What one line must have: these, one after the other, with anything between them."""

    pieces: tuple[bytes, ...]
    from_start: bool
    """The first one at the beginning of the line."""
    to_end: bool
    """The last one at its end."""

    def fits(self, buffer: bytes, start: int, end: int) -> bool:
        """Whether the line that is there in the buffer, without its end, has them."""
        pieces = self.pieces
        if self.to_end:
            end = start + len(buffer[start:end].rstrip(b"\r"))
        if self.from_start:
            if not buffer.startswith(pieces[0], start, end):
                return False
            start += len(pieces[0])
            if self.to_end and len(pieces) == 1:
                return start == end
            pieces = pieces[1:]
        if self.to_end:
            end -= len(pieces[-1])
            if end < start or not buffer.startswith(pieces[-1], end):
                return False
            pieces = pieces[:-1]
        for piece in pieces:
            found = buffer.find(piece, start, end)
            if found < 0:
                return False
            start = found + len(piece)
        return True


class Pattern(NamedTuple):
    """A pattern, ready to be searched for."""

    text: str
    parts: tuple[Part, ...]
    """By line."""
    key: bytes
    """What it has that is searched for: the longest of its pieces."""
    key_line: int
    """In which of its lines that is."""
    gate: int
    """The rarest of its bytes."""

    @classmethod
    def compile(cls, text: str) -> "Pattern":
        """`*` stands for anything within a line, a newline for the end of a line, a backslash before one of
        `*` and itself takes its meaning away.

        :raises ValueError: for a pattern that is too long, has too many lines or nothing to search for.
        """
        data = text.encode()
        if len(data) > OVERLAP:
            raise ValueError(f"it is longer than {OVERLAP} bytes")
        lines = [_split(line) for line in data.split(b"\n")]
        last = len(lines) - 1
        parts = [Part(tuple(line), n > 0, n < last) for n, line in enumerate(lines)]
        # A newline before everything is the beginning of a line, and one after everything its end.
        parts = parts[parts[0].pieces == (b"",) and last > 0 :]
        if len(parts) > 1 and parts[-1].pieces == (b"",):
            del parts[-1]
        if len(parts) > MOST_LINES:
            raise ValueError(f"it has more than {MOST_LINES} lines")
        key_line, key = max(
            ((n, piece) for n, part in enumerate(parts) for piece in part.pieces),
            key=lambda found: len(found[1]),
        )
        if len(key) < LEAST:
            raise ValueError(f"it has no {LEAST} bytes in a row without a star or the end of a line")
        gate = max({byte for part in parts for piece in part.pieces for byte in piece}, key=_rarity)
        return cls(text, tuple(parts), key, key_line, gate)


def _split(line: bytes) -> list[bytes]:
    pieces = [b""]
    for token in re.findall(rb"\\[*\\]|.", line, re.DOTALL):
        if token == b"*":
            pieces.append(b"")
        else:
            pieces[-1] += token[1:] if len(token) == 2 else token
    return pieces


def _rarity(byte: int) -> int:
    place = _FREQUENT.find(byte)
    return len(_FREQUENT) + byte if place < 0 else place
