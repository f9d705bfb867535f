"""What a report is made of: recordings and bundles, found by the paths that were given."""

import base64
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from vmfsm import recording
from vmfsm.errors import ConfigError
from vmfsm.paths import check_path
from vmfsm.recording import Recording

from .values import text

MOST = 200
"""Recordings in one report."""
_FORMAT, _VERSION = "vmfsm-bundle", 1
_LARGEST_JSON = 16 * 1024 * 1024
_LARGEST_PICTURE = 1024 * 1024
_MOST_FILES = 200
_PIECE = re.compile(r"(.*\.jsonl)(?:\.[0-9]{1,9})?", re.DOTALL)
_PLAIN_NAME = re.compile(r"\w[\w .,=@+-]{0,200}")
_PNG = b"\x89PNG\r\n\x1a\n"


class File(NamedTuple):
    """One of a bundle."""

    path: str
    what: str
    bytes: int


class Source(NamedTuple):
    """A recording, and what a bundle has besides."""

    path: str
    """As it may be shown."""
    recording: Recording
    snapshot: Mapping[str, Any]
    files: tuple[File, ...] = ()
    missing: tuple[tuple[str, str], ...] = ()
    """What could not be had, and why."""
    screendump: str | None = None
    """As a `data:` URI."""
    why: str = ""
    """What the bundle was made for."""
    bundle: str = ""
    """Its directory."""

    @property
    def test(self) -> str:
        """What pytest said was running."""
        harness = self.recording.header.get("harness")
        return text(harness.get("test"), 500) if isinstance(harness, dict) else ""


class PassedOver(NamedTuple):
    """What is in a directory that was given, and might tell something, but can't be read."""

    path: str
    why: str


def find(
    paths: "Sequence[str | os.PathLike[str]]", *, most: int | None = MOST
) -> tuple[list[Source], list[PassedOver]]:
    """All recordings that are meant, each once, and what in directories could not be read.

    A bundle and the recorder's own of one launch are one.

    :param most: more of them are refused.
    :raises ConfigError: for what is none, and where they are too many.
    :raises OSError: for what was given itself and can't be read.
    """
    found: dict[str, Source] = {}
    passed_over: list[PassedOver] = []
    for given in paths:
        path = check_path(given, field="sources")
        sources = _in_directory(path, passed_over) if os.path.isdir(path) else iter([_of_file(path)])
        are_any = False
        for source in sources:
            are_any = True
            found.setdefault(os.path.realpath(source.recording.files[0]), source)
            if most is not None and len(found) > most:
                said = f"there are more than {most} recordings: give those that belong together"
                raise ConfigError(said, field="sources")
        if not are_any:
            why = "".join(f"; {one.path}: {one.why}" for one in passed_over[:1])
            raise ConfigError(
                f"{path}: neither a bundle, nor a directory of recordings{why}", field="sources"
            )
    if not found:
        raise ConfigError("a report is made of one recording at least", field="sources")
    return [one for same in _by_launch(found.values()).values() for one in _joined(same)], passed_over


def _by_launch(sources: Iterable[Source]) -> dict[object, list[Source]]:
    found: dict[object, list[Source]] = {}
    for source in sources:
        found.setdefault(_launch(source), []).append(source)
    return found


def _launch(source: Source) -> object:
    """Equal for recordings of a launch; that of a bundle made without the recorder has no name of its own."""
    header = source.recording.header
    if header["recording"] == "recording":
        return source.path
    harness, host = header.get("harness"), header.get("host")
    pid = harness.get("pid") if isinstance(harness, dict) else None
    name = host.get("name") if isinstance(host, dict) else None
    return repr((header["recording"], header["name"], header.get("launch"), pid, name))


def _joined(same: Sequence[Source]) -> Iterator[Source]:
    """The recorder's goes on to the end of the launch, that of a bundle until this was made."""
    bundles = [source for source in same if source.bundle]
    others = [source for source in same if not source.bundle]
    if not bundles:
        yield from others
        return
    last = bundles[-1]
    of_recorder = others[0] if others else last
    yield last._replace(
        path=of_recorder.path,
        recording=of_recorder.recording,
        files=tuple(file for bundle in bundles for file in bundle.files),
        missing=tuple(one for bundle in bundles for one in bundle.missing),
    )
    yield from others[1:]


def page_of(source: str) -> str:
    """Where the page is put that is made of something, where nobody says so."""
    if os.path.isdir(source):
        return os.path.join(source, "report.html")
    if os.path.basename(source) == "bundle.json":
        return os.path.join(os.path.dirname(source), "report.html")
    match = _PIECE.fullmatch(source)
    return f"{match[1].removesuffix('.jsonl') if match else source}.html"


def _of_file(path: str) -> Source:
    if os.path.exists(path) and not os.path.isfile(path):
        raise ConfigError(
            f"{path} is no file, and no directory", field="sources"
        )  # a pipe would be waited for
    if os.path.basename(path) == "bundle.json":
        return _bundle(os.path.dirname(path) or ".")
    it = recording.read(path)
    return Source(it.files[0], it, {})


def _in_directory(directory: str, passed_over: list[PassedOver]) -> Iterator[Source]:
    """The bundle that it is, or else the recordings and bundles that are in it; what is neither is passed."""
    if _is_bundle(directory):
        yield _bundle(directory)
        return
    seen = set()
    for name in sorted(os.listdir(directory)):
        path = os.path.join(directory, name)
        match = _PIECE.fullmatch(name)
        is_bundle = os.path.isdir(path) and _is_bundle(path)
        is_recording = match is not None and match[1] not in seen and os.path.isfile(path)
        if is_bundle or is_recording:
            try:
                source = _bundle(path) if is_bundle else _of_file(path)
            except (ConfigError, OSError) as error:
                said = (
                    error.strerror
                    if isinstance(error, OSError)
                    else str(error).removeprefix(path).lstrip(": ")
                )
                passed_over.append(PassedOver(path, text(said, 1_000)))
                continue
            if match is not None:
                seen.add(match[1])
            yield source


def _is_bundle(directory: str) -> bool:
    return os.path.isfile(os.path.join(directory, "bundle.json"))


def _bundle(directory: str) -> Source:
    about = _json(os.path.join(directory, "bundle.json"))
    if about.get("format") != _FORMAT:
        raise ConfigError(f"{directory}: its bundle.json is none of vmfsm", field="sources")
    if about.get("version") != _VERSION:
        said = f"{directory}: a bundle of version {text(about.get('version'))}: only {_VERSION} is known here"
        raise ConfigError(said, field="sources")
    path = os.path.join(directory, "recording.jsonl")
    if not os.path.isfile(path):
        raise ConfigError(f"{directory}: this bundle has no recording.jsonl", field="sources")
    snapshot = os.path.join(directory, "snapshot.json")
    return Source(
        directory,
        recording.read(path),
        _json(snapshot) if os.path.isfile(snapshot) else {},
        tuple(_files(directory, about.get("files"))),
        tuple((text(one.get("what")), text(one.get("why"), 1_000)) for one in _objects(about.get("missing"))),
        _picture(os.path.join(directory, "screendump.png")),
        text(about.get("why"), 1_000),
        directory,
    )


def _files(directory: str, told: object) -> Iterator[File]:
    """Those that it tells of and has: anybody may have written that, and a page refers to them."""
    for one in _objects(told):
        name = one.get("file")
        if isinstance(name, str) and _PLAIN_NAME.fullmatch(name):
            path = os.path.join(directory, name)
            if os.path.isfile(path) and not os.path.islink(path):
                yield File(path, text(one.get("what")), os.path.getsize(path))


def _objects(value: object) -> Iterator[Mapping[str, Any]]:
    for one in value[:_MOST_FILES] if isinstance(value, list) else ():
        if isinstance(one, dict):
            yield one


def _json(path: str) -> Mapping[str, Any]:
    with open(path, "rb") as file:
        data = file.read(_LARGEST_JSON)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {}


def _picture(path: str) -> str | None:
    if not os.path.isfile(path) or os.path.getsize(path) > _LARGEST_PICTURE:
        return None
    with open(path, "rb") as file:
        data = file.read(_LARGEST_PICTURE)
    return f"data:image/png;base64,{base64.b64encode(data).decode()}" if data.startswith(_PNG) else None
