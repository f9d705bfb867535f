"""A socket, or a file, that stands for a console."""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.plugins.fake_console import program
from tests.waiting import LIMIT, InThread, rests, until
from vmfsm import ConfigError, Machine, hookimpl
from vmfsm.testing import GUEST_ARGS

Make = Callable[..., Machine]


@pytest.fixture
def vm(qemu: str) -> Iterator[Machine]:
    """A machine with the tiny guest."""
    with Machine(qemu, GUEST_ARGS, block=["qmp"]) as machine:
        machine.launch()
        yield machine


@pytest.fixture
def run() -> Iterator[Make]:
    """Runs code in QEMU's place."""
    machines = []

    def run(code: str, **options: object) -> Machine:
        machine = Machine(
            "true", wrapper=program(code), display=None, block=["qmp"], options={"console": options}
        )
        machines.append(machine)
        return machine.launch()

    yield run
    for machine in machines:
        machine.kill()


def read_until(end: socket.socket, last: bytes) -> bytes:
    end.settimeout(LIMIT)
    data = b""
    while not data.endswith(last):
        more = end.recv(65536)
        assert more, data
        data += more
    return data


def read_all(end: socket.socket) -> bytes:
    end.settimeout(LIMIT)
    parts = []
    while data := end.recv(65536):
        parts.append(data)
    return b"".join(parts)


def test_gets_what_was_and_what_comes_and_speaks_to_the_guest(vm: Machine) -> None:
    vm.console.expect("> ")
    with vm.console.socket() as one, vm.console.socket() as two:
        assert read_until(one, b"> ") == b"vmfsm guest ready\r\n> "
        one.sendall(b"ping\n")
        assert read_until(one, b"> ") == b"echo: ping\r\npong\r\n> "
        assert read_until(two, b"pong\r\n> ") == vm.console.data
        vm.console.expect("pong")
        vm.console.sendline("poweroff")
        assert read_all(two) == b"echo: poweroff\r\n"
    vm.wait(timeout=LIMIT)


def test_a_reader_that_went_is_forgotten(vm: Machine) -> None:
    vm.console.expect("> ")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        vm.console.socket().close()
    until(lambda: len(os.listdir("/proc/self/fd")) <= before)


def test_half_closed(vm: Machine) -> None:
    vm.console.expect("> ")
    with vm.console.socket() as end:
        end.sendall(b"ping\n")
        end.shutdown(socket.SHUT_WR)
        read_until(end, b"pong\r\n> ")
        vm.console.sendline("ping")
        read_until(end, b"pong\r\n> ")


@pytest.mark.parametrize("guest", ["", "consoles[0].recv(1)"], ids=["not reading", "reading a byte"])
def test_half_closed_and_then_closed(run: Make, guest: str) -> None:
    """While the console is silent."""
    vm = run(guest)
    before = len(os.listdir("/proc/self/fd"))
    with contextlib.ExitStack() as ends:
        for _ in range(20):
            end = ends.enter_context(vm.console.socket())
            end.sendall(b"x")
            end.shutdown(socket.SHUT_WR)
        (thread,) = (thread for thread in threading.enumerate() if thread.name == "vmfsm-io")
        until(lambda: rests(thread))  # nobody is busy waiting
    until(lambda: len(os.listdir("/proc/self/fd")) <= before)


def test_what_was_written_before_closing_arrives(run: Make) -> None:
    vm = run(
        "consoles[0].sendall(b'hello' * 100000)\n"
        "n = 0\n"
        "while n < 20000: n += len(consoles[0].recv(65536)); consoles[0].sendall(b'more')\n"
        "consoles[0].sendall(b'END')"
    )
    with vm.console.socket() as end:
        end.sendall(b"x" * 20_000)
    vm.console.expect("END", timeout=LIMIT)


def test_files(vm: Machine) -> None:
    vm.console.expect("> ")
    with vm.console.file("rw") as file, vm.console.file("rb") as raw:
        assert file.readline() == "vmfsm guest ready\n"
        assert raw.readline() == b"vmfsm guest ready\r\n"
        file.write("ping\n")
        assert file.readline() == "> echo: ping\n"
    for mode in ("", "a", "x", "r?"):
        with pytest.raises(ConfigError):
            vm.console.file(mode)


def test_a_slow_reader_holds_up_nobody(run: Make) -> None:
    """It gets what is kept, and then, after the end, the rest and the end of file."""
    vm = run(
        "os.read(consoles[0].fileno(), 1)\n"
        "for n in range(3000): consoles[0].sendall(b'%05d ' % n * 1000)\n"
        "consoles[0].sendall(b'END'); os._exit(0)"
    )
    with vm.console.socket() as end:
        vm.console.send("x")
        vm.console.expect("END", timeout=LIMIT)
        vm.wait(timeout=LIMIT)
        data = read_all(end)
    assert data.endswith(b"02999 END")
    assert len(data) >= 1024 * 1024  # what the socket held from the beginning, and what is kept


def test_nothing_is_lost_to_a_reader_within_the_bound(run: Make) -> None:
    vm = run(
        "os.read(consoles[0].fileno(), 1)\n"
        "for n in range(100000): consoles[0].sendall(b'%05d\\n' % n)\n"
        "os._exit(0)"
    )
    with vm.console.socket() as end:
        vm.console.send("x")
        vm.wait(timeout=LIMIT)
        assert read_all(end) == b"".join(b"%05d\n" % n for n in range(100_000))


def test_a_writer_that_is_not_read_does_not_hold_up_the_end(run: Make) -> None:
    vm = run("")
    with vm.console.socket() as end:
        writing = InThread(end.sendall, b"x" * 5_000_000)
        vm.kill()
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            writing.result()


def test_after_the_end(vm: Machine) -> None:
    vm.console.expect("> ")
    vm.shutdown()
    with vm.console.socket() as end:
        assert read_all(end) == b"vmfsm guest ready\r\n> "


def test_in_an_async_hook(qemu: str) -> None:
    class Takes:
        name = "takes"

        @hookimpl
        async def post_launch(self, machine: Machine) -> None:
            self.end = machine.console.socket()

    plugin = Takes()
    with Machine(qemu, GUEST_ARGS, plugins=[plugin], block=["qmp"]) as vm:
        vm.launch()
        with plugin.end:
            assert read_until(plugin.end, b"> ") == b"vmfsm guest ready\r\n> "
