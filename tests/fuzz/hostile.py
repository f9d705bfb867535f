"""What nobody should send: bytes and JSON, from plain garbage to what is almost right."""

import json
from typing import Any

from hypothesis import strategies as st

AWKWARD_NUMBERS = (
    0,
    -1,
    1,
    2**31,
    2**63,
    -(2**63) - 1,
    2**64,
    10**400,
    0.5,
    -0.0,
    1e308,
    float("inf"),
    float("nan"),
)
AWKWARD_TEXT = (
    "",
    "\0",
    "\ud800",
    "\udcff",
    "\u202e",
    "\x1b[2J",
    "a\nb",
    "../..",
    "x" * 5000,
    "\U0001d518" * 50,
)

texts = st.one_of(st.sampled_from(AWKWARD_TEXT), st.text(max_size=8))
scalars = st.one_of(st.none(), st.booleans(), st.sampled_from(AWKWARD_NUMBERS), st.integers(), texts)


def _grow(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.lists(children, max_size=3), st.dictionaries(texts, children, max_size=3))


values: st.SearchStrategy[Any] = st.recursive(scalars, _grow, max_leaves=6)
"""What JSON can say, more or less."""

raw = st.one_of(
    st.binary(max_size=40),
    texts.map(lambda text: text.encode("utf-8", "surrogatepass")),
    texts.map(lambda text: text.encode("utf-16", "surrogatepass")),
    st.sampled_from(
        [b"{", b'{"a', b"\xff\xfe", b"\0" * 20, b"[1,2", b"null", b"{}", b'"text"', b"{}{}", b"nan"]
    ),
    st.integers(1, 3000).map(lambda depth: b"[" * depth + b"]" * depth),
    st.integers(1, 3000).map(lambda depth: b'{"a":' * depth + b"1" + b"}" * depth),
    st.integers(1, 20_000).map(lambda digits: b'{"return": ' + b"9" * digits + b"}"),
)
"""Bytes that are not meant to be anything, or break readers of what they look like."""


def encode(value: object) -> bytes:
    """As JSON; surrogates as escapes, `NaN` as Python writes and reads it."""
    return json.dumps(value).encode()


def split(data: bytes, sizes: list[int]) -> list[bytes]:
    """`data` in pieces of these sizes, one after the other and again."""
    pieces = []
    at = number = 0
    while at < len(data):
        size = sizes[number % len(sizes)] if sizes else len(data)
        pieces.append(data[at : at + size])
        at, number = at + size, number + 1
    return pieces


sizes = st.lists(st.integers(1, 30), max_size=5)


def mutate(data: bytes, places: list[tuple[int, int, bytes]]) -> bytes:
    """`data` with some pieces replaced: from where, how many bytes, by what."""
    for place, length, instead in places:
        at = place % (len(data) + 1)
        data = data[:at] + instead + data[at + length :]
    return data


mutations = st.lists(
    st.tuples(st.integers(0, 10**6), st.integers(0, 12), st.binary(max_size=6)), min_size=1, max_size=4
)
