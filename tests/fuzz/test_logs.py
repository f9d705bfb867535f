"""What QEMU says, whatever the bytes and however they come: one text, by whichever call it is read."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from vmfsm_plugins import logs
from vmfsm_plugins.logs import Logs

from tests.conftest import BUILT_IN
from tests.fuzz.effort import tries
from tests.fuzz.hostile import raw, sizes, split
from tests.waiting import LIMIT, InThread, until
from vmfsm import Machine, State

outputs = st.lists(
    st.one_of(
        raw,
        st.binary(max_size=30),
        st.sampled_from([b"\n", b"\r\n", "ä€\n".encode(), b"\xe2\x82", b"\x1b[31m"]),
    ),
    max_size=8,
).map(b"".join)


def shown(data: bytes) -> str:
    """As text: with the bytes that are no characters as `\\xff`."""
    text = data.decode("utf-8", "surrogateescape")
    return "".join(
        f"\\x{ord(character) - 0xDC00:02x}" if "\udc80" <= character <= "\udcff" else character
        for character in text
    )


class Speaker:
    """A machine with a process that says what it is given, and then ends."""

    def __init__(self, directory: Path, *, kept: bool) -> None:
        fifo = directory / "fifo"
        os.mkfifo(fifo)
        self.fd = os.open(fifo, os.O_RDWR)
        self._inode = os.stat(fifo).st_ino
        log_dir = directory if kept else None
        self.machine = Machine(
            "cat",
            [str(fifo)],
            name="speaker",
            display=None,
            base_dir=directory,
            log_dir=log_dir,
            block=BUILT_IN,
            plugins=[Logs()],
        )

    def launch(self) -> Machine:
        """It has opened the FIFO, so that closing it is the end."""
        vm = self.machine.launch()
        until(lambda: self._inode in _open_files(vm.pid))
        return vm

    def say_in_pieces(self, data: bytes, sizes: list[int]) -> bytes:
        """What it has said in the end."""
        pieces = split(data, sizes)[:50]
        for piece in pieces:
            for at in range(0, len(piece), 4096):  # no more fits into a pipe for sure
                os.write(self.fd, piece[at : at + 4096])
        os.close(self.fd)
        self.machine.wait(LIMIT)
        return b"".join(pieces)


def _open_files(pid: int | None) -> set[int]:
    inodes = set()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.add(file.stat().st_ino)
    return inodes


@contextlib.contextmanager
def speaker(*, kept: bool) -> Iterator[Speaker]:
    with TemporaryDirectory() as directory:
        speaker = Speaker(Path(directory), kept=kept)
        with speaker.machine:
            yield speaker


def last_lines(text: str, n: int) -> str:
    lines = text.split("\n")
    unfinished = [lines[-1]] if lines[-1] else []
    return "".join([*(f"{line}\n" for line in lines[:-1]), *unfinished][-n:] if n else [])


@tries(25)
@given(outputs, sizes, st.booleans())
def test_every_way_to_read_it_gives_the_same(data: bytes, sizes: list[int], kept: bool) -> None:
    with speaker(kept=kept) as speaking:
        vm = speaking.launch()
        following = InThread(lambda: list(vm.log.follow(timeout=LIMIT)))
        said = speaking.say_in_pieces(data, sizes)
        assert vm.state is State.STOPPED
        text = shown(said)
        assert vm.log.text == text
        assert "".join(following.result()) == text
        assert "".join(vm.log.follow(timeout=LIMIT)) == text
        for n in range(6):
            assert vm.log.tail(n) == last_lines(text, n)
        if kept:
            assert Path(vm.log.path).read_bytes() == said


@tries(15)
@given(outputs, sizes)
def test_where_only_the_last_of_it_is_kept(data: bytes, sizes: list[int]) -> None:
    with mock.patch.object(logs, "_KEPT", 40), speaker(kept=False) as speaking:
        vm = speaking.launch()
        said = speaking.say_in_pieces(data, sizes)
        text = vm.log.text
        assert shown(said).endswith(text)
        assert len(text.encode()) <= 4 * 40
        assert len(said) > 40 or text == shown(said)
        assert shown(said).endswith(vm.log.tail(2))
