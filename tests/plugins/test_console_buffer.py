"""The end of a stream: bounded, and bytes and characters tied to each other."""

import codecs
import itertools
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vmfsm_plugins.streams.buffer import Buffer, Position

hostile = st.one_of(
    st.binary(max_size=12), st.text(max_size=6).map(lambda text: text.encode("utf-8", "surrogatepass"))
)


@given(st.lists(hostile, max_size=30), st.integers(1, 60))
def test_holds_the_last_bytes_and_their_text(pieces: list[bytes], limit: int) -> None:
    buffer = Buffer(limit, "utf-8", "replace")
    for piece in pieces:
        buffer.append(piece)
    buffer.finish()
    everything = b"".join(pieces)
    text = everything.decode("utf-8", "replace")
    view = buffer.view()
    assert view.data() == everything[-limit:]
    assert text.endswith(view.text())
    assert view.end == Position(len(everything), len(text))
    assert view.start.char == len(text) - len(view.text())
    if len(everything) <= limit:
        assert view.text() == text


@given(st.lists(hostile, max_size=20), st.sampled_from(["utf-8", "utf-16-le", "latin-1", "shift_jis"]))
def test_bytes_and_characters_are_tied(pieces: list[bytes], encoding: str) -> None:
    buffer = Buffer(10**6, encoding, "replace")
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    everything = b"".join(pieces)
    chars = [0, *itertools.accumulate(len(decoder.decode(bytes([byte]))) for byte in everything)]
    for piece in pieces:
        buffer.append(piece)
    view = buffer.view()
    for byte, char in enumerate(chars):
        assert view.at_byte(byte) == (byte, char)
        assert view.at_char(char) == (chars.index(char), char)
        assert view.data(view.at_byte(byte)) == everything[byte:]


@given(st.lists(hostile), st.sampled_from(["utf-16", "utf-32", "utf-7", "utf-8-sig", "idna", "punycode"]))
def test_no_encoding_can_break_it(pieces: list[bytes], encoding: str) -> None:
    buffer = Buffer(10, encoding, "replace")
    for piece in pieces:
        buffer.append(piece)
    buffer.finish()
    view = buffer.view()
    assert view.data() == b"".join(pieces)[-10:]
    view.at_char(view.start.char + 1)


def test_memory_is_bounded_however_the_bytes_come() -> None:
    limit = 100_000
    for size in (1, 7, 65536):
        buffer = Buffer(limit, "utf-8", "replace")
        for _ in range(1_000_000 // size if size > 1 else 150_000):
            buffer.append(b"x" * size)
        held = sum(sys.getsizeof(chunk) + len(chunk.data) + len(chunk.text) for chunk in buffer._chunks)
        assert held < 2 * (limit + 65536) + 10_000
        assert len(buffer.view().data()) == limit


def test_readers_in_other_threads_see_whole_views() -> None:
    buffer = Buffer(50_000, "utf-8", "replace")
    stop = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not stop.is_set():
            view = buffer.view()
            data = view.data()
            if data != bytes((view.start.byte + i) % 251 for i in range(len(data))):
                wrong.append((view.start, len(data)))
            if view.end.byte - view.start.byte != len(data):
                wrong.append((view.start, view.end))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    period = bytes(range(251)) * 300
    written = 0
    for step in range(3000):
        size = step * 37 % 9000
        begin = written % 251
        buffer.append(period[begin : begin + size])
        written += size
    stop.set()
    for reader in readers:
        reader.join()
    assert wrong == []


@pytest.mark.parametrize("origin", [Position(0, 0), Position(100, 90)])
def test_counts_from_its_origin(origin: Position) -> None:
    buffer = Buffer(10, "utf-8", "replace", origin)
    assert buffer.view().start == buffer.view().end == origin
    buffer.append("äb".encode())
    assert buffer.view().start == origin
    assert buffer.end == Position(origin.byte + 3, origin.char + 2)
    assert buffer.view().text(Position(0, origin.char + 1)) == "b"
