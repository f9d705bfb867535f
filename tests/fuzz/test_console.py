"""What comes from a console, however it is cut and in whatever encoding: the same text, the same places."""

import codecs
import encodings
import pkgutil
import re
import warnings
from typing import Any
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from vmfsm_plugins.console.expect import Cursor, Search
from vmfsm_plugins.streams import buffer as buffers
from vmfsm_plugins.streams.buffer import Buffer

from tests.fuzz.effort import tries
from tests.fuzz.hostile import sizes, split
from vmfsm import ConfigError

PLENTY = 10**6


def _is_of_text(name: str) -> bool:
    """It decodes bytes to text, piece by piece, and obeys when told to replace what is wrong."""
    try:
        "".encode(name)  # LookupError: it is not of text
        decoder: Any = codecs.getincrementaldecoder(name)("replace")
        text = [decoder.decode(bytes([byte])) for byte in range(256)] + [decoder.decode(b"", True)]
    except (LookupError, UnicodeError, ValueError):
        return False
    return all(isinstance(part, str) for part in text)


_OF_SOURCE_CODE = {"unicode_escape", "raw_unicode_escape"}
"""Python's, which warn of what is wrong."""
_NAMES = {module.name for module in pkgutil.iter_modules(encodings.__path__)}
ENCODINGS = sorted(filter(_is_of_text, _NAMES - _OF_SOURCE_CODE))

_SEVERAL_BYTES = ["utf_8", "utf_16_le", "utf_32_be", "utf_7", "iso2022_jp", "shift_jis", "gb18030"]
"""Where a character may be cut; most of all have none of those."""
codings = st.one_of(st.sampled_from(_SEVERAL_BYTES), st.sampled_from(ENCODINGS))

characters = st.one_of(
    st.binary(max_size=8), st.text(max_size=4).map(lambda text: text.encode("utf-8", "replace"))
)
escapes = st.sampled_from(
    [b"\x1b[2J", b"\r\n", b"\r", b"\0", b"\x1b$B", b"\x0e\x0f", b"\xff\xfe", b"+AGE-", b"login: "]
)
streams = st.lists(st.one_of(characters, escapes), max_size=12).map(b"".join)


joined = st.sampled_from([0, 7, 16 * 1024])
"""Up to how many bytes are joined to one chunk: of so few, all of a stream would be one."""


def decoded(data: bytes, encoding: str) -> str:
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    return decoder.decode(data) + decoder.decode(b"", True)


@tries(80)
@given(streams, sizes, codings)
def test_text_is_the_same_however_it_is_cut(data: bytes, sizes: list[int], encoding: str) -> None:
    buffer = Buffer(PLENTY, encoding, "replace")
    parts = [buffer.append(piece) for piece in split(data, sizes)]
    parts.append(buffer.finish())
    assert "".join(parts) == buffer.view().text() == decoded(data, encoding)
    assert buffer.view().data() == data


@tries(80)
@given(streams, sizes, codings, st.integers(1, 40), joined)
def test_marks_lead_back_to_their_places(
    data: bytes, sizes: list[int], encoding: str, limit: int, joined: int
) -> None:
    buffer = Buffer(limit, encoding, "replace")
    marks = [(buffer.end, 0)]
    text = ""
    with mock.patch.object(buffers, "_SMALL", joined):
        for piece in split(data, sizes):
            text += buffer.append(piece)
            marks.append((buffer.end, len(text)))
            view = buffer.view()
            assert view.end.byte - view.start.byte == min(limit, view.end.byte)
            assert text.endswith(view.text())
    view = buffer.view()
    for mark, _ in marks:
        assert encoding not in _SEVERAL_BYTES or view.clamp(mark) != mark or view.at_byte(mark.byte) == mark
    text += buffer.finish()
    view = buffer.view()
    for mark, chars in marks:
        place = view.clamp(mark)
        if place == mark:
            assert view.text(mark) == text[chars:]
            assert view.data(mark) == data[mark.byte :]
            assert view.at_byte(mark.byte).byte == mark.byte
        else:
            assert place == view.start
        char = view.at_char(place.char)
        assert char.char == place.char
        assert char.byte <= place.byte
        assert view.at_byte(char.byte).char >= place.char, "it is the first byte that completes it"


def test_a_place_behind_a_character_that_began_in_the_chunk_before() -> None:
    buffer = Buffer(PLENTY, "utf-8", "replace")
    with mock.patch.object(buffers, "_SMALL", 4):
        buffer.append(b"aaaa\xe2")
        buffer.append(b"\x82\xac")
        mark = buffer.end
        buffer.append(b"b")
    assert len(buffer.view()._chunks) == 2
    assert buffer.view().at_byte(mark.byte) == mark == (7, 5)


@tries(80)
@given(streams, sizes, st.lists(st.integers(0, 5), max_size=6), joined)
def test_reading_gives_everything_once(
    data: bytes, sizes: list[int], portions: list[int], joined: int
) -> None:
    buffer = Buffer(PLENTY, "utf-8", "replace")
    cursor = Cursor(buffer, lambda skipped: None)
    read = ""
    with mock.patch.object(buffers, "_SMALL", joined):
        for number, piece in enumerate(split(data, sizes)):
            buffer.append(piece)
            read += cursor.take(portions[number % len(portions)] if portions else -1)
    buffer.finish()
    assert read + cursor.take() == decoded(data, "utf-8")
    assert cursor.unread == cursor.lost == 0


needles = st.sampled_from([b"login: ", b"\x1b[2J", b"#", "ä€".encode(), b"\0"])


@tries(80)
@given(streams, needles, streams, sizes, st.booleans(), joined)
def test_expect_finds_what_is_there_however_it_is_cut(
    before: bytes, needle: bytes, behind: bytes, sizes: list[int], as_bytes: bool, joined: int
) -> None:
    data = before + needle + behind
    pattern = re.escape(needle) if as_bytes else re.escape(needle.decode())
    haystack: Any = data if as_bytes else decoded(data, "utf-8")
    if (needle if as_bytes else needle.decode()) not in haystack:
        return  # what came before has swallowed its first byte
    buffer = Buffer(PLENTY, "utf-8", "replace")
    cursor = Cursor(buffer, lambda skipped: None)
    search = Search([b"never\xff" if as_bytes else "never\x01", pattern])
    found = None
    with mock.patch.object(buffers, "_SMALL", joined):
        for piece in split(data, sizes):
            buffer.append(piece)
            found = found or cursor.find(search)
    assert found is not None
    at = haystack.index(needle if as_bytes else needle.decode())
    assert (found.index, found.before) == (1, haystack[:at])
    buffer.finish()
    rest = cursor.take()
    if not as_bytes:
        assert found.before + found.match[0] + rest == haystack


@tries(60)
@given(streams, sizes, st.text(max_size=12) | st.binary(max_size=12))
def test_any_pattern(data: bytes, sizes: list[int], pattern: str | bytes) -> None:
    """It is one, or `ConfigError`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what a pattern may come to mean some day
        try:
            search = Search([pattern])
        except ConfigError:
            return
    buffer = Buffer(PLENTY, "utf-8", "replace")
    cursor = Cursor(buffer, lambda skipped: None)
    for piece in split(data, sizes):
        buffer.append(piece)
    buffer.finish()
    found = cursor.find(search)
    everything: Any = data if isinstance(pattern, bytes) else decoded(data, "utf-8")
    match = search._patterns[0].search(everything)
    assert (found and found.match.span()) == (match and match.span())
