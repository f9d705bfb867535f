"""Images by the real tool: what it makes, hostile names, and what is left when it fails."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import SLACK, InThread, is_alive, until
from vmfsm import ConfigError, ImageError, Machine, MachineTimeout, qemu_img

MIB = 1 << 20


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, which is empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_image_is_made_and_described(here: Path) -> None:
    qemu_img.create("disk.qcow2", "64M")
    told = qemu_img.info("disk.qcow2")
    assert (told.path, told.format, told.virtual_size) == (str(here / "disk.qcow2"), "qcow2", 64 * MIB)
    assert 0 < told.actual_size < MIB
    assert (told.backing_file, told.backing_format, told.backing, told.snapshots) == (None, None, None, ())
    assert (told.encrypted, told.dirty) == (False, False)
    assert told.raw["cluster-size"] == 65536
    assert os.listdir() == ["disk.qcow2"]


@pytest.mark.parametrize(
    ("size", "bytes_of_it"),
    [(0, 0), (MIB, MIB), ("512", 512), ("1k", 1024), ("1.5M", 3 * MIB // 2), ("1T", 1 << 40)],
)
def test_sizes(size: int | str, bytes_of_it: int) -> None:
    qemu_img.create("disk", size)
    assert qemu_img.info("disk").virtual_size == bytes_of_it


def test_formats_and_their_options() -> None:
    qemu_img.create(Path("disk.raw"), 4096, format="raw")
    assert Path("disk.raw").read_bytes() == bytes(4096)
    assert qemu_img.info("disk.raw").format == "raw"
    qemu_img.create("disk", MIB, options={"cluster_size": 4096, "lazy_refcounts": True, "compat": "1.1"})
    told = qemu_img.info("disk").raw
    assert told["cluster-size"] == 4096
    assert told["format-specific"]["data"]["lazy-refcounts"] is True


def test_the_mode_is_what_the_user_is_used_to() -> None:
    before = os.umask(0o027)
    try:
        qemu_img.create("disk", MIB)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat("disk").st_mode) == 0o640


def test_overlays(here: Path) -> None:
    """The backing file is found from wherever the overlay is moved to."""
    qemu_img.create("base.raw", "8M", format="raw")
    (here / "sub").mkdir()
    qemu_img.overlay("sub/middle", "base.raw")
    os.rename("sub/middle", "middle")
    qemu_img.overlay("top", "middle", size="16M")
    top = qemu_img.info("top", backing_chain=True)
    assert (top.virtual_size, top.backing_file, top.backing_format) == (
        16 * MIB,
        str(here / "middle"),
        "qcow2",
    )
    assert top.backing is not None
    assert top.backing == qemu_img.info("middle")._replace(backing=top.backing.backing)
    assert top.backing.backing is not None
    assert (top.backing.backing.format, top.backing.backing.virtual_size) == ("raw", 8 * MIB)
    assert qemu_img.info("top").backing is None


def test_a_guest_cannot_choose_the_format_of_a_raw_image(here: Path) -> None:
    qemu_img.create("evil", "1G")
    os.truncate("evil", 256 * 1024)
    assert qemu_img.info("evil", format="raw").virtual_size == os.stat("evil").st_size
    qemu_img.overlay("over", "evil", backing_format="raw")
    told = qemu_img.info("over", backing_chain=True)
    assert told.backing_format == "raw"
    assert told.backing is not None
    assert told.virtual_size == told.backing.virtual_size == os.stat("evil").st_size


HOSTILE = [
    "-f",
    "--help",
    "a:b",
    "nbd:localhost:1",
    "nbd://localhost:1",
    'json:{"driver": "null-co"}',
    "file:disk",
    "a,b=c,,d",
    "with space\nand line",
    "$(touch x);`y`|*",
    "fat:rw:.",
    "ä€😀",
    "..:x",
    "%s%n",
]


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_path_is_the_name_of_a_file(here: Path, name: str) -> None:
    if "/" in name:
        os.makedirs(os.path.dirname(name))
    qemu_img.create(name, MIB)
    assert (here / name).is_file()
    assert qemu_img.info(name).virtual_size == MIB
    before = (here / name).read_bytes()
    over = name + ".over"
    qemu_img.overlay(over, name)
    assert (here / over).is_file()
    told = qemu_img.info(over, backing_chain=True)
    assert told.backing_file == str(here / name)
    assert told.backing is not None
    assert told.backing.virtual_size == MIB
    assert (here / name).read_bytes() == before
    assert {path.name for path in (here / name).parent.iterdir()} == {Path(name).name, Path(over).name}


def test_a_name_that_is_no_text(here: Path) -> None:
    name = os.fsdecode(b"\xff\xfe")
    qemu_img.create(name, MIB)
    qemu_img.overlay("over", name)
    assert qemu_img.info(name).path == str(here / name)
    told = qemu_img.info("over", backing_chain=True)
    assert told.backing is not None
    assert told.backing.virtual_size == MIB


def test_an_image_that_a_machine_uses(here: Path, qemu: str) -> None:
    qemu_img.create("disk", "8M")
    image = "driver=qcow2,node-name=disk,file.driver=file,file.filename=disk"
    with Machine(qemu, ["-M", "none", "-nodefaults", "-blockdev", image], cwd=here) as vm:
        vm.launch()
        assert qemu_img.info("disk").virtual_size == 8 * MIB
        vm.qmp.execute("block_resize", node_name="disk", size=16 * MIB)
        qemu_img.overlay("over", "disk", backing_format="qcow2")
        vm.shutdown()
    assert qemu_img.info("disk").virtual_size == qemu_img.info("over").virtual_size == 16 * MIB


# -- what was there -----------------------------------------------------------------------------------------


def test_nothing_is_overwritten_unasked(here: Path) -> None:
    Path("disk").write_text("precious")
    Path("base").touch()
    for make, source in ((qemu_img.create, "1M"), (qemu_img.overlay, "base")):
        with pytest.raises(ConfigError, match="there already; overwrite=True") as caught:
            make("disk", source)
        assert caught.value.field == "path"
        assert Path("disk").read_text() == "precious"
        make("disk", source, overwrite=True)
        assert qemu_img.info("disk").format == "qcow2"
        Path("disk").write_text("precious")
    qemu_img.create("new", MIB, overwrite=True)
    assert sorted(os.listdir()) == ["base", "disk", "new"]


@pytest.mark.parametrize("kind", ["directory", "link", "dangling"])
def test_only_files_are_overwritten(here: Path, kind: str) -> None:
    if kind == "directory":
        (here / "disk").mkdir()
    else:
        (here / "disk").symlink_to("target")
        if kind == "link":
            (here / "target").touch()
    before = sorted(os.listdir())
    for overwrite in (False, True):
        with pytest.raises(ConfigError):
            qemu_img.create("disk", MIB, overwrite=overwrite)
        assert sorted(os.listdir()) == before


def test_an_overlay_over_itself() -> None:
    qemu_img.create("disk", MIB)
    os.symlink("disk", "link")
    for backing in ("disk", "link", "./disk"):
        with pytest.raises(ConfigError, match="over itself"):
            qemu_img.overlay("disk", backing, overwrite=True)
    assert qemu_img.info("disk").backing_file is None


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_fails_leaves_all_as_it_was(here: Path, overwrite: bool) -> None:
    if overwrite:
        Path("disk").write_text("precious")
    before = os.listdir()
    with pytest.raises(ImageError) as caught:
        qemu_img.create("disk", MIB, options={"cluster_size": 1000}, overwrite=overwrite)
    error = caught.value
    assert error.command[:2] == ("qemu-img", "create")
    assert error.exit_status == 1
    assert "luster size must be a power of two" in error.output
    assert error.output in str(error)
    with pytest.raises(ImageError, match="no-such-format"):
        qemu_img.create("disk", MIB, format="no-such-format", overwrite=overwrite)
    with pytest.raises(ImageError, match="No such file"):
        qemu_img.overlay("disk", "nothing", overwrite=overwrite)
    with pytest.raises(ImageError, match="nothing"):
        qemu_img.overlay("disk", "nothing", backing_format="raw", overwrite=overwrite)
    assert os.listdir() == before
    assert not overwrite or Path("disk").read_text() == "precious"


def test_what_the_file_system_refuses(here: Path) -> None:
    with pytest.raises(ImageError, match=r"nowhere.* cannot be made: No such file or directory"):
        qemu_img.create("nowhere/disk", MIB)
    with pytest.raises(ImageError, match="too long"):
        qemu_img.create("x" * 300, MIB)
    with pytest.raises(ImageError) as caught:
        qemu_img.info("nothing")
    assert (caught.value.exit_status, caught.value.command[-1]) == (1, str(here / "nothing"))
    assert os.listdir() == []


def test_an_image_that_is_none(here: Path) -> None:
    Path("disk").write_bytes(b"QFI\xfb" + b"\xff" * 1000)
    with pytest.raises(ImageError, match="Unsupported qcow2 version"):
        qemu_img.info("disk", format="qcow2")


# -- the tool -----------------------------------------------------------------------------------------------


def test_no_tool() -> None:
    with pytest.raises(ImageError, match="no-such-tool create cannot be started: No such file") as caught:
        qemu_img.create("disk", MIB, binary="no-such-tool")
    assert caught.value.exit_status is None
    assert os.listdir() == []


def tool(text: str) -> Path:
    """One of our own, in the place of the real one."""
    path = Path("tool").absolute()
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_deadline_ends_the_tool_and_what_it_started(here: Path) -> None:
    slow = tool("sleep 1000 & echo $! $$ >pids; wait")
    with pytest.raises(MachineTimeout) as caught:
        qemu_img.create("disk", MIB, binary=slow, timeout=0.5)
    assert (caught.value.operation, caught.value.timeout) == ("qemu-img create", 0.5)
    pids = [int(pid) for pid in Path("pids").read_text().split()]
    until(lambda: not any(map(is_alive, pids)))
    assert sorted(os.listdir()) == ["pids", "tool"]


def test_one_deadline_for_all_that_a_call_does() -> None:
    Path("base").touch()
    slow = tool('sleep 0.3; echo \'{"format": "raw"}\'; [ "$1" = info ] || sleep 1000')
    call = InThread(qemu_img.overlay, "disk", "base", binary=slow, timeout=1)
    with pytest.raises(MachineTimeout, match="create timed out after 1 s"):
        call.result()
    assert 1 <= call.seconds < 1 + SLACK


def test_an_interrupt_ends_the_tool(here: Path) -> None:
    slow = tool("echo $$ >pid; exec sleep 1000")
    script = (
        "import os, sys, threading, time\n"
        "from vmfsm import qemu_img\n"
        "def is_waiting():\n"
        "    frame = sys._current_frames()[threading.main_thread().ident]\n"
        "    while frame and frame.f_code.co_name != 'communicate':\n"
        "        frame = frame.f_back\n"
        "    return frame is not None\n"
        "def interrupt():\n"
        "    while not (os.path.exists('pid') and open('pid').read() and is_waiting()):\n"
        "        time.sleep(0.01)\n"
        "    os.kill(os.getpid(), 2)\n"
        "threading.Thread(target=interrupt).start()\n"
        "try:\n"
        f"    qemu_img.create('disk', 1, binary={str(slow)!r})\n"
        "except KeyboardInterrupt:\n"
        "    print(*sorted(os.listdir()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=30
    )
    assert done.stdout == "pid tool\n"
    assert not is_alive(int(Path("pid").read_text()))


def test_an_interrupt_when_the_tool_has_just_started(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = subprocess.Popen._execute_child  # type: ignore[attr-defined]

    def start_and_be_interrupted(*args: object) -> None:
        start(*args)
        until(lambda: Path("pid").exists() and Path("pid").read_text())
        raise KeyboardInterrupt

    slow = tool("echo $$ >pid; exec sleep 1000")
    monkeypatch.setattr(subprocess.Popen, "_execute_child", start_and_be_interrupted)
    with pytest.raises(KeyboardInterrupt):
        qemu_img.create("disk", 1, binary=slow)
    assert not is_alive(int(Path("pid").read_text()))


def test_the_tool_reads_nothing_and_dies_of_a_signal() -> None:
    with pytest.raises(ImageError, match="status -9") as caught:
        qemu_img.info("x", binary=tool("cat; kill -9 $$"))
    assert caught.value.exit_status == -9
    for answer in ("hello", "[]", "[1]", "{}", '{"filename": 1}', "[" * 100_000):
        strange = tool(f"cat <<'end'\n{answer}\nend")
        for chain in (False, True):
            with pytest.raises(ImageError, match="says nothing of an image"):
                qemu_img.info("x", backing_chain=chain, binary=strange)
    with pytest.raises(ImageError, match=r"\\x1b"):
        qemu_img.info("x", binary=tool(r"printf '\033[2J' >&2; exit 3"))


def test_a_failure_whose_status_is_lost() -> None:
    """The host program ignores SIGCHLD: what the tool has said is all that tells of it."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        qemu_img.create("disk", MIB)
        with pytest.raises(ImageError, match="failed with a status that could not be had: no room") as caught:
            qemu_img.create("half", MIB, binary=tool("cd .qemu-img-*; touch half; echo no room >&2; exit 1"))
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert (caught.value.exit_status, caught.value.output) == (None, "no room")
    assert sorted(os.listdir()) == ["disk", "tool"]


# -- arguments ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "kw", "field"),
    [
        (("", 1), {}, "path"),
        ((b"disk", 1), {}, "path"),
        ((None, 1), {}, "path"),
        (("a\0b", 1), {}, "path"),
        (("disk", -1), {}, "size"),
        (("disk", True), {}, "size"),
        (("disk", 1.5), {}, "size"),
        (("disk", ""), {}, "size"),
        (("disk", "-1"), {}, "size"),
        (("disk", "1M "), {}, "size"),
        (("disk", "1MB"), {}, "size"),
        (("disk", "--help"), {}, "size"),
        (("disk", 1 << 63), {}, "size"),
        (("disk", 1), {"format": ""}, "format"),
        (("disk", 1), {"format": "-x"}, "format"),
        (("disk", 1), {"format": None}, "format"),
        (("disk", 1), {"options": "a=b"}, "options"),
        (("disk", 1), {"options": {"a,b": 1}}, "options"),
        (("disk", 1), {"options": {"": 1}}, "options"),
        (("disk", 1), {"options": {"a": None}}, "options"),
        (("disk", 1), {"timeout": -1}, "timeout"),
        (("disk", 1), {"timeout": "1"}, "timeout"),
        (("disk", 1), {"binary": ""}, "binary"),
        (("disk", 1), {"binary": 7}, "binary"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_started(
    arguments: tuple[Any, Any], kw: dict[str, Any], field: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        qemu_img.create(*arguments, **kw)
    assert caught.value.field == field
    assert os.listdir() == []


def test_what_is_wrong_with_overlays() -> None:
    qemu_img.create("base", 1)
    for kw, field in (
        ({"backing_format": "-x"}, "backing_format"),
        ({"size": "x"}, "size"),
        ({"options": 1}, "options"),
    ):
        with pytest.raises(ConfigError) as caught:
            qemu_img.overlay("disk", "base", **kw)
        assert caught.value.field == field
    with pytest.raises(ConfigError) as caught:
        qemu_img.overlay("disk", "")
    assert caught.value.field == "backing"
    assert os.listdir() == ["base"]


def test_a_value_with_a_comma_is_one_value() -> None:
    with pytest.raises(ImageError, match="x,cluster_size=4096"):
        qemu_img.create("disk", MIB, options={"preallocation": "x,cluster_size=4096"})


def test_the_framework_does_not_import_it() -> None:
    script = "import sys, vmfsm; sys.exit('vmfsm.qemu_img' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0
