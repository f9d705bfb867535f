"""The end of a stream of bytes, kept within a bound, as bytes and as text.

Bytes and characters are numbered from the beginning of the stream, so a position means the same whatever has
fallen out of the buffer meanwhile. The two numberings are tied to each other exactly, also where bytes are no
characters: what was decoded once is decoded again, up to the place in question, from the decoder's state at
the beginning of the chunk.
"""

import bisect
import codecs
from typing import Any, NamedTuple

# Characters may come one by one: small chunks are joined, so that objects don't outweigh what they hold.
_SMALL = 16 * 1024


class Position(NamedTuple):
    """A place in the stream, as the number of bytes and of characters before it."""

    byte: int
    char: int


BEGINNING = Position(0, 0)


class Chunk(NamedTuple):
    """Consecutive bytes, and the characters that were completed by them."""

    start: Position
    data: bytes
    text: str
    state: Any
    """The decoder's, before `data`."""

    @property
    def end(self) -> Position:
        return Position(self.start.byte + len(self.data), self.start.char + len(self.text))

    @property
    def is_plain(self) -> bool:
        """Every byte is a character."""
        return len(self.data) == len(self.text) and self.text.isascii() and not self.state[0]


class View:
    """What a buffer held at one moment. Immutable, for any thread."""

    def __init__(self, chunks: list[Chunk], origin: Position, limit: int, buffer: "Buffer") -> None:
        self._chunks = chunks
        self._buffer = buffer
        self.end = chunks[-1].end if chunks else origin
        self.start = self.end
        """Where the kept part begins."""
        if chunks:
            self.start = self.at_byte(max(chunks[0].start.byte, self.end.byte - limit))

    def at_byte(self, byte: int) -> Position:
        """The position after `byte` bytes. Of a character cut by it nothing counts as seen."""
        for chunk in self._chunks:
            if byte < chunk.end.byte:
                offset = max(0, byte - chunk.start.byte)
                chars = offset if chunk.is_plain else self._buffer.count(chunk, offset)
                return Position(chunk.start.byte + offset, chunk.start.char + chars)
        return self.end

    def at_char(self, char: int) -> Position:
        """The position after `char` characters: of the first byte that completes them."""
        for chunk in self._chunks:
            if char <= chunk.end.char:
                chars = max(0, char - chunk.start.char)
                offset = chars
                if not chunk.is_plain:
                    lengths = range(len(chunk.data) + 1)
                    offset = bisect.bisect_left(
                        lengths, chars, key=lambda length: self._buffer.count(chunk, length)
                    )
                return Position(chunk.start.byte + offset, chunk.start.char + chars)
        return self.end

    def clamp(self, position: Position) -> Position:
        """`position`, or the beginning of what is kept if that is later."""
        return (
            position if position.byte >= self.start.byte and position.char >= self.start.char else self.start
        )

    def text(self, start: Position | None = None) -> str:
        """The text from `start` on, or all that is kept."""
        char = (start or self.start).char
        return "".join(
            chunk.text[max(0, char - chunk.start.char) :] for chunk in self._chunks if chunk.end.char > char
        )

    def data(self, start: Position | None = None, most: int | None = None) -> bytes:
        """The bytes from `start` on (all that are kept), `most` of them at most."""
        byte = (start or self.start).byte
        parts: list[bytes] = []
        size = 0
        for chunk in self._chunks:
            if chunk.end.byte > byte:
                parts.append(chunk.data[max(0, byte - chunk.start.byte) :])
                size += len(parts[-1])
                if most is not None and size >= most:
                    break
        return b"".join(parts)[:most]

    def tail(self, most: int) -> str:
        """The text of about the last `most` bytes."""
        return self.text(self.clamp(self.at_byte(self.end.byte - most)))


class Buffer:
    """The last `limit` bytes of a stream.

    `append` and `finish` are for one thread, everything else is for any and never waits.

    :param origin: the number of the first byte and character, where a later stream goes on counting.
    """

    def __init__(self, limit: int, encoding: str, errors: str, origin: Position = BEGINNING) -> None:
        self.limit = limit
        self.end = origin
        self._origin = origin
        self._decoder_class = codecs.getincrementaldecoder(encoding)
        self._errors = errors
        self._decoder = self._decoder_class(errors)
        # Whole chunks, so up to one more than the limit. Chunks are immutable and a slice of a list is made
        # in one go, so that readers in other threads need no lock.
        self._chunks: list[Chunk] = []

    def append(self, data: bytes) -> str:
        """Add what came; the characters that it completed."""
        state = self._decoder.getstate()
        text = _decode(self._decoder, data)
        chunks = self._chunks
        if chunks and len(chunks[-1].data) + len(data) <= _SMALL:
            last = chunks[-1]
            chunks[-1] = last._replace(data=last.data + data, text=last.text + text)
        else:
            chunks.append(Chunk(self.end, data, text, state))
        self.end = chunks[-1].end
        outside = 0
        while outside + 1 < len(chunks) and self.end.byte - chunks[outside + 1].start.byte >= self.limit:
            outside += 1
        if outside:
            del chunks[:outside]
        return text

    def finish(self) -> str:
        """The stream has ended: what is left of an unfinished character."""
        text = _decode(self._decoder, b"", final=True)
        if text and self._chunks:
            last = self._chunks[-1]
            self._chunks[-1] = last._replace(text=last.text + text)
            self.end = self._chunks[-1].end
        return text

    def view(self) -> View:
        """What is kept at this moment."""
        return View(self._chunks[:], self._origin, self.limit, self)

    def count(self, chunk: Chunk, length: int) -> int:
        """How many characters the first `length` bytes of `chunk` complete."""
        if length == len(chunk.data):
            return len(chunk.text)
        decoder = self._decoder_class(self._errors)
        decoder.setstate(chunk.state)
        return len(_decode(decoder, chunk.data[:length]))


def _decode(decoder: codecs.IncrementalDecoder, data: bytes, *, final: bool = False) -> str:
    try:
        return decoder.decode(data, final)
    except (
        UnicodeError
    ):  # some refuse, whatever they are told to do about errors: UTF-16 without its mark, say
        decoder.reset()
        return "\ufffd"
