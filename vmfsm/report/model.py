"""The data of a report: everything that a page, a text or a program shows of it."""

import datetime
import functools
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from vmfsm.errors import ConfigError
from vmfsm.jsonable import JSON

from . import clocks, comparing, machine
from .beside import Beside
from .machine import Launch
from .sources import PassedOver, Source, find
from .values import text

VERSION = 1
"""Of the fields (`docs/report.md`): another one when a field changes its meaning or goes."""
_IN_A_TITLE = 5
_MOST_PASSED_OVER = 200
_PHASE = re.compile(r" \((?:setup|call|teardown)\)$")


def data(
    sources: "Sequence[str | os.PathLike[str]]", *, compare: bool = False, page: str | None = None
) -> dict[str, JSON]:
    """What recordings tell, laid out for showing: see `docs/report.md`.

    Bounded, however large they are: of what is too much there is a sample, and it says so. Each file is read
    once; nothing else is waited for.

    :param sources: paths of recordings, of bundles, and of directories that have some.
    :param compare: two recordings are compared; each of them begins at 0.
    :param page: where the page will be. Text that is too long for it is written, whole, to files beside it,
        in the directory of its name with `-files`; without it that is nowhere.
    :raises ConfigError: for what is no recording, and for a page in the place of one.
    :raises OSError: when one can't be read, or what lies beside the page can't be written.
    """
    return _data(*find(sources), compare=compare, page=page)


def outcomes(sources: "Sequence[str | os.PathLike[str]]") -> dict[str, JSON]:
    """What `data` tells of how it went, for any number of recordings: those of a whole test run.

    There are `begin`, `length`, `passed_over` and `machines`, which have no lanes and no logs. Times are on
    one axis for the machines of one test only. It raises as `data` does.
    """
    tests: dict[str, list[Source]] = {}
    all_of_them, passed_over = find(sources, most=None)
    for source in sorted(all_of_them, key=_wall):
        tests.setdefault(source.test.rpartition(" (")[0] or source.path, []).append(source)
    machines: list[JSON] = []
    begins: list[datetime.datetime] = []
    ends: list[datetime.datetime] = []
    for found in tests.values():
        told: Any = _data(found, [], compare=False, page=None)
        machines += [{**one, "lanes": [], "logs": [], "screendump": None} for one in told["machines"]]
        begins.append(datetime.datetime.fromisoformat(told["begin"]))
        ends.append(begins[-1] + datetime.timedelta(seconds=told["length"]))
    begin = min(begins)
    length = round((max(ends) - begin).total_seconds(), 6)
    return {
        "begin": begin.isoformat(),
        "length": length,
        "machines": machines,
        "passed_over": [one._asdict() for one in passed_over[:_MOST_PASSED_OVER]],
    }


def _data(
    found: list[Source], passed_over: list[PassedOver], *, compare: bool, page: str | None
) -> dict[str, JSON]:
    if not compare:
        found.sort(key=_wall)
    elif len(found) != 2:
        raise ConfigError(f"two recordings can be compared, not {len(found)}", field="compare")
    if page is not None:
        _check_is_none_of(page, found)
    with Beside(page) as beside:
        launches = [
            machine.read(
                source,
                1 / len(found),
                functools.partial(beside.file, f"m{number}"),
                beside.relative(source.recording.files[0]) if page is not None else None,
            )
            for number, source in enumerate(found)
        ]
        zeros = [launch.begin for launch in launches] if compare else _common_zero(launches)
        machines = [
            machine.told(
                launch, f"m{number}", zero, beside, by_wall_clock=not compare and _is_apart(launches, number)
            )
            for number, (launch, zero) in enumerate(zip(launches, zeros, strict=True))
        ]
    tests = _tests(found)
    return {
        "version": VERSION,
        "vmfsm": _own_version(),
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "title": _title(launches, 1 if compare else len(tests)),
        "test": (found[0].test if len(tests) == 1 else None) or None,
        "begin": _moment(found[0], zeros[0]),
        "length": round(max(launch.end - zero for launch, zero in zip(launches, zeros, strict=True)), 6),
        "primary": _primary(launches, zeros),
        "machines": [*machines],
        "passed_over": [one._asdict() for one in passed_over[:_MOST_PASSED_OVER]],
        "comparison": _comparison(launches) if compare else None,
    }


def _check_is_none_of(page: str, found: Sequence[Source]) -> None:
    files = (file for one in found for file in one.recording.files)
    if os.path.exists(page) and any(os.path.samefile(page, file) for file in files if os.path.exists(file)):
        raise ConfigError(f"{page} is what the report is made of", field="page")


def _comparison(launches: Sequence[Launch]) -> JSON:
    names = [
        f"{letter}: {text(one.source.recording.name, 60)}" for letter, one in zip("AB", launches, strict=True)
    ]
    return comparing.compare(names, *(launch.lanes.spent for launch in launches))


def _wall(source: Source) -> float:
    return float(_clocks(source)["wall"])


def _clocks(source: Source) -> Mapping[str, float]:
    clocks = source.recording.header["clocks"]
    assert isinstance(clocks, dict)  # or it would be no recording
    return clocks  # type: ignore[return-value]


def _common_zero(launches: Sequence[Launch]) -> list[float]:
    """When the first record of all was made, on the clock of each."""
    headers = [launch.source.recording.header for launch in launches]
    shifts = clocks.shifts(headers)
    zero = min(launch.begin + shift for launch, shift in zip(launches, shifts, strict=True))
    return [zero - shift for shift in shifts]


def _is_apart(launches: Sequence[Launch], number: int) -> bool:
    """Whether its times were compared with those of the first one by wall clocks."""
    first, other = (launches[one].source.recording.header for one in (0, number))
    return number > 0 and not clocks.has_same(first, other)


def _moment(source: Source, at: float) -> str:
    try:
        return source.recording.time(at).isoformat()
    except OverflowError:  # somebody else's recording, with a clock of its own
        return source.recording.time(_clocks(source)["monotonic"]).isoformat()


def _tests(found: Sequence[Source]) -> list[str]:
    """What pytest said was running, whatever part of it."""
    return list(dict.fromkeys(_PHASE.sub("", source.test) for source in found))


def _title(launches: Sequence[Launch], tests: int) -> str:
    if tests > 1:
        failed = sum(launch.diagnosis.outcome == "failed" for launch in launches)
        return f"{len(launches)} machines of {tests} tests, {failed} failed"
    names = list(dict.fromkeys(text(launch.source.recording.name, 200) for launch in launches))
    return ", ".join(names[:_IN_A_TITLE]) + (" and more" if len(names) > _IN_A_TITLE else "")


def _primary(launches: Sequence[Launch], zeros: Sequence[float]) -> str | None:
    """The machine whose failure came first."""
    failures = [
        ((launch.end if launch.diagnosis.at is None else launch.diagnosis.at) - zero, number)
        for number, (launch, zero) in enumerate(zip(launches, zeros, strict=True))
        if launch.diagnosis.outcome == "failed"
    ]
    return f"m{min(failures)[1]}" if failures else None


def _own_version() -> str | None:
    from importlib import metadata

    try:
        return metadata.version("vmfsm")
    except metadata.PackageNotFoundError:  # used from its sources
        return None
