"""`vmfsm report`: what it writes where, and what it says where it can't."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.running import Here, here, vmfsm
from tests.report.recorded import record, without_progress, write

__all__ = ("here",)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A recording, alone in a directory."""
    (tmp_path / "all").mkdir()
    return write(tmp_path / "all" / "made.jsonl", [record(0, "note", text="noted")])


def test_the_page_is_put_beside(here: Here, made: Path) -> None:
    ran = here("report", str(made))
    page = made.with_name("made.html")
    assert (ran.returncode, ran.stdout, without_progress(ran.stderr)) == (0, f"{page}\n", "")
    assert page.read_text().startswith("<!doctype html>")
    assert page.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in made.parent.iterdir()) == ["made.html", "made.jsonl"]


def test_of_a_directory_it_is_in_that(here: Here, made: Path) -> None:
    assert here("report", str(made.parent)).stdout == f"{made.parent}/report.html\n"
    assert (made.parent / "report.html").is_file()


def test_of_a_later_piece_it_is_beside_the_first(here: Here, made: Path) -> None:
    piece = write(made.with_name("made.jsonl.0002"), [], recording="made.jsonl", piece=2, before=1)
    assert here("report", str(piece)).stdout == f"{made.parent}/made.html\n"


def test_json_is_printed_and_nothing_written(here: Here, made: Path) -> None:
    ran = here("report", str(made), "--json")
    assert json.loads(ran.stdout)["machines"][0]["name"] == "made"
    assert ran.stdout.isascii()
    assert list(made.parent.iterdir()) == [made]


def test_a_page_that_is_there_is_replaced_whole(here: Here, made: Path, tmp_path: Path) -> None:
    """Not what a link leads to, which may be anybody's."""
    other = tmp_path / "other"
    other.write_text("kept")
    page = tmp_path / "page.html"
    page.symlink_to(other)
    assert here("report", str(made), "-o", str(page)).returncode == 0
    assert other.read_text() == "kept"
    assert not page.is_symlink()
    assert page.read_text().startswith("<!doctype html>")


def test_what_is_no_file_is_left_alone(here: Here, made: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for place in (pipe, Path("/dev/null")):
        ran = here("report", str(made), "-o", str(place))
        assert (ran.returncode, ran.stdout) == (1, "")
        assert "something that is no file" in ran.stderr
        assert not place.is_file()
    assert pipe.is_fifo()
    assert Path("/dev/null").is_char_device()


def test_what_can_not_be_written_is_said_at_once(here: Here, made: Path, tmp_path: Path) -> None:
    for option in ("-o", "--junit"):
        ran = here("report", str(made), option, str(tmp_path / "none" / "page.html"))
        assert (ran.returncode, ran.stdout) == (1, "")
        assert f"there is no directory {tmp_path}/none" in ran.stderr


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.jsonl", None, "No such file"),
        ("text.jsonl", "hello\n", "is no recording of vmfsm"),
        ("empty.jsonl", "", "is no recording of vmfsm"),
        ("bundle.json", "{}", "its bundle.json is none of vmfsm"),
        ("bundle.json", "[" * 100_000, "its bundle.json is none of vmfsm"),
        ("bundle.json", '{"format": "vmfsm-bundle", "version": 2}', "only 1 is known here"),
        ("bundle.json", '{"format": "vmfsm-bundle", "version": 1}', "this bundle has no recording.jsonl"),
    ],
)
def test_what_is_no_recording(here: Here, tmp_path: Path, name: str, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    ran = here("report", str(tmp_path / name))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert said in ran.stderr
    assert {path.name for path in tmp_path.iterdir()} == ({name} if content is not None else set())


def test_a_directory_without_any(here: Here, tmp_path: Path) -> None:
    (tmp_path / "other.jsonl").write_text("no recording\n")
    os.mkfifo(tmp_path / "pipe.jsonl")
    ran = here("report", str(tmp_path))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "neither a bundle, nor a directory of recordings" in ran.stderr


def test_what_can_not_be_read_among_others_is_passed_over(here: Here, made: Path) -> None:
    (made.with_name("b")).mkdir()
    about = made.with_name("b") / "bundle.json"
    about.write_text('{"format": "vmfsm-bundle", "version": 1}')
    made.with_name("other.jsonl").write_text("text\n")
    write(made.with_name("next.jsonl"), [], version=2)
    ran = here("report", str(made.parent), "--json")
    told = json.loads(ran.stdout)
    assert [one["name"] for one in told["machines"]] == ["made"]
    assert [Path(one["path"]).name for one in told["passed_over"]] == ["b", "next.jsonl", "other.jsonl"]
    assert "b is passed over: this bundle has no recording.jsonl\n" in ran.stderr
    assert "next.jsonl is passed over: a recording of version 2: only 1 is known here\n" in ran.stderr
    ran = here("report", str(about))
    assert "this bundle has no recording.jsonl" in ran.stderr, "where it was asked for itself"


def test_a_recording_is_not_written_over(here: Here, made: Path) -> None:
    before = made.read_bytes()
    for option in ("-o", "--junit"):
        ran = here("report", str(made.parent), option, str(made))
        assert (ran.returncode, ran.stdout) == (1, "")
        assert made.read_bytes() == before
    assert here("report", str(made), "-o", str(made)).stderr.endswith("is what the report is made of\n")


def test_a_pipe_is_no_recording(here: Here, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    ran = here("report", str(tmp_path / "pipe.jsonl"))
    assert ran.returncode == 1
    assert "is no file, and no directory" in ran.stderr


def test_what_is_in_its_way_beside_the_page(here: Here, made: Path, tmp_path: Path) -> None:
    """Nothing is written through a link, and what was begun is removed."""
    text = "x" * 100_000 + "\n"
    long = write(made.with_name("long.jsonl"), [record(0, "console", console="console", text=text)])
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "page-files").symlink_to(tmp_path / "elsewhere")
    ran = here("report", str(long), "-o", str(tmp_path / "page.html"))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "files beside the page are to be there, not a link" in ran.stderr
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert not (tmp_path / "page.html").exists()


def test_files_of_a_bundle_that_somebody_else_made(here: Here, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    write(bundle / "recording.jsonl", [record(0, "note", text="noted")])
    (bundle / "qemu.log").write_text("said")
    (bundle / "link").symlink_to("/etc/passwd")
    (bundle / "javascript:alert(1)").write_text("")
    (bundle / "screendump.png").write_bytes(b"<svg onload=alert(1)>")
    names = [
        "qemu.log",
        "link",
        "../bundle/qemu.log",
        "/etc/passwd",
        "javascript:alert(1)",
        "gone",
        None,
        ".",
    ]
    about = {
        "format": "vmfsm-bundle",
        "version": 1,
        "files": [*({"file": name, "what": "w" * 9_000} for name in names), 7],
        "missing": [{"what": ["x"], "why": None}, None],
    }
    (bundle / "bundle.json").write_text(json.dumps(about))
    (machine,) = json.loads(here("report", str(bundle), "--json").stdout)["machines"]
    assert [Path(file["file"]).name for file in machine["files"]] == ["qemu.log"]
    assert len(machine["files"][0]["what"]) < 500
    assert machine["screendump"] is None


def test_nothing_is_left_where_it_is_interrupted(tmp_path: Path) -> None:
    """By whatever: here the disk is full, in the middle of the text beside the page."""
    text = "".join(f"{n:099}\n" for n in range(40_000))
    long = write(
        tmp_path / "long.jsonl",
        [
            record(at / 1e6, "console", console="console", text=text[at : at + 50_000])
            for at in range(0, len(text), 50_000)
        ],
    )
    script = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2_500_000, 2_500_000))
from vmfsm.cli import program
sys.exit(program.run(sys.argv[1:]))
"""
    (tmp_path / "out").mkdir()
    ran = subprocess.run(
        [sys.executable, "-c", script, "report", str(long), "-o", str(tmp_path / "out" / "page.html")],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.returncode, ran.stdout) == (1, ""), ran.stderr
    assert "File too large" in ran.stderr
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(("number", "status"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_nothing_is_left_where_a_signal_ends_it(tmp_path: Path, number: str, status: int) -> None:
    text = "x" * 100_000 + "\n"
    long = write(tmp_path / "long.jsonl", [record(0, "console", console="console", text=text)])
    script = f"""
import os, signal, sys
from vmfsm.cli import program
from vmfsm.report import NewFile
def write(self, text):
    os.kill(os.getpid(), signal.{number})
NewFile.write = write
sys.exit(program.run(sys.argv[1:]))
"""
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-c", script, "report", str(long), "-o", str(tmp_path / "out" / "page.html")]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr) == (status, "", "")
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_json_and_text_exclude_each_other(made: Path) -> None:
    ran = vmfsm("report", str(made), "--json", "--text")
    assert ran.returncode == 2
    assert "exclude each other" in ran.stderr
