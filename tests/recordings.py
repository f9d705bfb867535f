"""Recordings as tests look at them: each line held to the schema."""

import collections
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from tests.waiting import until
from vmfsm import Machine, recording

MOST_OF_A_KIND = 20
"""Lines that are held to the schema, which takes a while."""


@functools.cache
def validator() -> Draft202012Validator:
    schema = recording.schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def lines_of(path: Path) -> Iterator[Any]:
    """Those of one file, each of which must be whole, and as documented."""
    data = path.read_bytes()
    assert data.isascii()
    assert data.endswith(b"\n"), "whole lines"
    kinds: collections.Counter[str] = collections.Counter()
    for number, line in enumerate(data.splitlines()):
        value = json.loads(line)
        kinds[value.get("kind")] += 1
        if kinds[value.get("kind")] <= MOST_OF_A_KIND:
            validator().validate(value)
        assert ("format" in value) == (number == 0), "one header, and that first"
        yield value


def files_in(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.jsonl*"))


def path_of(vm: Machine) -> str:
    """Its first file, as soon as there is one."""
    recorder = vm.plugin("recorder")
    until(lambda: recorder.path)
    return str(recorder.path)


def written(vm: Machine) -> recording.Recording:
    """That of the last launch, as soon as it has the state that the machine is in."""
    until(lambda: recording.read(path_of(vm)).snapshot()["state"] == vm.state.value)
    return read(path_of(vm))


def read(path: object) -> recording.Recording:
    """One all of whose lines are as documented."""
    assert isinstance(path, str)
    found = recording.read(path)
    for file in found.files:
        assert list(lines_of(Path(file)))
    return found
