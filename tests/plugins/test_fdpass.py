"""Descriptors that QEMU is given, at launch and later."""

import asyncio
import contextlib
import errno
import os
import select
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.plugins.descriptors import has_open, open_in, sets, some_files, what
from tests.waiting import InThread, until
from vmfsm import (
    ConfigError,
    LaunchError,
    LaunchPlan,
    Machine,
    MachineDied,
    MachineTimeout,
    PluginError,
    State,
    TransitionError,
    VMError,
    hookimpl,
)

MakeMachine = Any


@pytest.fixture
def make(qemu: str) -> Iterator[MakeMachine]:
    """Makes machines that do nothing, with more arguments for QEMU; kills them at the end."""
    machines: list[Machine] = []

    def make(*args: str, **parameters: Any) -> Machine:
        parameters = {"block": ("console",), **parameters}
        machines.append(Machine(qemu, ["-M", "none", "-nodefaults", *args], **parameters))
        return machines[-1]

    yield make
    for machine in machines:
        with contextlib.suppress(VMError):
            machine.kill()


def passed(vm: Machine) -> list[dict[str, object]]:
    """The records, without what is None."""
    records = [record.data for record in vm.timeline if record.kind == "fd-passed"]
    return [{key: value for key, value in data.items() if value is not None} for data in records]


# -- at launch ----------------------------------------------------------------------------------------------


def test_descriptors_and_paths_at_launch(make: MakeMachine, tmp_path: Path) -> None:
    path = tmp_path / "a,b"
    path.write_bytes(b"x")
    vm = make()
    with some_files(2) as files:
        fds = [file.fileno() for file in files]
        assert vm.fds.add(files[0].fileno()) == "/dev/fdset/0"
        assert vm.fds.add(path, opaque="x,y=,z") == "/dev/fdset/1"
        assert vm.fds.add(files[1].fileno(), fdset=1) == "/dev/fdset/1"
        assert vm.fds.add(str(path), flags=os.O_RDONLY) == "/dev/fdset/2"
        for _ in range(2):
            vm.launch()
            assert sets(vm) == {
                0: {(None, what(files[0]))},
                1: {("x,y=,z", what(path)), (None, what(files[1]))},
                2: {(None, what(path))},
            }
            vm.shutdown()
        assert [file.write(b"it is still open") for file in files] == [16, 16]
    one_launch = [
        {"fd": fds[0], "fdset": 0},
        {"path": str(path), "fdset": 1},
        {"fd": fds[1], "fdset": 1},
        {"path": str(path), "fdset": 2},
    ]
    assert passed(vm) == one_launch * 2


def test_the_lowest_number_that_nobody_uses(make: MakeMachine) -> None:
    vm = make("-add-fd", "fd=8,opaque=x,,set=0,set=1", "--add-fd", "set=0x2,fd=9")
    with some_files(1) as [file]:
        fd = file.fileno()
        assert [vm.fds.add(fd), vm.fds.add(fd, fdset=4)] == ["/dev/fdset/0", "/dev/fdset/4"]
        assert [vm.fds.add(fd), vm.fds.add(fd)] == ["/dev/fdset/3", "/dev/fdset/5"]


@pytest.mark.parametrize("fd", [0, 1, 2])
def test_the_standard_three(make: MakeMachine, fd: int) -> None:
    vm = make()
    vm.fds.add(fd)
    vm.launch()
    assert sets(vm) == {0: {(None, what(fd))}}


def test_what_is_closed_in_the_meantime(make: MakeMachine) -> None:
    vm = make()
    with some_files(1) as [file]:
        fd = os.dup(file.fileno())
        vm.fds.add(fd)
        os.close(fd)
        with pytest.raises(LaunchError, match=f"descriptor {fd} was closed since") as caught:
            vm.launch()
        assert isinstance(caught.value.__cause__, PluginError)
        assert caught.value.__cause__.plugin == "fdpass"
        with some_files(1) as [other]:
            os.dup2(other.fileno(), fd)
            with pytest.raises(LaunchError, match=f"descriptor {fd} was closed since .* reused"):
                vm.launch()
        os.dup2(file.fileno(), fd)
        vm.launch()  # it is the same again
        os.close(fd)


def test_another_kind_of_nameless_inode_is_another(make: MakeMachine) -> None:
    vm = make()
    fd = os.eventfd(0)
    vm.fds.add(fd)
    with select.epoll() as other:
        os.dup2(other.fileno(), fd)
        with pytest.raises(LaunchError, match="reused"):
            vm.launch()
    os.close(fd)


def test_a_file_that_is_renamed_is_the_same(make: MakeMachine, tmp_path: Path) -> None:
    vm = make()
    with (tmp_path / "old").open("wb") as file:
        vm.fds.add(file.fileno())
        (tmp_path / "old").rename(tmp_path / "new")
        vm.launch()
        assert sets(vm) == {0: {(None, what(file))}}


def test_a_path_is_opened_at_each_launch(make: MakeMachine, tmp_path: Path) -> None:
    path = tmp_path / "later"
    vm = make()
    vm.fds.add(path)
    with pytest.raises(LaunchError, match=f"No such file or directory: '{path}'"):
        vm.launch()
    for text in ("one", "another"):
        path.unlink(missing_ok=True)
        path.write_text(text)
        vm.launch()
        assert sets(vm) == {0: {(None, what(path))}}
        vm.shutdown()


def test_a_relative_path_is_of_where_it_was_given(
    make: MakeMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    vm = make()
    monkeypatch.chdir(tmp_path)
    vm.fds.add("file")
    monkeypatch.chdir("/")
    vm.launch()
    assert sets(vm) == {0: {(None, what(tmp_path / "file"))}}


def test_a_file_that_can_only_be_read(make: MakeMachine) -> None:
    vm = make()
    vm.fds.add("/")  # whoever the tests run as, no directory is opened for writing
    with pytest.raises(LaunchError, match=r"Is a directory \(.*flags=os\.O_RDONLY"):
        vm.launch()
    vm = make()
    vm.fds.add("/", flags=os.O_RDONLY)
    vm.launch()
    assert sets(vm) == {0: {(None, what("/"))}}


def test_a_file_is_made_where_flags_say_so(make: MakeMachine, tmp_path: Path) -> None:
    vm = make()
    vm.fds.add(tmp_path / "new", flags=os.O_RDWR | os.O_CREAT | os.O_EXCL)
    before = os.umask(0o027)
    try:
        vm.launch()
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o640
    vm.shutdown()
    with pytest.raises(LaunchError, match="File exists"):
        vm.launch()


def test_a_fifo_without_another_end(make: MakeMachine, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    vm = make()
    vm.fds.add(tmp_path / "fifo", flags=os.O_RDONLY)
    vm.launch(timeout=20)
    [fdset] = vm.qmp.execute("query-fdsets")
    info = Path(f"/proc/{vm.pid}/fdinfo/{fdset['fds'][0]['fd']}").read_text()
    flags = int(info.partition("flags:")[2].split()[0], 8)
    assert flags & os.O_NONBLOCK == 0, "only opening it must not wait"
    vm.shutdown()

    vm = make()
    vm.fds.add(tmp_path / "fifo", flags=os.O_WRONLY)
    with pytest.raises(LaunchError, match=os.strerror(errno.ENXIO)):
        vm.launch()


def test_qemu_has_what_was_named_and_no_more() -> None:
    with contextlib.ExitStack() as stack:
        files = stack.enter_context(some_files(6))
        for file in files:
            os.set_inheritable(file.fileno(), True)  # to be named is what counts, not this
        vm = Machine(
            "true",  # with all its arguments
            wrapper=["sh", "-c", "exec sleep 1000"],
            block=("console", "logs"),
            options={"qmp": {"enabled": False}},
        )
        stack.enter_context(vm)
        vm.fds.add(files[1].fileno())
        vm.fds.add(files[3].fileno(), fdset=7)
        vm.launch()
        assert vm.pid
        beyond = {fd: file for fd, file in open_in(vm.pid).items() if fd > 2}
        assert sorted(beyond.values()) == sorted([what(files[1]), what(files[3])])
        numbers = {file: fd for fd, file in beyond.items()}
        named = [f"fd={numbers[what(files[1])]},set=0", f"fd={numbers[what(files[3])]},set=7"]
        assert [word for word in vm.command if "set=" in word] == named
        vm.kill()


class InheritsAll:
    name = "inherits-all"

    @hookimpl
    def pre_launch(self, plan: LaunchPlan) -> None:
        plan.inherit_fds = True


def test_beside_all_that_is_inherited(make: MakeMachine) -> None:
    vm = make(plugins=[InheritsAll()])
    with some_files(1) as [file]:
        vm.fds.add(file.fileno())
        vm.launch()
        assert sets(vm) == {0: {(None, what(file))}}


def test_a_path_is_closed_here_as_soon_as_qemu_has_it(make: MakeMachine, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    vm = make()
    vm.fds.add(tmp_path / "file")
    vm.launch()
    assert what(tmp_path / "file") not in open_in(os.getpid()).values()
    assert sets(vm) == {0: {(None, what(tmp_path / "file"))}}


# -- in hooks, and beside a launch --------------------------------------------------------------------------


class Adds:
    """Adds a descriptor in both set-up hooks."""

    name = "adds"

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.names: list[str] = []

    @hookimpl
    def pre_launch(self, machine: Machine) -> None:
        self.names.append(machine.fds.add(self.fd, opaque="before"))

    @hookimpl
    def post_launch(self, machine: Machine) -> None:
        self.names.append(machine.fds.add(self.fd, opaque="after"))


class AddsAsync(Adds):
    @hookimpl
    async def pre_launch(self, machine: Machine) -> None:  # type: ignore[override]
        self.names.append(await machine.fds.aio.add(self.fd, opaque="before"))

    @hookimpl
    async def post_launch(self, machine: Machine) -> None:  # type: ignore[override]
        with pytest.raises(TransitionError, match="aio"):
            machine.fds.add(self.fd)
        self.names.append(await machine.fds.aio.add(self.fd, opaque="after"))


@pytest.mark.parametrize("kind", [Adds, AddsAsync])
def test_in_hooks_it_is_for_that_launch(make: MakeMachine, kind: type[Adds]) -> None:
    with some_files(2) as files:
        plugin = kind(files[0].fileno())
        vm = make(plugins=[plugin])
        vm.fds.add(files[1].fileno(), opaque="kept")
        for _ in range(2):
            vm.launch()
            assert sets(vm) == {
                0: {("kept", what(files[1]))},
                1: {("before", what(files[0]))},
                2: {("after", what(files[0]))},
            }
            vm.shutdown()
        assert plugin.names == ["/dev/fdset/1", "/dev/fdset/2"] * 2


class Early:
    """Adds a descriptor before the plugin itself is called, and says what it is like after it."""

    name = "early"
    before = ("fdpass",)

    def __init__(self, fd: int, *, fails: bool = False) -> None:
        self.fd = fd
        self.fails = fails
        self.error: BaseException | None = None

    @hookimpl
    def pre_launch(self, machine: Machine) -> None:
        machine.fds.add(self.fd)
        if self.fails:
            raise RuntimeError("and fails")

    @hookimpl
    def post_launch(self, machine: Machine) -> None:
        try:
            machine.fds.add(self.fd)
        except TransitionError as error:  # QEMU is there and its monitor is not connected
            self.error = error


def test_in_hooks_before_its_own(make: MakeMachine) -> None:
    with some_files(1) as [file]:
        plugin = Early(file.fileno())
        vm = make(plugins=[plugin])
        for _ in range(2):
            vm.launch()
            assert "not connected yet" in str(plugin.error)
            assert sets(vm) == {0: {(None, what(file))}}
            vm.shutdown()


def test_a_failed_launch_leaves_nothing_for_the_next(make: MakeMachine) -> None:
    with some_files(2) as files:
        plugin = Early(files[0].fileno(), fails=True)
        vm = make(plugins=[plugin])
        with pytest.raises(LaunchError, match="and fails"):
            vm.launch()
        plugin.fails = False
        vm.launch()
        assert sets(vm) == {0: {(None, what(files[0]))}}


class Late:
    """Has somebody else add a descriptor when the plan is spent, from its own list of arguments."""

    name = "late"

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.plan: LaunchPlan | None = None
        self.caught: list[BaseException] = []

    @hookimpl
    def pre_launch(self, machine: Machine, plan: LaunchPlan) -> None:
        outer, self.plan = self, plan
        null = open(os.devnull)  # noqa: SIM115
        plan.defer(null.close)

        class Args(list[str]):
            def __iter__(self) -> Iterator[str]:  # as the command line is composed
                for call in (
                    lambda: machine.fds.add(outer.fd),
                    lambda: machine.fds.send(outer.fd, "name"),
                    lambda: plan.pass_fd(outer.fd),
                    lambda: plan.give(null),
                ):
                    thread = InThread(call).join()
                    assert thread.error is not None
                    outer.caught.append(thread.error)
                return super().__iter__()

        assert not plan.spent
        plan.args = Args(plan.args)


def test_too_late_for_the_launch(make: MakeMachine) -> None:
    with some_files(1) as [file]:
        plugin = Late(file.fileno())
        vm = make(plugins=[plugin])
        vm.launch()
        assert len(plugin.caught) >= 4
        assert {type(error) for error in plugin.caught} == {TransitionError}
        assert "too late for its command line" in str(plugin.caught[0])
        assert plugin.plan is not None
        assert plugin.plan.spent
        assert sets(vm) == {}


# -- to a running machine -----------------------------------------------------------------------------------


def test_to_a_running_machine(make: MakeMachine, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with some_files(1) as [file]:
        vm = make()
        vm.fds.add(path)
        vm.launch()
        assert vm.fds.add(file.fileno(), opaque="a,b") == "/dev/fdset/1"
        assert vm.fds.add(path, fdset=1, flags=os.O_RDONLY) == "/dev/fdset/1"
        assert vm.fds.add(file.fileno(), fdset=9) == "/dev/fdset/9"
        vm.fds.send(path, "by-path")
        vm.fds.send(file.fileno(), "by-fd")
        assert sets(vm) == {
            0: {(None, what(path))},
            1: {("a,b", what(file)), (None, what(path))},
            9: {(None, what(file))},
        }
        fd = file.fileno()
        assert passed(vm) == [
            {"path": str(path), "fdset": 0},
            {"fd": fd, "fdset": 1},
            {"path": str(path), "fdset": 1},
            {"fd": fd, "fdset": 9},
            {"path": str(path), "name": "by-path"},
            {"fd": fd, "name": "by-fd"},
        ]
        for fdset in (1, 9):
            vm.qmp.execute("remove-fd", fdset_id=fdset)
        assert has_open(vm, file)
        vm.qmp.execute("closefd", fdname="by-fd")
        assert not has_open(vm, file)
        vm.shutdown()
        vm.launch()
        assert sets(vm) == {0: {(None, what(path))}}, "the others were for that QEMU"


def test_in_a_loop_of_somebody_elses(make: MakeMachine) -> None:
    vm = make()

    async def use(fd: int) -> list[str]:
        names = [await vm.fds.aio.add(fd)]
        await asyncio.to_thread(vm.launch)
        names.append(await vm.fds.aio.add(fd, timeout=20))
        await vm.fds.aio.send(fd, "name", timeout=20)
        return names

    with some_files(1) as [file]:
        assert asyncio.run(use(file.fileno())) == ["/dev/fdset/0", "/dev/fdset/1"]
        assert sets(vm) == {0: {(None, what(file))}, 1: {(None, what(file))}}


def test_a_path_that_cannot_be_opened_while_running(make: MakeMachine, tmp_path: Path) -> None:
    vm = make()
    vm.launch()
    for call in (vm.fds.add, lambda path: vm.fds.send(path, "x")):
        with pytest.raises(FileNotFoundError, match="nothing"):
            call(tmp_path / "nothing")


def test_a_name_that_is_used_again(make: MakeMachine) -> None:
    vm = make()
    vm.launch()
    with some_files(2) as files:
        for file in files:
            vm.fds.send(file.fileno(), "name")
        assert [has_open(vm, file) for file in files] == [False, True]


def test_a_qemu_that_does_not_answer(make: MakeMachine) -> None:
    vm = make()
    vm.launch()
    assert vm.pid
    os.kill(vm.pid, signal.SIGSTOP)
    with some_files(2) as files:
        with pytest.raises(MachineTimeout, match=r"fds\.add of descriptor \d+ timed out after 0.05 s"):
            vm.fds.add(files[0].fileno(), timeout=0.05)
        with pytest.raises(MachineTimeout, match=r"fds\.send of "):
            vm.fds.send(files[1].fileno(), "name", timeout=0.05)
        waiting = InThread(vm.fds.add, files[1].fileno())
        until(
            lambda: [r.data["command"] for r in vm.timeline if r.kind == "qmp-command"].count("add-fd") == 2
        )
        vm.kill()
        assert isinstance(waiting.join().error, MachineDied)
        assert passed(vm) == []


def test_after_the_end(make: MakeMachine) -> None:
    vm = make()
    with some_files(1) as [file]:
        for refused_in in (State.CONFIGURED, State.STOPPED):
            assert vm.state is refused_in
            with pytest.raises(TransitionError, match=r"there is no QEMU; fds\.add"):
                vm.fds.send(file.fileno(), "name")
            vm.launch()
            vm.shutdown()
        vm.fds.add(file.fileno())
        vm.launch()
        assert sets(vm) == {0: {(None, what(file))}}


def test_over_tcp(make: MakeMachine) -> None:
    vm = make(options={"qmp": {"address": ("127.0.0.1", 0)}})
    with some_files(1) as [file]:
        vm.fds.add(file.fileno())
        vm.launch()
        assert sets(vm) == {0: {(None, what(file))}}
        with pytest.raises(ConfigError, match="can't pass over TCP"):
            vm.fds.add(file.fileno())
        with pytest.raises(ConfigError, match="can't pass over TCP"):
            vm.fds.send(file.fileno(), "name")
        assert sets(vm) == {0: {(None, what(file))}}


@pytest.mark.parametrize("without", [{"block": ("qmp",)}, {"options": {"qmp": {"enabled": False}}}])
def test_without_a_monitor(make: MakeMachine, without: dict[str, Any]) -> None:
    vm = make(**without)
    with some_files(1) as [file]:
        vm.fds.add(file.fileno())
        vm.launch()
        assert has_open(vm, file)
        with pytest.raises(ConfigError, match="qmp"):
            vm.fds.add(file.fileno())


# -- bad input ----------------------------------------------------------------------------------------------


def closed_fd() -> int:
    fd = os.open("/", os.O_RDONLY)
    os.close(fd)
    return fd


@pytest.mark.parametrize("running", [False, True])
def test_bad_input(make: MakeMachine, running: bool) -> None:
    vm = make()
    if running:
        vm.launch()
    bad: list[tuple[Any, dict[str, Any], str]] = [
        *((fd, {}, "fd") for fd in (-1, True, None, 1.0, 2**80, b"path", closed_fd())),
        *((path, {}, "fd_or_path") for path in ("", "a\0b")),
        *(("/", {"flags": flags}, "flags") for flags in (True, -1, "r")),
        (0, {"flags": os.O_RDWR}, "flags"),
        *((0, {"fdset": fdset}, "fdset") for fdset in (-1, True, "0", 2**63)),
        *((0, {"opaque": opaque}, "opaque") for opaque in (5, "a\0b")),
        (0, {"timeout": -1}, "timeout"),
    ]
    for what_is_given, keywords, field in bad:
        with pytest.raises(ConfigError) as caught:
            vm.fds.add(what_is_given, **keywords)
        assert caught.value.field == field, what_is_given
    for name in ("", "0name", "9", 5, None, "a\0b"):
        with pytest.raises(ConfigError) as caught:
            vm.fds.send(0, name)
        assert caught.value.field == "name"
    if not running:
        vm.launch()
    assert sets(vm) == {}


def test_a_socket_pair_can_be_given_and_closed(make: MakeMachine) -> None:
    vm = make()
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            vm.fds.add(theirs.fileno())
            vm.launch()
        ours.settimeout(20)
        vm.kill()
        assert ours.recv(1) == b"", "nobody else has it"
