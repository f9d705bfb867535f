"""The data of a report: everything that a page, a text or a program shows of it."""

import datetime
import os
from collections.abc import Sequence

from vmfsm.jsonable import JSON

from . import machine, sources
from .lanes import Limits

VERSION = 1
_ITEMS = 2_400
_LOG = 1_500_000


def data(given: "Sequence[str | os.PathLike[str]]", *, compare: bool = False) -> dict[str, JSON]:
    """What recordings tell, laid out for showing: see `docs/report.md`. Bounded, however large they are.

    :param given: paths of recordings, or of directories that have some.
    :param compare: two of them, side by side.
    :raises ConfigError: for what is no recording.
    :raises OSError: when one can't be read.
    """
    found = sources.find(given)
    limits = Limits(max(_ITEMS // len(found), 40), max(_LOG // len(found), 20_000))
    begun = [machine.read(source, limits, lambda _: None) for source in found]
    first = min(begun, key=lambda one: one.begin)
    zero = first.begin
    machines = [machine.told(one, f"m{number}", zero) for number, one in enumerate(begun)]
    failed = [(one.failed_at, number) for number, one in enumerate(begun) if one.failed_at is not None]
    harness = first.source.recording.header.get("harness")
    test = harness.get("test") if isinstance(harness, dict) else None
    return {
        "version": VERSION,
        "vmfsm": _own_version(),
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "title": ", ".join(dict.fromkeys(str(one["name"]) for one in machines)),
        "test": test if isinstance(test, str) else None,
        "begin": first.source.recording.time(zero).isoformat(),
        "length": round(max(one.end for one in begun) - zero, 6),
        "primary": f"m{min(failed)[1]}" if failed else None,
        "machines": [*machines],
        "comparison": None,
    }


def _own_version() -> str | None:
    from importlib import metadata

    try:
        return metadata.version("vmfsm")
    except metadata.PackageNotFoundError:  # used from its sources
        return None
