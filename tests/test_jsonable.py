"""Whatever a record holds has a form in JSON."""

import json
import math
import pathlib
from collections.abc import Mapping

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
    ],
)
def test_what_becomes_of_it(value: object, expected: object) -> None:
    assert jsonable(value) == expected
    assert json.loads(json.dumps(jsonable(value), allow_nan=False)) == expected


def test_what_holds_itself_has_an_end() -> None:
    endless: dict[str, object] = {}
    endless["again"] = endless
    assert json.dumps(jsonable(endless), allow_nan=False).count("again") > 50


def test_the_result_is_a_copy() -> None:
    value = {"list": [1]}
    copy = jsonable(value)
    assert isinstance(copy, Mapping)
    value["list"].append(2)
    assert copy["list"] == [1]
