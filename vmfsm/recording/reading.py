"""The lines of a recording, over all of its files."""

import datetime
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from typing import IO, Any, NamedTuple, TypeGuard

from vmfsm import proc
from vmfsm.errors import ConfigError
from vmfsm.jsonable import JSON
from vmfsm.paths import check_path
from vmfsm.timeline import Record

FORMAT = "vmfsm-recording"
VERSION = 1
"""Of the format. Fields and kinds of records may be added to it; for anything else it changes."""

_LONGEST_HEADER = 16 * 1024 * 1024
_LONGEST_LINE = 2 * 1024 * 1024
"""Bytes; the recorder writes half of that. Some dozens of records are kept while a recording is read."""
_BATCH, _MOST_LINES = 256 * 1024, 4096
_MOST_PROBLEMS = 100
_LONGEST_PROBLEM = 500
_NAME = re.compile(r"(.*\.jsonl)(?:\.[0-9]{1,9})?", re.DOTALL)
_CLOCK_PUT_RIGHT = 60.0
"""Seconds by which a host's clock may have been, since the recording was begun."""
_FINAL = frozenset({"stopped", "failed"})


class _File(NamedTuple):
    number: int
    path: str
    header: dict[str, Any]


class _Problems:
    """The first hundred, however many there are."""

    def __init__(self) -> None:
        self._first: list[str] = []
        self._more = 0

    def add(self, problem: str) -> None:
        if len(self._first) < _MOST_PROBLEMS:
            self._first.append(problem[:_LONGEST_PROBLEM])
        else:
            self._more += 1

    def told(self) -> tuple[str, ...]:
        return (*self._first, *([f"and {self._more} more"] if self._more else ()))


def _what_became_of(header: Mapping[str, Any]) -> str:
    """Of the harness of a recording without an end, as far as that can be known from here."""
    unknown = "was killed, or goes on"
    try:
        if header["host"]["name"] != os.uname().nodename:
            return unknown
        proc.pid_namespace()  # so that the next line is about processes that are seen here
        harness = proc.identify(header["harness"]["pid"])
        if harness is None or not harness.is_alive:
            return "was killed"
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - harness.start_time / os.sysconf("SC_CLK_TCK")
        is_another = time.time() - age > header["clocks"]["wall"] + _CLOCK_PUT_RIGHT
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        return unknown  # another system's, or made by somebody else
    return "was killed" if is_another else "goes on"


class Recording:
    """What was recorded of one launch. Made by `read`; the files are read anew by each of its methods.

    A recording that is being written may be read at any time, up to its last whole line.
    """

    def __init__(self, files: tuple[_File, ...]) -> None:
        self._files = files
        self._problems: tuple[str, ...] | None = None

    @property
    def header(self) -> dict[str, JSON]:
        """What its first line says: see `docs/recorder.md`."""
        return self._files[0].header

    @property
    def name(self) -> str:
        """The machine's."""
        return str(self._files[0].header["name"])

    @property
    def files(self) -> tuple[str, ...]:
        """Their paths, in order."""
        return tuple(file.path for file in self._files)

    @property
    def problems(self) -> tuple[str, ...]:
        """What is missing or damaged, in words, and that there is no end; the first hundred. Reads the files.

        :raises OSError: when they can't be read.
        """
        if self._problems is None:
            for _ in self.records():
                pass
        return self._problems or ()

    def records(self) -> Iterator[Record]:
        """All records, in order, read as they are asked for: files may be larger than memory.

        Where some are missing between two files there is one of kind `dropped` that says how many.

        :raises OSError: when a file can't be read.
        """
        problems = _Problems()
        lines, at, state = 0, None, ""
        for file in self._files:
            missing = file.header["before"] - lines
            if missing > 0:
                problems.add(f"{missing} records before {_name(file.path)} were removed to make room")
                data = {"records": missing, "error": "removed to make room"}
                yield Record("dropped", file.header["clocks"]["monotonic"] if at is None else at, data)
                lines += missing
            for found in _records(file.path, problems):
                lines += 1
                if found is not None:
                    at = found.at
                    if found.kind == "transition":
                        state = str(found.data.get("dest"))
                    elif found.kind == "dropped":
                        problems.add(_lost(found))
                    yield found
        if state not in _FINAL:
            what = f"in state {state}" if state else "before anything happened"
            problems.add(f"it ends {what}: its harness {_what_became_of(self._files[0].header)}")
        self._problems = problems.told()

    def time(self, at: float) -> datetime.datetime:
        """When that was, in UTC, for the `at` of a record.

        :raises OverflowError: for what is no time.
        """
        of_files = [file.header["clocks"] for file in self._files]  # anew in each: both may go differently
        clocks = [clocks for clocks in of_files if clocks["monotonic"] <= at][-1:] or of_files[:1]
        since = clocks[0]["wall"] - clocks[0]["monotonic"] + at
        try:
            return datetime.datetime.fromtimestamp(since, datetime.UTC)
        except (ValueError, OSError) as error:
            raise OverflowError(f"{at} is no time: {error}") from error

    def snapshot(self) -> dict[str, JSON]:
        """The picture that `Machine.snapshot` gives, of when the last record was made. Reads the files.

        What records do not tell is `None` or empty. `recording` is added: `files` and `problems`.

        :raises OSError: when they can't be read.
        """
        from .picture import Picture

        picture = Picture(self.header)
        for record in self.records():
            picture.add(record)
        return {
            **picture.snapshot(self.time(picture.now)),
            "recording": {"files": list(self.files), "problems": list(self.problems)},
        }


def read(path: "str | os.PathLike[str]") -> Recording:
    """The recording that one of whose files is `path`; the others are found beside it.

    :raises ConfigError: when it is none.
    :raises OSError: when it can't be read.
    """
    path = check_path(path, field="path")
    header = _header(path)
    if header is None:
        raise ConfigError(f"{path} is no recording of vmfsm, or lacks its first line", field="path")
    if header["version"] != VERSION:
        said = f"{path}: a recording of version {header['version']}: only {VERSION} is known here"
        raise ConfigError(said, field="path")
    files = {path: _File(header["piece"], path, header)}
    match = _NAME.fullmatch(os.path.basename(path))
    if match is not None:
        directory = os.path.dirname(path)
        for name in os.listdir(directory or "."):
            other = _NAME.fullmatch(name)
            beside = os.path.join(directory, name)
            if other is None or other[1] != match[1] or beside in files or not os.path.isfile(beside):
                continue
            try:
                found = _header(beside)
            except OSError:  # removed in this moment, or somebody else's
                continue
            if found is not None and found["recording"] == header["recording"]:
                files[beside] = _File(found["piece"], beside, found)
    return Recording(tuple(sorted(files.values(), key=lambda file: file.number)))


def _header(path: str) -> dict[str, Any] | None:
    with open(path, "rb") as file:
        header = _parsed(file.readline(_LONGEST_HEADER))
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        return None
    clocks = header.get("clocks")
    if not isinstance(clocks, dict):
        return None
    texts = (header.get("name"), header.get("recording"))
    numbers = (header.get("version"), header.get("piece"), header.get("before"))
    times = (clocks.get("monotonic"), clocks.get("wall"))
    is_whole = (
        all(isinstance(text, str) for text in texts)
        and all(type(number) is int and number >= 0 for number in numbers)
        and all(_is_time(time) for time in times)
    )
    return header if is_whole else None


def _records(path: str, problems: _Problems) -> Iterator[Record | None]:
    """Those of one file; `None` for each that is damaged."""
    try:
        file = open(path, "rb")  # noqa: SIM115 - see below
    except FileNotFoundError:  # removed since, to make room: they are missing before the next file
        return
    with file:
        file.readline(_LONGEST_HEADER)
        number = 1
        for lines in _batches(file):
            for line, value in zip(lines, _all_parsed(lines), strict=True):
                number += 1
                record = _record(value)
                if record is None:
                    is_cut = not _skip_rest(file, line)
                    what = "is cut off: that is where writing ended" if is_cut else "is damaged, and left out"
                    problems.add(f"{_name(path)}, line {number} {what}")
                yield record


def _batches(file: IO[bytes]) -> Iterator[list[bytes]]:
    """The lines of a file, some at once. One that has no end is the last of its batch."""
    lines: list[bytes] = []
    size = 0
    while line := file.readline(_LONGEST_LINE):
        lines.append(line)
        size += len(line)
        if size > _BATCH or len(lines) == _MOST_LINES or not line.endswith(b"\n"):
            yield lines
            lines, size = [], 0
    if lines:
        yield lines


def _skip_rest(file: IO[bytes], line: bytes) -> bool:
    """Whether the line has an end."""
    while line and not line.endswith(b"\n"):
        line = file.readline(_LONGEST_LINE)
    return bool(line)


def _all_parsed(lines: list[bytes]) -> list[object]:
    """Each of them. They are parsed at once, which takes a third less time, unless one is damaged."""
    values = _parsed(b"[%b]" % b",".join(lines))
    is_whole = isinstance(values, list) and len(values) == len(lines)
    return values if is_whole else [_parsed(line) for line in lines]  # type: ignore[return-value]


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None


def _record(value: object) -> Record | None:
    if type(value) is dict:
        at, kind, data = value.get("at"), value.get("kind"), value.get("data")
        if type(kind) is str and type(data) is dict and _is_time(at):
            return Record(kind, at, data)
    return None


def _is_time(value: object) -> TypeGuard[float]:
    """Seconds: no sum of three leaves the years that a `datetime` has."""
    return (type(value) is float or type(value) is int) and -2e10 < value < 2e10


def _lost(record: Record) -> str:
    why = record.data.get("error") or "they came too fast"
    return f"{record.data.get('records')} records were not written: {why}"


def _name(path: str) -> str:
    return os.path.basename(path)
