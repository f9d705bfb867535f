"""Whatever a record holds has a form in JSON."""

import json
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from vmfsm import State, jsonable


class Rude:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (7, 7),
        (0.5, 0.5),
        ("text", "text"),
        ("half a character \udcff", "half a character \\udcff"),
        (b"raw \xff", "raw \\xff"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (State.RUNNING, "running"),
        (pathlib.Path("/a/b"), "/a/b"),
        ((1, (2, 3)), [1, [2, 3]]),
        (frozenset({1}), [1]),
        ({"a": {1: b"x", None: 2}}, {"a": {"1": "x", "None": 2}}),
        (1 + 2j, "(1+2j)"),
        (Rude(), "<Rude>"),
        ((Rude(), 1), ["<Rude>", 1]),
        (2**1024 - 1, 2**1024 - 1),
        (2**1024, hex(2**1024)),
        (-(10**5000), hex(-(10**5000))),
        ({(1, 2): "a", State.RUNNING: "b"}, {"(1, 2)": "a", "running": "b"}),
    ],
    ids=range(21),
)
def test_what_becomes_of_it(value: object, expected: object) -> None:
    assert jsonable(value) == expected
    assert json.loads(json.dumps(jsonable(value), allow_nan=False)) == expected


def test_what_holds_itself_has_an_end() -> None:
    endless: dict[str, object] = {}
    endless["again"] = endless
    assert json.dumps(jsonable(endless), allow_nan=False).count("again") == 50


@pytest.mark.parametrize("hold_twice", [lambda it: [it, it], lambda it: {"a": it, "b": it}])
def test_what_holds_itself_twice_has_an_end(hold_twice: Callable[[object], object]) -> None:
    """Sixty levels, of which each doubles what there is to say."""
    value: object = "it"
    for _ in range(60):
        value = hold_twice(value)
    assert len(json.dumps(jsonable(value))) < 2_000_000


def test_what_is_too_much_is_left_out() -> None:
    assert jsonable(range(10**12)) == list(range(99_999))
    assert jsonable({"first": 1, "much": range(10**12), "last": 2}) == {
        "first": 1,
        "much": list(range(99_997)),
    }


class Changing(dict[str, int]):
    """As if another thread changed it meanwhile."""

    def items(self) -> Any:
        for item in super().items():
            yield item
            raise RuntimeError("dictionary changed size during iteration")


def test_what_changes_meanwhile_is_named() -> None:
    assert jsonable({"whole": 1, "changing": Changing(a=1)}) == {"whole": 1, "changing": "<Changing>"}


def test_the_result_is_a_copy() -> None:
    value = {"list": [1]}
    copy = jsonable(value)
    assert isinstance(copy, Mapping)
    value["list"].append(2)
    assert copy["list"] == [1]
