"""Consoles of a process that says anything, at any speed, and reads as it likes."""

import asyncio
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from vmfsm_plugins.console.expect import Cursor, Expected, Search

from tests.plugins.fake_console import program
from tests.waiting import SLACK, InThread, until
from vmfsm import ConsoleClosed, Machine, MachineDied, MachineTimeout

Make = Callable[..., Machine]


@pytest.fixture
def run() -> Iterator[Make]:
    """Runs code in QEMU's place. Takes the console's options."""
    machines = []

    def run(code: str, options: object = None) -> Machine:
        settings = {} if options is None else {"console": options}
        machine = Machine("true", wrapper=program(code), display=None, block=["qmp"], options=settings)  # type: ignore[arg-type]
        machines.append(machine)
        return machine.launch()

    yield run
    for machine in machines:
        machine.kill()


def test_half_characters_and_bytes_that_are_none(run: Make) -> None:
    vm = run(
        r"""
for byte in "Grüße €😀".encode() + b"\xff\xe2\x82|\xf0\x9f":
    consoles[0].sendall(bytes([byte]))
    time.sleep(0.002)
consoles[0].close()
"""
    )
    vm.console.expect(r"\|")
    until(lambda: vm.console.closed)
    assert vm.console.text == "Grüße €😀\ufffd\ufffd|\ufffd"
    assert vm.console.read() == "\ufffd"
    assert Path(vm.console.path).read_bytes() == "Grüße €😀".encode() + b"\xff\xe2\x82|\xf0\x9f"


def test_bytes_and_text_share_one_position(run: Make) -> None:
    vm = run(r"""consoles[0].sendall("äää-\n".encode() + b"\xff\xff-\n" + "öö-\n".encode())""")
    assert vm.console.expect("-", timeout=20).before == "äää"
    assert vm.console.expect(b"-", timeout=20).before == b"\n\xff\xff"
    assert vm.console.expect("\n", timeout=20).before == ""
    assert vm.console.expect(b"\xc3\xb6", "öö", timeout=20).index == 0  # they begin together
    assert vm.console.read() == "ö-\n"


def test_the_earliest_match_wins(run: Make) -> None:
    vm = run("""consoles[0].sendall(b"one two three\\nfour\\n")""")
    until(lambda: "four" in vm.console.text)
    assert vm.console.expect("three", "two", timeout=20).index == 1
    assert vm.console.expect(b"four", "^four", "three$", timeout=20).index == 2
    assert vm.console.expect("four", b"fo", timeout=20).index == 0
    assert vm.console.expect("x|", timeout=20).match.group() == ""


def test_a_line_of_50_mb(run: Make) -> None:
    vm = run("for _ in range(50): consoles[0].sendall(b'x' * 1000000)\nconsoles[0].sendall(b' THE END')")
    found = vm.console.expect("THE (END)", timeout=100)
    assert found.match.group(1) == "END"
    assert len(found.before) <= 1024 * 1024
    assert vm.console.lost >= 48_000_000
    assert os.path.getsize(vm.console.path) == 50_000_008
    assert len(vm.console.text) == 1024 * 1024
    assert len(vm.console.lines()) == 1


def test_nothing_is_missed_in_a_flood(run: Make) -> None:
    """A match that is far smaller than what comes at once is found, though more falls out than is kept."""
    code = """
for number in range(3000):
    consoles[0].sendall(b"y" * 9973 + b"needle %d." % number)
    if number % 500 == 499: os.read(consoles[0].fileno(), 1)
"""
    vm = run(code, {"buffer": 40_000})
    for number in range(499, 3000, 500):
        vm.console.expect(rf"needle {number}\.", timeout=60)
        vm.console.send("x")
    assert vm.console.lost > 20_000_000


def test_expect_in_a_flood_is_not_quadratic(run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A megabyte that is not read, and then pieces that come one by one: few of them are worth a search."""
    code = """
consoles[0].sendall(b"x" * 1000000)
for number in range(1500): consoles[0].send(b"y"); time.sleep(0.002)
consoles[0].sendall(b"END")
"""
    searches = []
    find = Cursor.find

    def timed(self: Cursor, search: Search) -> Expected | None:
        begin = time.monotonic()
        found = find(self, search)
        searches.append(time.monotonic() - begin)
        return found

    monkeypatch.setattr(Cursor, "find", timed)
    vm = run(code)
    begin = time.monotonic()
    assert vm.console.expect("[ab]z", "[cd]z", "[ef]z", "END", timeout=100).index == 3
    total = time.monotonic() - begin
    beyond = sorted(searches)[:-5]  # those while the megabyte came; with a search for each piece it is all
    assert sum(beyond) < 0.3 * total, (searches, total)


def test_small_buffer_and_whole_file(run: Make) -> None:
    vm = run("for n in range(100000): consoles[0].sendall(b'%06d\\n' % n)", {"buffer": 700})
    until(lambda: "099999\n" in vm.console.text)
    assert vm.console.text == "".join(f"{n:06d}\n" for n in range(99_900, 100_000))
    whole = b"".join(b"%06d\n" % n for n in range(100_000))
    assert Path(vm.console.path).read_bytes() == whole
    assert vm.console.lost == 700_000 - 700
    assert vm.console.read(7) == "099900\n"
    assert vm.console.lost == 700_000 - 700


def test_other_encodings(run: Make) -> None:
    vm = run(
        "consoles[0].sendall('é€'.encode('cp1252'))\nassert consoles[0].recv(9) == b'\\x80\\r'\n"
        "consoles[0].sendall(b'ok')",
        {"encoding": "cp1252", "newline": "\r"},
    )
    vm.console.expect("é€", timeout=20)
    vm.console.sendline("€")
    vm.console.expect("ok", timeout=20)


def test_end_of_file_while_it_lives(run: Make) -> None:
    vm = run("consoles[0].sendall(b'last words'); consoles[0].close()")
    with pytest.raises(ConsoleClosed):
        vm.console.expect("never", timeout=20)
    assert vm.console.expect("words", timeout=20).before == "last "
    with pytest.raises(ConsoleClosed):
        vm.console.expect("words", timeout=20)
    with pytest.raises(ConsoleClosed):
        vm.console.send("x", timeout=20)


@pytest.mark.parametrize("twin", [False, True], ids=["call", "twin"])
def test_end_of_file_just_before_the_end(run: Make, twin: bool) -> None:
    """They come one after the other; it is the end of QEMU that counts."""
    vm = run("os.read(consoles[0].fileno(), 1)\nconsoles[0].close()\ntime.sleep(0.2)\nos._exit(0)")
    vm.console.send("x")

    def expect() -> object:
        if twin:
            return asyncio.run(vm.console.aio.expect("never", timeout=20))
        return vm.console.expect("never", timeout=20)

    with pytest.raises(MachineDied):
        expect()


def test_send_to_a_peer_that_never_reads(run: Make) -> None:
    vm = run("")
    with pytest.raises(MachineTimeout, match=r"QEMU took [1-9]\d* of 5000000 bytes"):
        vm.console.send(b"x" * 5_000_000, timeout=0.5)
    with pytest.raises(MachineTimeout, match="QEMU took 0 of 4 bytes"):
        vm.console.send("more", timeout=0.2)


def test_large_sends_arrive_whole(run: Make) -> None:
    data = os.urandom(3_000_000)
    vm = run(
        "import hashlib; d = hashlib.sha256(); n = 0\n"
        "while n < 3000000: b = consoles[0].recv(65536); d.update(b); n += len(b)\n"
        "consoles[0].sendall(b'SUM ' + d.hexdigest().encode())"
    )
    vm.console.send(data, timeout=60)
    assert (
        vm.console.expect(b"SUM (.{64})", timeout=60).match.group(1).decode()
        == hashlib.sha256(data).hexdigest()
    )


def test_threads_that_send_at_once_are_not_mixed_up(run: Make) -> None:
    vm = run("while True: consoles[0].sendall(consoles[0].recv(65536))", {"buffer": 8_000_000})
    letters = b"abcd"
    go = threading.Barrier(len(letters))

    def send(letter: int) -> None:
        go.wait()
        for _ in range(5):
            vm.console.send(bytes([letter]) * 300_000 + b"\n", timeout=60)

    for thread in [InThread(send, letter) for letter in letters]:
        thread.result(60)
    until(lambda: vm.console.text.count("\n") == 20)
    assert sorted(vm.console.lines()) == sorted(chr(letter) * 300_000 for letter in letters for _ in range(5))


def test_readers_in_many_threads_share_what_comes(run: Make) -> None:
    vm = run("for n in range(20000): consoles[0].sendall(b'%05d\\n' % n)\nconsoles[0].close()")

    def read() -> list[str]:
        parts = []
        while True:
            closed = vm.console.closed
            part = vm.console.read(17)
            parts.append(part)
            if closed and not part:
                return parts

    parts = [part for reader in [InThread(read) for _ in range(3)] for part in reader.result(60)]
    assert sum(map(len, parts)) == 120_000
    assert sorted("".join(parts)) == sorted("".join(f"{n:05d}\n" for n in range(20_000)))


def test_all_that_was_said_before_the_end_is_there(run: Make) -> None:
    vm = run("for _ in range(200): consoles[0].sendall(b'x' * 1000)\nconsoles[0].sendall(b'!'); os._exit(0)")
    vm.wait(timeout=30)
    assert len(vm.console.text) == 200_001
    assert vm.console.expect("!").match.group() == "!"


def test_a_process_left_behind_does_not_hold_up_the_end(run: Make) -> None:
    """It holds the console open, in a session of its own, and floods it."""
    code = """
if os.fork() == 0:
    os.setsid()
    end = time.monotonic() + 60
    try:
        while time.monotonic() < end: consoles[0].sendall(b"x" * 60000)
    except OSError: pass
    os._exit(0)
time.sleep(0.2)
os._exit(0)
"""
    vm = run(code)
    begin = time.monotonic()
    vm.wait(timeout=30)
    assert time.monotonic() - begin < SLACK
    assert vm.console.closed
