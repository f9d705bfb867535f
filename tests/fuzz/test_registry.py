"""The registry's files, whatever is in them and whatever they are: nothing that is not theirs is touched."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.effort import tries
from tests.fuzz.hostile import encode, mutate, mutations, raw, texts, values
from vmfsm import proc, registry
from vmfsm.registry import Entry, Status

LONGEST = 20.0
"""Seconds that a look at a registry may take on a busy machine; one that hangs takes for ever."""


def entry(**changes: Any) -> dict[str, Any]:
    """A line of a program that has ended, as it would be."""
    fields = {
        "harness": (2**22 + 1, 1, ("python",)),  # no pid is as large
        "uid": os.geteuid(),
        "boot_id": proc.boot_id(),
        "pid_namespace": proc.pid_namespace(),
        "mark": "a-mark",
        "since": 1.0,
        "pid": 2**22 + 2,
        "start_time": 3,
        "companions": ((2**22 + 3, 1),),
        "sockets": (),
        "directories": (),
        "name": "vm",
        "directory": "/nonexistent/vmfsm-x",
    }
    return fields | changes


FIELDS = tuple(entry())
WITNESS = 2**22 + 7
"""Stands for the pid of the process that nothing may touch."""
ids = st.one_of(values, st.sampled_from([os.getpid(), os.getppid(), WITNESS, -1, 0, 2**22 + 2]))
wrong = st.dictionaries(
    st.one_of(st.sampled_from(FIELDS), texts),
    st.one_of(values, ids, st.lists(ids), st.sampled_from(["@kept", "@vmfsm-link"])),
    max_size=3,
)
lines = st.one_of(
    raw,
    values.map(encode),
    wrong.map(lambda fields: encode(entry(**fields))),
    st.tuples(wrong, st.sampled_from(FIELDS)).map(
        lambda given: encode({key: value for key, value in entry(**given[0]).items() if key != given[1]})
    ),
    mutations.map(lambda places: mutate(encode(entry()), places)),
    st.just(encode(entry())),
    st.just(b'{"mark": "a-mark"}'),
)
contents = st.lists(lines, max_size=5).map(b"\n".join)


def dead_name(token: str = "t") -> str:
    """Of the file of a program that has ended."""
    return f"{proc.boot_id()}_{proc.pid_namespace()}_{2**22 + 1}_1_{token}.1.jsonl"


names = st.one_of(
    st.just(dead_name()),
    st.just(f"{'0' * 36}_{proc.pid_namespace()}_1_1_t.1.jsonl"),  # of an earlier boot
    st.just(f"{proc.boot_id()}_1_1_1_t.1.jsonl"),  # of another container
    st.just(f"{proc.boot_id()}_{proc.pid_namespace()}_{os.getpid()}_1_t.1.jsonl"),
    st.from_regex(r"\A[0-9a-f_x-]{0,20}\.1\.jsonl\Z"),
    st.lists(st.integers(-5, 10**30), max_size=5).map(lambda ints: "_".join(map(str, ints)) + ".1.jsonl"),
)


_rmtree = shutil.rmtree


class Witnesses:
    """A registry, and beside it what is nobody's of it: files, and a process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.registry = directory / "vmfsm"
        self.registry.mkdir(mode=0o700)
        self.kept = directory / "kept"
        self.kept.mkdir()
        (self.kept / "file").write_text("kept")
        (directory / "vmfsm-link").symlink_to(self.kept)
        self.process = subprocess.Popen(["sleep", "1000"], start_new_session=True)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()

    def content(self, content: bytes) -> bytes:
        """With the names of what is to be kept in the places for them."""
        content = content.replace(b"@", os.fsencode(self.directory) + b"/")
        return content.replace(b"%d" % WITNESS, b"%d" % self.process.pid)

    def remove(self, path: str, *, ignore_errors: bool) -> None:
        """For `shutil.rmtree`: what is to be removed is nothing but a registry's, whatever is tried."""
        assert Path(path).parent == self.directory or not os.path.lexists(path), path
        _rmtree(path, ignore_errors=ignore_errors)

    def check(self) -> tuple[list[Entry], list[Entry]]:
        """What both calls return; they end, raise nothing, and leave all else alone."""
        begin = time.monotonic()
        found = registry.machines(), registry.clean_up()
        assert time.monotonic() - begin < LONGEST
        assert self.process.poll() is None
        assert (self.kept / "file").read_text() == "kept"
        return found


@contextmanager
def witnesses() -> Iterator[Witnesses]:
    with TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", directory)
        patch.setattr(registry, "_PAUSE", 0.001)
        kept = Witnesses(Path(directory))
        patch.setattr(shutil, "rmtree", kept.remove)  # a mistake found here is not to cost the whole disk
        try:
            yield kept
        finally:
            kept.end()


@tries(60)
@given(st.lists(st.tuples(names, contents), min_size=1, max_size=3))
def test_whatever_is_in_its_files(files: list[tuple[str, bytes]]) -> None:
    with witnesses() as kept:
        for name, content in files:
            (kept.registry / name).write_bytes(kept.content(content))
        listed, swept = kept.check()
        for one in [*listed, *swept]:
            assert type(one.name) is type(one.mark) is type(one.directory) is str
            assert type(one.harness.pid) is type(one.harness.start_time) is type(one.uid) is int


@tries(20)
@given(raw, raw)
def test_a_valid_line_is_read_whatever_is_around_it(before: bytes, behind: bytes) -> None:
    with witnesses() as kept:
        content = b"\n".join([before, encode(entry()), behind])
        (kept.registry / dead_name()).write_bytes(content)
        listed, swept = kept.check()
        assert [one.mark for one in listed if one.mark == "a-mark"] == ["a-mark"]
        assert [one.mark for one in swept if one.mark == "a-mark"] == ["a-mark"]
        assert os.listdir(kept.registry) == []


def _fifo(path: Path, kept: Witnesses) -> None:
    os.mkfifo(path)


def _directory(path: Path, kept: Witnesses) -> None:
    path.mkdir()
    (path / "file").write_text("")


def _socket(path: Path, kept: Witnesses) -> None:
    with socket.socket(socket.AF_UNIX) as listener, pytest.MonkeyPatch.context() as patch:
        patch.chdir(path.parent)  # the name alone is short enough
        listener.bind(path.name)


def _huge(path: Path, kept: Witnesses) -> None:
    with path.open("wb") as file:
        file.truncate(2**34)


KINDS: dict[str, Callable[[Path, Witnesses], object]] = {
    "fifo": _fifo,
    "directory": _directory,
    "socket": _socket,
    "huge": _huge,
    "device": lambda path, kept: path.symlink_to("/dev/zero"),
    "link to a directory": lambda path, kept: path.symlink_to(kept.kept),
    "link to a file": lambda path, kept: path.symlink_to(kept.kept / "file"),
    "link to nothing": lambda path, kept: path.symlink_to("nothing"),
    "link to itself": lambda path, kept: path.symlink_to(path),
    "closed": lambda path, kept: path.touch(mode=0),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", ["", ".new"])
def test_whatever_its_files_are(kind: str, suffix: str) -> None:
    with witnesses() as kept:
        KINDS[kind](kept.registry / (dead_name("0") + suffix), kept)
        if suffix:
            (kept.registry / dead_name("0")).write_bytes(encode(entry()))
        (kept.registry / dead_name("1")).write_bytes(encode(entry(mark="another")))
        listed, swept = kept.check()
        assert "another" in {one.mark for one in listed}
        assert "another" in {one.mark for one in swept}
        assert not (kept.registry / dead_name("1")).exists()


@pytest.mark.parametrize("field", ["directory", "directories", "sockets"])
@pytest.mark.parametrize(
    "path",
    ["@kept", "@vmfsm-link", "@kept/file", "/", "", ".", "..", "/proc/self", "vmfsm-here", "/vmfsm-\ud800"],
)
def test_paths_that_are_none_of_its(
    field: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A private directory has a name of a certain kind and is no link; a socket is a socket."""
    (tmp_path / "vmfsm-here").mkdir()
    monkeypatch.chdir(tmp_path)
    with witnesses() as kept:
        line = encode(entry(**{field: path if field == "directory" else [path]}))
        (kept.registry / dead_name()).write_bytes(kept.content(line))
        kept.check()
    assert (tmp_path / "vmfsm-here").exists()


@pytest.mark.parametrize("path", ["/tmp/vm", "../..", {"/": 1}])
@pytest.mark.parametrize("field", ["directories", "sockets"])
def test_a_path_is_not_several(field: str, path: object) -> None:
    """As a sequence it has `/` in it."""
    with witnesses() as kept:
        (kept.registry / dead_name()).write_bytes(encode(entry(**{field: path})))
        assert kept.check() == ([], [])


def test_the_home_is_no_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "users" / "me"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    with witnesses() as kept:
        private = kept.directory / "machine"
        paths = [tmp_path, tmp_path / "users", home, private]
        for path in paths:
            path.mkdir(exist_ok=True)
            path.chmod(0o700)
        (kept.registry / dead_name()).write_bytes(encode(entry(directories=list(map(str, paths)))))
        kept.check()
        assert home.exists()
        assert not private.exists(), "it is one that a plugin has named"


@pytest.mark.parametrize("field", ["pid", "companions", "harness"])
def test_a_pid_is_not_enough(field: str) -> None:
    """The process that has it now is another one."""
    with witnesses() as kept:
        pid = kept.process.pid
        fields: dict[str, dict[str, Any]] = {
            "pid": {"pid": pid, "start_time": 3},
            "companions": {"companions": [[pid, 3]]},
            "harness": {"harness": [pid, 3, ["python"]]},
        }
        name = dead_name().replace(f"_{2**22 + 1}_", f"_{pid}_")
        (kept.registry / name).write_bytes(encode(entry(**fields[field])))
        (listed,), (swept,) = kept.check()
        assert listed.status is swept.status is Status.STALE
        assert os.listdir(kept.registry) == []


def test_a_program_that_lives_has_its_files_still() -> None:
    with witnesses() as kept:
        one = proc.identify(kept.process.pid)
        assert one is not None
        private = kept.directory / "vmfsm-theirs"
        private.mkdir()
        name = dead_name().replace(f"_{2**22 + 1}_1_", f"_{one.pid}_{one.start_time}_")
        line = encode(entry(harness=[one.pid, one.start_time, ["sleep"]], directory=str(private)))
        (kept.registry / name).write_bytes(line)
        (listed,), swept = kept.check()
        assert (listed.status, swept) == (Status.LIVE, [])
        assert private.exists()
        assert os.listdir(kept.registry) == [name]
