"""Which of QEMU's arguments `FakeQEMU` knows, and what it refuses: the real one and the fake side by side."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.waiting import LIMIT, until
from vmfsm.testing import FakeQEMU
from vmfsm.testing import actions as do

Address = str | bytes | tuple[str, int]
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a binary with arguments; all are gone at the end."""
    with contextlib.ExitStack() as stack:

        def start(binary: str, *args: str, pass_fds: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(
                [binary, "-M", "none", "-nodefaults", "-display", "none", *args],
                pass_fds=pass_fds,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            stack.callback(process.communicate)
            stack.callback(process.kill)
            return process

        yield start


@pytest.fixture(params=["fake", "real"])
def binary(request: pytest.FixtureRequest, qemu: str) -> Iterator[str]:
    """Both of them: what is true of one is true of the other."""
    if request.param == "real":
        yield qemu
    else:
        with FakeQEMU() as fake:
            yield fake.binary


def set_up(start: Start, binary: str, *args: str) -> subprocess.Popen[bytes]:
    """Starts a binary, and returns when it executes commands.

    Before that nobody should connect to a real one that listens: it watches the socket in two threads while
    it sets a monitor up, and may greet whoever comes in that moment twice, or never.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs, ours.makefile("rb") as lines:
        ours.settimeout(LIMIT)
        fd = theirs.fileno()
        own = ("-chardev", f"socket,id=own,fd={fd}", "-mon", "chardev=own,mode=control")
        process = start(binary, *own, *args, pass_fds=(fd,))
        ours.sendall(b'{"execute": "qmp_capabilities"}{"execute": "query-status"}')
        said = [lines.readline() for _ in range(3)]
        assert b"running" in said[2], (said, process.communicate())
    return process


@contextlib.contextmanager
def connected(address: Address, process: subprocess.Popen[bytes]) -> Iterator[socket.socket]:
    """A connection to who listens there, as soon as somebody does."""
    family = socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX

    def connect() -> socket.socket | None:
        assert process.poll() is None, process.communicate()
        made = socket.socket(family, socket.SOCK_STREAM)
        try:
            made.connect(address)
        except OSError:
            made.close()
            return None
        return made

    with contextlib.ExitStack() as stack:
        found: list[socket.socket] = []

        def is_connected() -> bool:
            made = connect()
            if made is not None:
                found.append(stack.enter_context(made))
            return made is not None

        until(is_connected)
        found[0].settimeout(LIMIT)
        yield found[0]


def greeted(connection: socket.socket) -> bool:
    with connection.makefile("rb") as lines:  # -qmp-pretty has line ends in a message
        return lines.readline().startswith(b'{"QMP"') or lines.readline().lstrip().startswith(b'"QMP"')


@pytest.fixture
def port() -> Iterator[int]:
    """A port of TCP that nobody else gets meanwhile: with `SO_REUSEADDR` it can be bound twice (ip(7))."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


UNIX = [
    ["-chardev", "socket,id=m,path={path},server=on,wait=off", "-mon", "chardev=m,mode=control"],
    ["-chardev", "socket,path={path},server,nowait,id=m", "-mon", "m,mode=control"],
    ["-chardev", "backend=socket,id=m,path={path},server=yes,wait=no", "-mon", "id=x,mode=control,chardev=m"],
    ["--chardev", "socket,id=m,path={path},server=on,wait=off", "--mon", "chardev=m,mode=control"],
    ["-chardev", "socket,id=m,path={path},server=on,wait=off", "-qmp", "chardev:m"],
    ["-qmp", "unix:{path},server=on,wait=off"],
    ["-qmp", "unix:{path},server,nowait"],
    ["-qmp-pretty", "unix:{path},server=on,wait=off"],
]


@pytest.mark.parametrize("args", UNIX, ids=" ".join)
def test_monitors_at_a_path(start: Start, binary: str, tmp_path: Path, args: list[str]) -> None:
    path = str(tmp_path / "a,b")
    process = set_up(start, binary, *(arg.format(path=path.replace(",", ",,")) for arg in args))
    with connected(path, process) as connection:
        assert greeted(connection)


@pytest.mark.parametrize(
    "args",
    [
        ["-chardev", "socket,id=m,host=127.0.0.1,port={port},server=on,wait=off", "-qmp", "chardev:m"],
        ["-chardev", "socket,id=m,port={port},host=,server=on,wait=off", "-mon", "m,mode=control"],
        [
            "-chardev",
            "socket,id=m,host=localhost,port={port},ipv4=on,server=on,wait=off",
            "-qmp",
            "chardev:m",
        ],
        ["-qmp", "tcp:127.0.0.1:{port},server=on,wait=off"],
        ["-qmp", "tcp::{port},server,nowait"],
        ["-qmp", "tcp:localhost:{port},server=on,wait=off,nodelay=on"],
    ],
    ids=" ".join,
)
def test_monitors_at_a_port(start: Start, binary: str, port: int, args: list[str]) -> None:
    process = set_up(start, binary, *(arg.format(port=port) for arg in args))
    with connected(("127.0.0.1", port), process) as connection:
        assert greeted(connection)


@pytest.mark.parametrize("tight", [True, False])
def test_monitors_with_an_abstract_name(start: Start, binary: str, tmp_path: Path, tight: bool) -> None:
    name = b"\0" + os.fsencode(tmp_path / "m")[-60:]
    options = f"abstract=on{'' if tight else ',tight=off'},server=on,wait=off"
    chardev = f"socket,id=m,path={name[1:].decode()},{options}"
    process = set_up(start, binary, "-chardev", chardev, "-qmp", "chardev:m")
    with connected(name if tight else name.ljust(108, b"\0"), process) as connection:
        assert greeted(connection)


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_monitors_that_connect_to_the_harness(start: Start, binary: str, tmp_path: Path, kind: str) -> None:
    with socket.socket(socket.AF_INET if kind == "tcp" else socket.AF_UNIX) as harness:
        harness.settimeout(LIMIT)
        harness.bind(("127.0.0.1", 0) if kind == "tcp" else str(tmp_path / "m"))
        harness.listen(1)
        name = harness.getsockname()
        where = f"host={name[0]},port={name[1]}" if kind == "tcp" else f"path={name}"
        start(binary, "-chardev", f"socket,id=m,{where}", "-mon", "chardev=m,mode=control")
        connection, _ = harness.accept()
        with connection:
            connection.settimeout(LIMIT)
            assert greeted(connection)


def test_a_path_is_taken_over_and_removed(start: Start, binary: str, tmp_path: Path) -> None:
    """Of who did not end well there is one left; who ends well removes it."""
    path = str(tmp_path / "m")
    for end in (signal.SIGKILL, signal.SIGTERM):
        process = set_up(start, binary, "-qmp", f"unix:{path},server=on,wait=off")
        with connected(path, process) as connection:
            assert greeted(connection)
            connection.sendall(b'{"execute": "qmp_capabilities"}')
            assert b"return" in connection.recv(1000)
        process.send_signal(end)
        process.wait(LIMIT)
        assert os.path.exists(path) is (end == signal.SIGKILL)


def test_wait_holds_up_all_until_somebody_is_there(start: Start, tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with FakeQEMU() as fake, ours, theirs:
        process = start(
            fake.binary,
            *("-chardev", f"socket,id=m,fd={theirs.fileno()}", "-mon", "chardev=m,mode=control"),
            *("-chardev", f"socket,id=a,path={tmp_path / 'a'},server=on", "-qmp", "chardev:a"),
            *("-serial", f"unix:{tmp_path / 'b'},server=on,wait=on"),
            pass_fds=(theirs.fileno(),),
        )
        with connected(str(tmp_path / "a"), process) as first:
            assert select.select([ours, first], [], [], 0.1)[0] == []
            with connected(str(tmp_path / "b"), process):
                ours.settimeout(LIMIT)
                assert greeted(ours)
                assert greeted(first)


REFUSED = [
    (["-chardev", "socket,id=m,path={tmp}/no/such,server=on,wait=off", "-qmp", "chardev:m"], "No such file"),
    (["-chardev", "socket,id=m,path={tmp}/nobody", "-mon", "chardev=m,mode=control"], "No such file"),
    (["-chardev", "socket,id=m,fd=77", "-mon", "chardev=m,mode=control"], "77"),
    (["-chardev", "socket,id=m,fd=0", "-mon", "chardev=m,mode=control"], "not a socket"),
    (["-chardev", "socket,id=m,fd=x", "-mon", "chardev=m,mode=control"], "Unable to parse FD number x"),
    (["-chardev", "socket,id=m", "-mon", "chardev=m,mode=control"], "Unable to parse FD number"),
    (
        ["-chardev", "socket,id=m,path={tmp}/m,server=maybe", "-mon", "m,mode=control"],
        "expects 'on' or 'off'",
    ),
    (["-chardev", "null,id=m", "-chardev", "null,id=m"], "Duplicate ID 'm'"),
    (["-mon", "chardev=m,mode=control"], 'chardev "m" not found'),
    (["-qmp", "chardev:m"], 'chardev "m" not found'),
    (["-serial", "chardev:m"], "chardev"),
]


@pytest.mark.parametrize(("args", "said"), REFUSED, ids=[" ".join(args) for args, _ in REFUSED])
def test_what_is_refused(start: Start, binary: str, tmp_path: Path, args: list[str], said: str) -> None:
    process = start(binary, *(arg.format(tmp=tmp_path) for arg in args))
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 1
    assert said in errors.decode()
    assert "Traceback" not in errors.decode()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["-qmp", "stdio"], "sockets only"),
        (["-chardev", "pty,id=m", "-mon", "chardev=m,mode=control"], "sockets only"),
        (["-chardev", "socket,id=m,port=1,server=on", "-serial", "chardev:m", "-qmp", "chardev:m"], "in use"),
    ],
)
def test_what_the_fake_refuses(start: Start, args: list[str], said: str) -> None:
    """Rather than to have a harness wait for what never comes."""
    with FakeQEMU() as fake:
        process = start(fake.binary, *args)
        assert said in process.communicate(timeout=LIMIT)[1].decode()
        assert process.returncode == 1


def test_several_consoles_and_what_is_none(start: Start, port: int, tmp_path: Path) -> None:
    """They are numbered as they come; what is no socket, or no console, has no number."""
    device = {"driver": "virtserialport", "chardev": "d", "name": "org.example"}
    with (
        FakeQEMU(ready=[do.say(f"{n}", console=n) for n in range(3)]) as fake,
        contextlib.ExitStack() as stack,
    ):
        process = start(
            fake.binary,
            *("-chardev", f"socket,id=v,path={tmp_path / 'vhost'},server=on"),
            *("-device", "vhost-user-fs-pci,chardev=v,tag=x"),
            *("-serial", "null", "-serial", "stdio", "-monitor", "none"),
            *("-serial", f"unix:{tmp_path / 'a'},server=on"),
            *("-serial", f"tcp:127.0.0.1:{port},server=on"),
            *("-chardev", f"socket,id=d,path={tmp_path / 'c'},server=on", "-device", json.dumps(device)),
        )
        addresses: list[Address] = [str(tmp_path / "a"), ("127.0.0.1", port), str(tmp_path / "c")]
        consoles = [stack.enter_context(connected(address, process)) for address in addresses]
        assert [console.recv(10) for console in consoles] == [b"0", b"1", b"2"]
