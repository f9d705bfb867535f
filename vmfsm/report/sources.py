"""What a report is made of: recordings, found by the paths that were given."""

import os
from collections.abc import Sequence
from typing import NamedTuple

from vmfsm import recording
from vmfsm.errors import ConfigError
from vmfsm.jsonable import JSON
from vmfsm.recording import Recording


class Source(NamedTuple):
    """A recording, and what lies beside it."""

    path: str
    """Its first file."""
    recording: Recording
    snapshot: dict[str, JSON] | None = None


def find(paths: "Sequence[str | os.PathLike[str]]") -> list[Source]:
    """All recordings that are meant, each once.

    :raises ConfigError: for what is none.
    :raises OSError: for what can't be read.
    """
    found: dict[str, Source] = {}
    for given in paths:
        path = os.fspath(given)
        names = sorted(os.listdir(path)) if os.path.isdir(path) else [""]
        files = [os.path.join(path, name) for name in names if name.endswith(".jsonl")]
        if os.path.isdir(path) and not files:
            raise ConfigError(f"{path}: there is no recording in it", field="sources")
        for file in files if os.path.isdir(path) else [path]:
            one = recording.read(file)
            found.setdefault(os.path.realpath(one.files[0]), Source(one.files[0], one))
    return list(found.values())
