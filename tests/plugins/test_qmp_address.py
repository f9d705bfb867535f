"""Where the monitor listens."""

import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.plugins.monitors import MakeMachine
from tests.waiting import LIMIT
from vmfsm import LaunchError, Reason, State


@pytest.fixture(params=["socketpair", "path", "long path", "comma", "ipv4", "ipv6", "name"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    directory = tmp_path / ("d" * 150)
    directory.mkdir()
    return {
        "socketpair": None,
        "path": tmp_path / "monitor",
        "long path": str(directory / "monitor"),
        "comma": str(tmp_path / "a,b"),
        "ipv4": ("127.0.0.1", 0),
        "ipv6": ("::1", 0),
        "name": ("localhost", 0),
    }[request.param]


def test_every_kind_of_address(monitored: MakeMachine, address: Any) -> None:
    vm = monitored(qmp={"address": address}, launch=False)
    for _ in range(2):
        vm.launch()
        assert vm.qmp.execute("query-status")["status"] == "running"
        if isinstance(address, tuple):
            host, port = vm.qmp.address
            assert host == address[0]
            assert port > 0
        elif address is None:
            assert vm.qmp.address is None
        else:
            assert vm.qmp.address == str(address)
            mode = os.stat(address).st_mode
            assert stat.S_ISSOCK(mode)
            assert stat.S_IMODE(mode) == 0o600
        vm.shutdown()
        assert (vm.state, vm.reason) == (State.STOPPED, Reason.REQUESTED)
        assert isinstance(address, tuple | None) or not os.path.lexists(address)


def test_a_path_is_removed_however_it_ends(monitored: MakeMachine, tmp_path: Path) -> None:
    path = tmp_path / "monitor"
    vm = monitored(qmp={"address": path})
    vm.kill()
    assert not path.exists()
    broken = monitored(qmp={"address": path}, args=("-no-such-option",), launch=False)
    with pytest.raises(LaunchError):
        broken.launch()
    assert not path.exists()


def test_a_path_of_the_current_directory(
    monitored: MakeMachine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    vm = monitored(qmp={"address": "monitor"}, cwd="/")
    assert (tmp_path / "monitor").is_socket()
    monkeypatch.chdir("/")
    vm.qmp.reconnect()
    vm.shutdown()
    assert not (tmp_path / "monitor").exists()


def test_a_stale_socket_is_replaced(monitored: MakeMachine, tmp_path: Path) -> None:
    path = tmp_path / "monitor"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    vm = monitored(qmp={"address": path})
    assert vm.qmp.execute("query-status")["status"] == "running"


def test_a_path_that_is_somebody_elses(monitored: MakeMachine, tmp_path: Path) -> None:
    path = tmp_path / "monitor"
    first = monitored(qmp={"address": path})
    second = monitored(qmp={"address": path}, launch=False)
    with pytest.raises(LaunchError, match=r"in use by a living process: .*monitor"):
        second.launch()
    first.qmp.reconnect()
    assert first.qmp.execute("query-status")["status"] == "running"

    file = tmp_path / "file"
    file.write_text("precious")
    with pytest.raises(LaunchError, match="something else than a socket"):
        monitored(qmp={"address": file}, launch=False).launch()
    assert file.read_text() == "precious"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing/monitor", "No such file"),
        ("x" * 150, "too long for a socket"),
        ("x" * 300, "too long"),
    ],
)
def test_a_path_that_cannot_be(
    monitored: MakeMachine,
    tmp_path: Path,
    path: str,
    message: str,
) -> None:
    vm = monitored(qmp={"address": tmp_path / path}, launch=False)
    with pytest.raises(LaunchError, match=message) as caught:
        vm.launch()
    assert path in str(caught.value)
    assert vm.reason is Reason.HOOK_FAILED
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_is_taken(monitored: MakeMachine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LaunchError, match=f"in use: 127.0.0.1:{port}"):
            monitored(qmp={"address": ("127.0.0.1", port)}, launch=False).launch()


def test_a_host_that_is_none(monitored: MakeMachine) -> None:
    with pytest.raises(LaunchError, match=r"256\.0\.0\.1|timed out"):  # that is where a resolver is slow
        monitored(qmp={"address": ("256.0.0.1", 0)}, launch=False).launch(timeout=5)


@pytest.mark.parametrize("kind", ["path", "tcp"])
def test_others_beside_us(monitored: MakeMachine, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "monitor"
    vm = monitored(qmp={"address": path if kind == "path" else ("127.0.0.1", 0)})
    with socket.socket(socket.AF_UNIX) if kind == "path" else socket.socket() as other:
        other.settimeout(LIMIT)
        other.connect(str(path) if kind == "path" else vm.qmp.address)
        assert b"QMP" in other.recv(4096)
        assert vm.qmp.execute("query-status")["status"] == "running"
    vm.qmp.reconnect()
    assert vm.qmp.execute("query-status")["status"] == "running"
