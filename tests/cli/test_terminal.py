"""What there is for terminals: following what a guest does to one, keys, and a backlog without a bound."""

import os
import queue
import random
import select
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.waiting import LIMIT, until
from vmfsm.cli.terminal import interrupts
from vmfsm.cli.terminal.backlog import MOST_IN_MEMORY, Backlog, Message
from vmfsm.cli.terminal.escapes import Tracker
from vmfsm.cli.terminal.keys import EscapeKeys, Keyboard
from vmfsm.cli.terminal.sinks import Plain
from vmfsm.cli.terminal.writer import Writer


@pytest.mark.parametrize(
    ("data", "between", "start", "taken"),
    [
        (b"", True, True, False),
        (b"text", True, False, False),
        (b"text\r\n", True, True, False),
        (b"\x1b[31mred\x1b[m\r\n", True, True, False),
        (b"text\r\n\x1b[m", True, True, False),
        (b"\x1b", False, True, False),
        (b"\x1b[3", False, True, False),
        (b"\x1b]0;title", False, True, False),
        (b"\x1b]0;title\x07", True, True, False),
        (b"\x1b]0;title\x1b\\", True, True, False),
        ("ä".encode()[:1], False, False, False),
        ("€".encode()[:2], False, False, False),
        ("€".encode(), True, False, False),
        (b"\xff\xff\xff\xff text", True, False, False),
        (b"\x1b[?1049h", True, True, True),
        (b"\x1b[?1049h\x1b[?1049l", True, True, False),
        (b"\x1b[2;20r", True, True, True),
        (b"\x1b[2;20r\x1b[r", True, True, False),
        (b"\x1b[2;20r\x1bc", True, True, False),
    ],
)
def test_what_a_guest_does_to_a_terminal(data: bytes, between: bool, start: bool, taken: bool) -> None:
    tracker = Tracker()
    tracker.feed(data)
    assert (tracker.between_sequences, tracker.at_start_of_line, tracker.taken) == (between, start, taken)


@given(
    st.lists(st.sampled_from([b"\x1b", b"[", b"]", b"?1049", b"h", b"r", b"2;3", b"\n", b"x", "ä".encode()]))
)
def test_it_does_not_matter_in_what_pieces_it_comes(pieces: list[bytes]) -> None:
    whole, parts = Tracker(), Tracker()
    whole.feed(b"".join(pieces))
    for byte in b"".join(pieces):
        parts.feed(bytes([byte]))
    assert (parts.taken, parts.between_sequences) == (whole.taken, whole.between_sequences)


def test_a_sequence_without_an_end_is_given_up() -> None:
    tracker = Tracker()
    for _ in range(100):
        tracker.feed(b"\x1b]" + b"x" * 1000)
    tracker.feed(b"x" * 10_000)
    assert tracker.between_sequences


@pytest.mark.parametrize(
    ("pieces", "parts"),
    [
        ([b"abc"], [b"abc"]),
        ([b"a\x1dqb"], [b"a", "q", b"b"]),
        ([b"a\x1d", b"q"], [b"a", "q"]),
        ([b"\x1d\x1dx"], [b"\x1dx"]),
        ([b"\x1d", b"\x1d", b"\x1d", b"k"], [b"\x1d", "k"]),
    ],
)
def test_the_escape_key(pieces: list[bytes], parts: list[bytes | str]) -> None:
    keys = EscapeKeys()
    assert [part for piece in pieces for part in keys.split(piece)] == parts


def test_a_keyboard_that_is_closed_reads_no_more() -> None:
    read, write = os.pipe()
    got: list[bytes] = []
    keyboard = Keyboard(read, got.append)
    os.write(write, b"keys")
    until(lambda: got)
    keyboard.close()
    os.write(write, b"more")
    assert got == [b"keys"]
    os.close(write)
    os.close(read)


def test_two_sigterms_at_once_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As timeout(1) sends them."""
    monkeypatch.setattr(interrupts, "_SAME", LIMIT)
    with interrupts.Interrupts() as found:
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(interrupts.Interrupted, match="SIGTERM"), found.raising():
            pass
        with found.raising():
            pass


never = threading.Lock()
never.acquire()
WAYS_TO_WAIT: dict[str, Callable[[int], object]] = {
    "read": lambda fd: os.read(fd, 1),
    "select": lambda fd: select.select([fd], [], []),
    "lock": lambda fd: never.acquire(),
    "queue": lambda fd: queue.SimpleQueue[None]().get(),
    "sleep": lambda fd: time.sleep(10 * LIMIT),
}


def is_asleep(thread: int) -> bool:
    """In the kernel, by itself."""
    return Path(f"/proc/self/task/{thread}/stat").read_text().rpartition(") ")[2][0] == "S"


@pytest.mark.parametrize("way", WAYS_TO_WAIT)
@pytest.mark.parametrize("why", ["SIGINT", "SIGTERM", "SIGHUP", "asked"])
def test_a_signal_that_wakes_nobody_is_heard(way: str, why: str) -> None:
    """As one that comes just before the wait begins: it is another thread that is interrupted."""
    read, write = os.pipe()
    main = threading.get_native_id()

    def send() -> None:
        until(lambda: is_asleep(main))
        if why == "asked":
            found._asked.append(why)
        number = signal.SIGUSR1 if why == "asked" else signal.Signals[why]
        signal.pthread_kill(threading.get_ident(), number)
        if not heard.wait(LIMIT):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    heard = threading.Event()

    def wait() -> None:
        with found.raising():
            sending.start()
            WAYS_TO_WAIT[way](read)

    with interrupts.Interrupts() as found:
        sending = threading.Thread(target=send)
        with pytest.raises(interrupts.Interrupted, match=why):
            wait()
        assert sending.is_alive(), "it was heard at last, since it was said again"
        heard.set()
        sending.join()
        with found.raising():  # that was all
            pass
    os.close(read)
    os.close(write)


def test_it_leaves_nothing_behind() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    for _ in range(20):
        with interrupts.Interrupts() as found:
            found.interrupt("now")
            with pytest.raises(interrupts.Interrupted, match="now"), found.raising():
                pass
    assert signal.set_wakeup_fd(-1) == -1
    found.interrupt("too late")
    assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]


def test_a_backlog_gives_back_what_it_got_in_its_order() -> None:
    backlog = Backlog()
    random.seed(7)
    given, taken = bytearray(), bytearray()
    for _ in range(200):
        data = random.randbytes(random.randrange(1, 40_000))
        given += data
        backlog.add(data)
        if random.random() < 0.3:
            item = backlog.take()
            assert isinstance(item, bytes)
            taken += item
    assert len(given) - len(taken) > MOST_IN_MEMORY
    while (item := backlog.take()) is not None:
        assert isinstance(item, bytes)
        taken += item
    assert taken == given
    assert backlog.lost == 0
    backlog.close()


def test_messages_keep_their_place() -> None:
    backlog = Backlog()
    for item in (b"one", Message("two"), b"x" * MOST_IN_MEMORY, Message("three")):
        backlog.add(item)
    found = [backlog.take() for _ in range(5)]
    assert found == [b"one", Message("two"), b"x" * MOST_IN_MEMORY, b"\r\nthree\r\n", None]
    assert isinstance(found[1], Message)
    backlog.close()


def test_a_writer_whose_reader_has_gone_says_so_once() -> None:
    read, write = os.pipe()
    os.close(read)
    errors: list[OSError] = []
    writer = Writer(Plain(write), failed=errors.append)
    writer.data(b"text")
    until(lambda: errors)
    writer.data(b"more")
    assert writer.close(LIMIT)
    assert len(errors) == 1
    os.close(write)
