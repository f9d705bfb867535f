"""The tiny guest does on a real QEMU what it says. vmfsm takes no part: its own tests rest on this guest."""

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from vmfsm.testing import GUEST, GUEST_ARGS

LIMIT = 30.0  # seconds that anything here may take, on a busy machine
MAKEFILE = Path(__file__).parents[1] / "Makefile"


class Guest:
    """A QEMU with the guest in it, at its first prompt."""

    def __init__(self, *args: str) -> None:
        self.serial, serial = socket.socketpair()
        self.monitor, monitor = socket.socketpair()
        with serial, monitor:
            self.process = subprocess.Popen(
                [
                    *("qemu-system-x86_64", "-display", "none", *GUEST_ARGS),
                    *("-chardev", f"socket,id=serial,fd={serial.fileno()}", "-serial", "chardev:serial"),
                    *("-chardev", f"socket,id=qmp,fd={monitor.fileno()}", "-mon", "chardev=qmp,mode=control"),
                    *args,
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(serial.fileno(), monitor.fileno()),
            )
        self.received = b""
        self.events: list[dict[str, Any]] = []
        self.monitor.settimeout(LIMIT)
        self.replies = self.monitor.makefile("r")
        self.message()  # the greeting
        self.execute("qmp_capabilities")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        output, _ = self.process.communicate(timeout=LIMIT)
        self.replies.close()
        self.monitor.close()
        self.serial.close()
        if error is None:
            assert output == b"", "GUEST_ARGS make QEMU complain"

    def read_until(self, end: bytes) -> bytes:
        """What the guest has sent, up to and with `end`."""
        deadline = time.monotonic() + LIMIT
        while end not in self.received:
            self.serial.settimeout(max(0.001, deadline - time.monotonic()))
            data = self.serial.recv(65536)
            assert data, f"the guest is gone, its last words: {self.received!r}"
            self.received += data
        head, _, self.received = self.received.partition(end)
        return head + end

    def say(self, data: bytes) -> None:
        self.serial.sendall(data)

    def message(self) -> dict[str, Any]:
        line = self.replies.readline()
        assert line, "QEMU is gone"
        message: dict[str, Any] = json.loads(line)
        return message

    def execute(self, command: str, **arguments: object) -> Any:
        self.monitor.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while "return" not in (message := self.message()):
            assert "event" in message, message
            self.events.append(message)
        return message["return"]

    def event(self, name: str) -> dict[str, Any]:
        """The data of the next event of this name."""
        deadline = time.monotonic() + LIMIT
        while True:
            message = self.events.pop(0) if self.events else self.message()
            if message["event"] == name:
                data: dict[str, Any] = message["data"]
                return data
            assert time.monotonic() < deadline, f"no {name}"

    def wait_halted(self, *, interrupts: bool) -> None:
        """Until the processor sleeps, with interrupts on or off."""
        deadline = time.monotonic() + LIMIT
        while True:
            registers = self.execute("human-monitor-command", **{"command-line": "info registers"})
            flags = int(re.search(r"EFL=(\w+)", registers)[1], 16)  # type: ignore[index]
            if "HLT=1" in registers and bool(flags & 0x200) == interrupts:
                return
            assert time.monotonic() < deadline, registers


Boot = Callable[..., Guest]


@pytest.fixture
def boot() -> Iterator[Boot]:
    with ExitStack() as guests:

        def boot(*args: str) -> Guest:
            guest = guests.enter_context(Guest(*args))
            assert guest.read_until(b"> ") == b"vmfsm guest ready\r\n> "
            return guest

        yield boot


@pytest.mark.skipif(not (shutil.which("as") and shutil.which("ld")), reason="needs as and ld (binutils)")
def test_source_gives_binary(tmp_path: Path) -> None:
    image = GUEST.relative_to(MAKEFILE.parent)
    source = image.with_suffix(".S")
    (tmp_path / image.parent).mkdir(parents=True)
    shutil.copy(MAKEFILE.parent / source, tmp_path / source)
    subprocess.run(["make", "-C", tmp_path, "-f", MAKEFILE, image], check=True, timeout=LIMIT)
    assert (tmp_path / image).read_bytes() == GUEST.read_bytes()


def test_each_line_end_ends_one_line(boot: Boot) -> None:
    guest = boot()
    guest.say(b"cr\rlf\ncrlf\r\n\nlast\n")
    expected = b"".join(b"echo: %b\r\n> " % line for line in (b"cr", b"lf", b"crlf", b"", b"last"))
    assert guest.read_until(b"last\r\n> ") == expected


def test_answers_a_ping(boot: Boot) -> None:
    guest = boot()
    guest.say(b"ping\n")
    assert guest.read_until(b"> ") == b"echo: ping\r\npong\r\n> "


@pytest.mark.parametrize("line", [b"pin", b"pings", b" ping", b"PING", b"exit", b"exit 1x", b"exit x"])
def test_only_echoes_what_is_no_command(boot: Boot, line: bytes) -> None:
    guest = boot()
    guest.say(line + b"\n")
    assert guest.read_until(b"> ") == b"echo: " + line + b"\r\n> "


def test_an_overlong_line_is_cut(boot: Boot) -> None:
    guest = boot()
    guest.say(b"x" * 10_000 + b"\nping\n")
    assert guest.read_until(b"> ") == b"echo: " + b"x" * 4095 + b"\r\n> "
    assert guest.read_until(b"> ") == b"echo: ping\r\npong\r\n> "


def test_loses_no_input_while_it_prints(boot: Boot) -> None:
    guest = boot()
    lines = [b"line %d" % number for number in range(1000)]
    guest.say(b"\n".join(lines) + b"\n")
    expected = b"".join(b"echo: %b\r\n> " % line for line in lines)
    assert guest.read_until(b"line 999\r\n> ") == expected


def test_sleeps_while_it_waits_and_wakes_up(boot: Boot) -> None:
    guest = boot()
    for _ in range(3):
        guest.wait_halted(interrupts=True)
        guest.say(b"ping\n")
        guest.read_until(b"pong\r\n> ")


@pytest.mark.parametrize("number", [0, 7, 42, 127])
def test_exit_sets_the_status(boot: Boot, number: int) -> None:
    guest = boot()
    guest.say(b"exit %d\n" % number)
    assert guest.process.wait(LIMIT) == 2 * number + 1


def test_poweroff(boot: Boot) -> None:
    guest = boot()
    guest.say(b"poweroff\n")
    assert guest.event("SHUTDOWN") == {"guest": True, "reason": "guest-shutdown"}
    assert guest.process.wait(LIMIT) == 0


@pytest.mark.parametrize("command", [b"reboot", b"triple"])
def test_resets_and_boots_again(boot: Boot, command: bytes) -> None:
    guest = boot()
    guest.say(command + b"\n")
    assert guest.event("RESET") == {"guest": True, "reason": "guest-reset"}
    assert guest.read_until(b"> ") == b"echo: " + command + b"\r\nvmfsm guest ready\r\n> "


@pytest.mark.parametrize("command", [b"reboot", b"triple"])
def test_only_triple_is_a_triple_fault(boot: Boot, tmp_path: Path, command: bytes) -> None:
    log = tmp_path / "cpu.log"
    guest = boot("-no-reboot", "-d", "cpu_reset", "-D", str(log))
    guest.say(command + b"\n")
    assert guest.event("SHUTDOWN") == {"guest": True, "reason": "guest-reset"}
    assert guest.process.wait(LIMIT) == 0
    assert ("Triple fault" in log.read_text()) == (command == b"triple")


def test_panic(boot: Boot) -> None:
    guest = boot("-action", "panic=pause")
    guest.say(b"panic\n")
    assert guest.event("GUEST_PANICKED")["action"] == "pause"
    assert guest.execute("query-status")["status"] == "guest-panicked"
    guest.execute("cont")
    assert guest.read_until(b"> ") == b"echo: panic\r\n> "


def test_flood_goes_on_and_loses_nothing(boot: Boot) -> None:
    guest = boot()
    guest.say(b"flood\n")
    guest.read_until(b"echo: flood\r\n")
    flood = guest.read_until(b"flood %08x\r\n" % 5000)
    assert flood == b"".join(b"flood %08x\r\n" % number for number in range(5001))


def test_hang_is_deaf(boot: Boot) -> None:
    guest = boot()
    guest.say(b"hang\n")
    guest.read_until(b"echo: hang\r\n")
    guest.wait_halted(interrupts=False)
    guest.say(b"ping\n")
    guest.execute("system_powerdown")
    guest.wait_halted(interrupts=False)
    guest.serial.setblocking(False)
    with pytest.raises(BlockingIOError):
        guest.serial.recv(1)
