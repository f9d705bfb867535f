"""What another user of the host can't do where everybody may write: read, plant, take over."""

import contextlib
import os
import re
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from vmfsm_plugins.qmp import QMPConnectionError

from tests.security.another_user import UID, needs_another_user, try_to, who_goes_on
from tests.waiting import until
from vmfsm import LaunchError, LaunchPlan, Machine, check_peer, hookimpl, open_for_log, preparation, registry
from vmfsm.compat.machine import QEMUMachine
from vmfsm.compat.transport import listen_at_path
from vmfsm.process import find_binary

NOTHING = ["-M", "none", "-nodefaults"]
CONNECT = "socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
LISTEN = """
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o777)
listener.listen()
"""


@pytest.fixture(params=[0o777, 0o1777], ids=["open to all", "sticky"])
def shared(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory like /tmp, that of others, too; and one of which somebody has forgotten the sticky bit."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="vmfsm-test-") as directory:
        os.chmod(directory, request.param)
        yield Path(directory)


@pytest.fixture
def careless() -> Iterator[None]:
    """The umask of somebody who lets everybody do everything."""
    before = os.umask(0)
    yield
    os.umask(before)


def modes_in(directory: Path) -> dict[str, int]:
    return {str(path.relative_to(directory)): path.lstat().st_mode & 0o777 for path in directory.rglob("*")}


# A harness with no runtime directory, so that the registry is in the directory for temporary files.
HARNESS = """
import logging, os, sys
logging.basicConfig(stream=sys.stdout, format="%(message)s")
os.umask(0)
from vmfsm import Machine
with Machine("qemu-system-x86_64", ["-M", "none"]) as vm:
    vm.launch()
    print("up", flush=True)
    sys.stdin.readline()
"""


@contextlib.contextmanager
def harness(temporary: Path) -> Iterator[str]:
    """Runs it; what it logged until its machine was up."""
    env = {**os.environ, "TMPDIR": str(temporary)}
    env.pop("XDG_RUNTIME_DIR", None)
    command = [sys.executable, "-c", HARNESS]
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as ran:
        assert ran.stdin is not None
        assert ran.stdout is not None
        said = ""
        while (line := ran.stdout.readline()) not in {"up\n", ""}:
            said += line
        try:
            assert line, said
            yield said
        finally:
            ran.stdin.close()
            ran.wait(60)
    until(lambda: not list(temporary.glob("vmfsm-registry-*/*")))  # the watchdog has seen that it is over


def registry_in(temporary: Path) -> Path:
    """Where it would be."""
    env = {**os.environ, "TMPDIR": str(temporary)}
    env.pop("XDG_RUNTIME_DIR", None)
    asks = "from vmfsm import registry; print(registry.directory())"
    made = Path(subprocess.check_output([sys.executable, "-c", asks], env=env, text=True).strip())
    made.rmdir()
    return made


def test_modes(shared: Path) -> None:
    """Also with an umask of 0."""
    with harness(shared):
        modes = modes_in(shared)
    outer = {name: mode for name, mode in modes.items() if "/" not in name}
    assert len(outer) == 2, "the registry and the private directory"
    assert set(outer.values()) == {0o700}
    inner = {os.path.basename(name): mode for name, mode in modes.items() if "/" in name}
    assert inner["qmp"] == 0o600
    assert any(name.endswith(".jsonl") and mode == 0o600 for name, mode in inner.items())
    assert [name for name, mode in inner.items() if mode & stat.S_IWOTH] == []


@needs_another_user
def test_nobody_gets_in(shared: Path) -> None:
    with harness(shared):
        for directory in shared.iterdir():
            assert try_to("os.listdir(sys.argv[1])", directory) == "PermissionError"
            for path in directory.iterdir():
                assert try_to("os.open(sys.argv[1], os.O_RDONLY)", path) == "PermissionError"
            if (directory / "qmp").exists():
                assert try_to(CONNECT, directory / "qmp") == "PermissionError"


PLANT_REGISTRY = {
    "directory": "os.mkdir(sys.argv[1], 0o777)",
    "link": "os.mkdir(sys.argv[2], 0o777); os.symlink(sys.argv[2], sys.argv[1])",
    "file": "os.open(sys.argv[1], os.O_CREAT, 0o666)",
    "link to the victim's": "os.symlink(sys.argv[3], sys.argv[1])",
}


@needs_another_user
@pytest.mark.parametrize("shared", [0o1777], indirect=True)
@pytest.mark.parametrize("how", PLANT_REGISTRY)
def test_a_registry_that_was_made_by_somebody_else_is_not_used(
    shared: Path, how: str, tmp_path: Path
) -> None:
    registry = registry_in(shared)
    theirs, ours = shared / "theirs", tmp_path / "ours"
    ours.mkdir(mode=0o700)
    assert try_to(PLANT_REGISTRY[how], registry, theirs, ours) == ""
    with harness(shared) as said:
        assert "not registered: the registry is not a directory that is this user's alone" in said
        assert [path for path in (registry, theirs, ours) if path.is_dir() and list(path.iterdir())] == []


def test_a_link_to_a_registry_is_none(tmp_path: Path) -> None:
    """Whoever has made it; this needs no other user."""
    registry = registry_in(tmp_path)
    ours = tmp_path / "ours"
    ours.mkdir(mode=0o700)
    registry.symlink_to(ours)
    with harness(tmp_path) as said:
        assert "not registered" in said
        assert list(ours.iterdir()) == []


def test_a_relative_runtime_directory_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog, elsewhere, would look elsewhere (XDG Base Directory Specification: it is invalid)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", ".")
    assert os.path.dirname(registry.directory()) == tempfile.gettempdir()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("how", ["directory", "link"])
def test_a_private_directory_is_never_one_that_was_there(
    qemu: str, shared: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should somebody guess the name, in spite of its 48 random bits."""
    monkeypatch.setattr(preparation, "_random_name", lambda: "guessed")
    planted, elsewhere = shared / "vmfsm-guessed", shared / "elsewhere"
    elsewhere.mkdir()
    planted.mkdir() if how == "directory" else planted.symlink_to(elsewhere)
    with pytest.raises(LaunchError, match="File exists"):
        Machine(qemu, NOTHING, base_dir=shared).launch()
    assert planted.exists(), "it is not ours to remove"
    assert [*elsewhere.iterdir(), *planted.iterdir()] == []


def test_names_differ() -> None:
    names = {preparation._random_name() for _ in range(10_000)}
    assert len(names) == 10_000
    assert all(re.fullmatch(r"[\w-]{8}", name) for name in names)


# -- log files ----------------------------------------------------------------------------------------------

PLANT_LOG = {
    "link": "os.symlink(sys.argv[2], sys.argv[1])",
    "link to nothing": "os.symlink(sys.argv[2] + '-to-be', sys.argv[1])",
    "second name": "os.close(os.open(sys.argv[1], os.O_CREAT, 0o666)); os.chmod(sys.argv[1], 0o666); "
    "os.link(sys.argv[1], sys.argv[1] + '.2')",
    "fifo": "os.mkfifo(sys.argv[1]); os.chmod(sys.argv[1], 0o666); fd = os.open(sys.argv[1], os.O_RDWR)",
}


class Companion:
    """Asks for a companion that has a log."""

    name = "with-companion"

    @hookimpl
    def pre_launch(self, plan: LaunchPlan) -> None:
        plan.companion(["echo", "said by the companion"], name="helper")


@needs_another_user
@pytest.mark.parametrize("log", ["vm.log", "vm-console.log", "vm-helper.log"])
@pytest.mark.parametrize("how", PLANT_LOG)
def test_a_log_is_written_nowhere_that_somebody_else_leads_to(
    qemu: str, shared: Path, how: str, log: str, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    vm = Machine(qemu, NOTHING, name="vm", log_dir=shared, plugins=[Companion()])
    with who_goes_on(PLANT_LOG[how], shared / log, precious):
        with pytest.raises(LaunchError, match=r"denied|somebody else may have put it"):
            vm.launch()
        assert (shared / log).lstat().st_uid == UID
        if how == "second name":
            assert (shared / log).read_bytes() == b""
    assert precious.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [precious]


@needs_another_user
@pytest.mark.parametrize("how", PLANT_LOG)
def test_nor_is_that_of_the_drop_in(qemu: str, shared: Path, how: str, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    vm = QEMUMachine(qemu, NOTHING, name="vm", log_dir=str(shared))
    with (
        who_goes_on(PLANT_LOG[how], shared / "vm.log", precious),
        pytest.raises(OSError, match=r"denied|somebody"),
    ):
        vm.launch()
    assert precious.read_text() == "precious"


@needs_another_user
def test_where_ones_own_link_leads_is_looked_at_too(shared: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (shared / "vm.log").symlink_to("run-1.log")
    assert try_to("os.symlink(sys.argv[2], sys.argv[1])", shared / "run-1.log", precious) == ""
    with pytest.raises(PermissionError):
        open_for_log(str(shared / "vm.log"))
    assert precious.read_text() == "precious"


def test_links_in_a_circle(shared: Path) -> None:
    (shared / "vm.log").symlink_to("other.log")
    (shared / "other.log").symlink_to("vm.log")
    with pytest.raises(OSError, match="symbolic links"):
        open_for_log(str(shared / "vm.log"))


A_FILE = """
with open(sys.argv[1], 'w') as file:
    file.write('theirs')
os.chmod(sys.argv[1], 0o666)
"""


@needs_another_user
def test_a_file_of_somebody_else_is_not_written_to(shared: Path) -> None:
    """They could read it, or have it open. An earlier log is no reason to fail, where it can be removed."""
    log = shared / "vm.log"
    assert try_to(A_FILE, log) == ""
    with log.open() as theirs:
        if shared.stat().st_mode & stat.S_ISVTX:
            with pytest.raises(PermissionError):
                open_for_log(str(log))
        else:
            fd = open_for_log(str(log))
            os.write(fd, b"ours")
            os.close(fd)
            assert log.read_text() == "ours"
            assert log.stat().st_uid == os.geteuid()
        assert theirs.read() == "theirs"


@needs_another_user
def test_a_file_server_may_make_files_another_users(shared: Path) -> None:
    """Those of root, mostly (exports(5), `root_squash`); setfsuid(2) has the same effect."""
    os.chown(shared, 1000, 1000)
    makes = f"""
import ctypes, os, sys
from vmfsm import open_for_log
before = ctypes.CDLL(None).setfsuid({UID})
os.write(open_for_log(sys.argv[1]), b"said")
"""
    subprocess.run([sys.executable, "-c", makes, shared / "vm.log"], check=True, timeout=60)
    assert (shared / "vm.log").stat().st_uid == UID
    assert (shared / "vm.log").read_text() == "said"


def test_a_second_name_of_a_file_is_refused(shared: Path, tmp_path: Path) -> None:
    precious = shared / "precious"
    precious.write_text("precious")
    os.link(precious, shared / "vm.log")
    with pytest.raises(PermissionError, match="somebody else"):
        open_for_log(str(shared / "vm.log"))
    assert precious.read_text() == "precious"


def test_ones_own_files_and_links_are_written_to(shared: Path, tmp_path: Path, careless: None) -> None:
    (tmp_path / "elsewhere").write_text("before")
    (shared / "link.log").symlink_to(tmp_path / "elsewhere")
    (shared / "file.log").write_text("before")
    for name in ("link.log", "file.log", "new.log"):
        fd = open_for_log(str(shared / name))
        os.write(fd, b"now")
        os.close(fd)
        assert (shared / name).read_text() == "now"
    assert (shared / "new.log").stat().st_mode & 0o777 == 0o664


def test_what_is_open_to_the_owner_only_may_hold_what_it_likes(tmp_path: Path) -> None:
    """A second name, say: a copy of all logs by `cp --link`."""
    (tmp_path / "vm.log").write_text("before")
    os.link(tmp_path / "vm.log", tmp_path / "copy.log")
    os.close(open_for_log(str(tmp_path / "vm.log")))
    assert (tmp_path / "copy.log").read_text() == ""


# -- sockets ------------------------------------------------------------------------------------------------


def test_the_socket_of_a_monitor_is_for_this_user_only(qemu: str, shared: Path, careless: None) -> None:
    with Machine(qemu, NOTHING, options={"qmp": {"address": shared / "monitor"}}) as vm:
        vm.launch()
        assert modes_in(shared)["monitor"] == 0o600
        if os.geteuid() == 0:
            assert try_to(CONNECT, shared / "monitor") == "PermissionError"
        vm.qmp.reconnect()


def test_so_are_those_of_the_drop_in(shared: Path, careless: None) -> None:
    with listen_at_path(str(shared / "monitor")):
        assert modes_in(shared)["monitor"] == 0o600


TAKE_OVER = 'os.rename(sys.argv[1], sys.argv[1] + ".was")' + LISTEN


@needs_another_user
@pytest.mark.parametrize("shared", [0o777], indirect=True)
def test_a_monitor_that_is_not_qemus_is_not_talked_to(qemu: str, shared: Path) -> None:
    """Where somebody could put another socket in its place."""
    address = shared / "monitor"
    with Machine(qemu, NOTHING, options={"qmp": {"address": address}}) as vm:
        vm.launch()
        with who_goes_on(TAKE_OVER, address):
            with pytest.raises(QMPConnectionError, match=r"somebody else is .* of user 65534"):
                vm.qmp.reconnect()
            assert vm.pid


@needs_another_user
@pytest.mark.parametrize("session", [[], ["setsid", "--wait"]], ids=["same session", "other session"])
def test_qemu_may_be_run_as_another_user(qemu: str, session: list[str]) -> None:
    """By a wrapper (setpriv(1), su(1) with a session of its own): it is QEMU nevertheless."""
    if try_to("os.open(sys.argv[1], os.O_RDONLY)", find_binary(qemu, os.environ["PATH"])):
        pytest.skip("another user may not execute this QEMU")
    wrapper = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", *session]
    with Machine(qemu, NOTHING, wrapper=wrapper, cwd="/") as vm:
        vm.launch()
        assert os.stat(f"/proc/{vm.pid}").st_uid == UID
        vm.qmp.reconnect()
        assert vm.qmp.execute("query-status")["running"]


@needs_another_user
@pytest.mark.parametrize("shared", [0o1777], indirect=True)
def test_with_the_sticky_bit_nobody_can(qemu: str, shared: Path) -> None:
    address = shared / "monitor"
    with Machine(qemu, NOTHING, options={"qmp": {"address": address}}) as vm:
        vm.launch()
        assert try_to(TAKE_OVER, address) == "PermissionError"
        vm.qmp.reconnect()


@needs_another_user
def test_a_socket_that_was_there_first_is_not_used(qemu: str, shared: Path) -> None:
    """Whoever listens there already is not taken for QEMU."""
    address = shared / "monitor"
    vm = Machine(qemu, NOTHING, options={"qmp": {"address": address}})
    with who_goes_on(LISTEN, address), pytest.raises(LaunchError, match="in use by a living process"):
        vm.launch()


@needs_another_user
def test_who_is_another_user(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="vmfsm-test-") as directory:
        os.chmod(directory, 0o777)
        path = os.path.join(directory, "socket")
        with who_goes_on(LISTEN, path), socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            with pytest.raises(PermissionError, match="of user 65534"):
                check_peer(connection)
            with subprocess.Popen(["sleep", "1000"], start_new_session=True) as other:
                with pytest.raises(PermissionError, match="of user 65534"):
                    check_peer(connection, pid=other.pid)
                other.kill()
            check_peer(connection, pid=os.getsid(0))


def test_who_is_this_user() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        check_peer(ours)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as tcp,
    ):
        check_peer(tcp)  # nobody can tell


# -- programs and modules -----------------------------------------------------------------------------------

PLANTED = ["qemu-system-x86_64", "qemu-img", "python3", "sh"]
MODULES = ["json", "fcntl", "socket", "qemu", "vmfsm", "vmfsm_plugins", "conftest", "sitecustomize"]


def test_the_working_directory_is_no_place_for_programs_and_modules(qemu: str, tmp_path: Path) -> None:
    """Nor for settings. Of the harness and of its watchdog, which lives beside it."""
    work, script = tmp_path / "work", tmp_path / "harness.py"
    work.mkdir()
    for name in PLANTED:
        (work / name).write_text("#!/bin/sh\ntouch was-run\n")
        (work / name).chmod(0o755)
    for name in MODULES:
        (work / f"{name}.py").write_text("open('was-imported', 'w').close()\n")
    for name in ("vmfsm.toml", "pyproject.toml", "setup.cfg"):
        (work / name).write_text("[tool.vmfsm]\nplugins = ['planted']\n")
    before = sorted(os.listdir(work))
    script.write_text("""
from vmfsm import Machine
with Machine("qemu-system-x86_64", ["-M", "none"]) as vm:
    vm.launch()
""")
    subprocess.run([sys.executable, script], cwd=work, check=True, timeout=60)
    assert sorted(os.listdir(work)) == before
