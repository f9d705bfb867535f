"""The control socket is for this user; what answers there is this user's."""

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.control.harnesses import doing, program
from tests.security.another_user import needs_another_user, try_to, who_goes_on
from vmfsm import control
from vmfsm.control.channel import Channel
from vmfsm.deadline import Deadline

pytestmark = pytest.mark.usefixtures("qemu")

ASK = """
with socket.socket(socket.AF_UNIX) as asking:
    asking.settimeout(30)
    asking.connect(sys.argv[1])
    print(asking.recv(1000))
"""
LISTEN = """
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o777)
listener.listen()
"""
IDLE = doing("wait()")


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that others may look into."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="vmfsm-test-") as directory:
        os.chmod(directory, 0o777)
        yield Path(directory)


@pytest.fixture
def registry(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry of its own, for this process and its children."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(shared))
    return shared / "vmfsm"


def test_modes(registry: Path) -> None:
    """Also with an umask of 0."""
    with program("os.umask(0)\n" + IDLE) as ran:
        ran.said()
        (path,) = registry.glob("*.sock")
        assert (registry.stat().st_mode & 0o777, path.stat().st_mode) == (0o700, stat.S_IFSOCK | 0o600)
        ran.go_on()
        assert ran.end() == (0, "")


@needs_another_user
def test_nobody_gets_in(registry: Path) -> None:
    with program(IDLE) as ran:
        path = ran.said().socket
        assert try_to(ASK, path) == "PermissionError"


@needs_another_user
def test_nobody_is_answered(registry: Path) -> None:
    """Even where somebody has opened the way."""
    with program(IDLE) as ran:
        path = ran.said().socket
        registry.chmod(0o711)
        os.chmod(path, 0o666)
        assert try_to(ASK, path) in {"b''", "ConnectionResetError"}
        registry.chmod(0o700)
        with ran.find() as client:
            assert client.snapshot()["state"] == "running"


@needs_another_user
def test_somebody_else_is_not_asked(shared: Path) -> None:
    path = shared / "socket"
    with who_goes_on(LISTEN, path):
        with pytest.raises(PermissionError, match="somebody else is at the other end"):
            Channel(str(path), Deadline(10))
        with control.Client(str(path), "guest") as client, pytest.raises(PermissionError):
            client.kill()
