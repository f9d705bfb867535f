"""QEMU's process: how it is found, what it inherits, and that its whole group goes with it."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from errno import ENOENT
from pathlib import Path

import pytest

from tests.conftest import MakeMachine
from tests.waiting import catches, is_alive, until
from vmfsm import AbnormalExit, LaunchError, LaunchPlan, Machine, Reason, State, hookimpl
from vmfsm.testing import FakeQEMU
from vmfsm.testing import actions as do


def process(*command: str, **parameters: object) -> Machine:
    """A machine whose QEMU is another program, without anything added to its command line."""
    settings = {"display": None, "block": ["qmp", "console", "logs"], **parameters}
    return Machine(command[0], command[1:], **settings)  # type: ignore[arg-type]


def launched(fake: FakeQEMU) -> tuple[Machine, int]:
    """The machine, and its pid."""
    vm = process(fake.binary).launch()
    assert vm.pid is not None
    pid = vm.pid
    until(lambda: catches(pid, signal.SIGTERM))
    return vm, pid


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def in_proc(vm: Machine, name: str) -> bytes:
    """A file of `/proc/PID` that is empty until the kernel is through with `execve`."""
    path = Path(f"/proc/{vm.pid}/{name}")
    until(path.read_bytes)
    return path.read_bytes()


def group_of(pgid: int) -> list[int]:
    """Those alive in a process group."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{name}/stat").read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        if int(fields[2]) == pgid and fields[0] not in "ZX":
            found.append(int(name))
    return found


class TestBinary:
    def test_name_is_looked_for_in_path(self, bare: MakeMachine, qemu: str) -> None:
        with bare().launch() as vm:
            assert os.path.samefile(f"/proc/{vm.pid}/exe", shutil.which(qemu) or "")
            assert vm.command[0] == qemu

    def test_symlink_keeps_its_name(self, qemu: str, tmp_path: Path) -> None:
        """Programs like busybox go by it."""
        link = tmp_path / "my-sleep"
        link.symlink_to(shutil.which("sleep") or "")
        with process(str(link), "1000").launch() as vm:
            assert in_proc(vm, "cmdline").split(b"\0")[0] == bytes(link)

    def test_relative_path_is_relative_to_the_caller_not_to_cwd(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "bin").mkdir()
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "bin/mine").symlink_to(shutil.which("sleep") or "")
        monkeypatch.chdir(tmp_path)
        with process("bin/mine", "1000", cwd="elsewhere").launch() as vm:
            assert os.path.samefile(f"/proc/{vm.pid}/cwd", "elsewhere")

    def test_path_of_env_counts(self, tmp_path: Path) -> None:
        (tmp_path / "only-here").symlink_to(shutil.which("sleep") or "")
        with process("only-here", "1000", env={"PATH": str(tmp_path)}).launch() as vm:
            assert vm.state is State.RUNNING

    def test_path_of_a_plugin_counts_for_its_wrapper(self, tmp_path: Path) -> None:
        (tmp_path / "only-here").symlink_to(shutil.which("env") or "")

        class Wrap:
            name = "wrap"

            @hookimpl
            def pre_launch(self, plan: LaunchPlan) -> None:
                plan.env["PATH"] = f"{tmp_path}:{plan.env['PATH']}"
                plan.wrapper[:0] = ["only-here"]

        with process("sleep", "1000", plugins=[Wrap()]).launch() as vm:
            assert vm.command == ("only-here", "sleep", "1000")

    @pytest.mark.parametrize("wrapper", [(), ("env",)])
    def test_missing_is_said_whether_or_not_it_is_wrapped(self, wrapper: tuple[str, ...]) -> None:
        vm = process("no-such-qemu", wrapper=wrapper)
        with pytest.raises(
            LaunchError, match=r"no executable in the search path .*: 'no-such-qemu'"
        ) as caught:
            vm.launch()
        assert (vm.state, vm.reason) == (State.FAILED, Reason.LAUNCH_ERROR)
        assert vm.exit_status is None
        assert isinstance(caught.value.__cause__, FileNotFoundError)
        assert (caught.value.__cause__.errno, caught.value.__cause__.filename) == (ENOENT, "no-such-qemu")

    def test_missing_in_a_directory(self, tmp_path: Path) -> None:
        with pytest.raises(LaunchError, match="no such file"):
            process(str(tmp_path / "qemu")).launch()

    def test_directory(self, tmp_path: Path) -> None:
        with pytest.raises(LaunchError, match="is a directory"):
            process(str(tmp_path)).launch()

    def test_not_executable(self, tmp_path: Path) -> None:
        (tmp_path / "qemu").touch(0o600)
        with pytest.raises(LaunchError, match="is not executable"):
            process(str(tmp_path / "qemu")).launch()

    def test_text_is_not_run_by_a_shell(self, tmp_path: Path) -> None:
        text = tmp_path / "qemu"
        text.write_text(f"touch {tmp_path}/ran\n")
        text.chmod(0o700)
        with pytest.raises(LaunchError, match=r"[Ee]xec format"):
            process(str(text)).launch()
        assert not (tmp_path / "ran").exists()

    def test_missing_wrapper(self, bare: MakeMachine) -> None:
        with pytest.raises(LaunchError, match=r"no executable in .*: 'no-such-wrapper'"):
            bare(wrapper=["no-such-wrapper"]).launch()


class TestWrapper:
    def test_that_execs_is_qemu(self, bare: MakeMachine, qemu: str) -> None:
        with bare(wrapper=["env"]).launch() as vm:
            until(lambda: os.path.samefile(f"/proc/{vm.pid}/exe", shutil.which(qemu) or ""))

    def test_that_forks_goes_with_qemu(self, bare: MakeMachine) -> None:
        with bare(wrapper=["sh", "-c", '"$@"; exit $?', "sh"]).launch() as vm:
            assert vm.pid is not None
            pid = vm.pid
            until(lambda: len(group_of(pid)) == 2)
            group = group_of(pid)
        assert (vm.state, vm.reason) == (State.STOPPED, Reason.REQUESTED)
        assert not any(map(is_alive, group))

    def test_the_whole_group_is_killed(self, bare: MakeMachine) -> None:
        vm = bare(wrapper=["sh", "-c", 'trap "" TERM; "$@"; exit $?', "sh"]).launch()
        assert vm.pid is not None
        pid = vm.pid
        until(lambda: len(group_of(pid)) == 2)
        vm.kill()
        assert (vm.state, vm.reason) == (State.STOPPED, Reason.KILLED)
        assert vm.exit_status == -signal.SIGKILL
        assert group_of(pid) == []

    def test_its_status_counts(self, bare: MakeMachine) -> None:
        vm = bare(wrapper=["sh", "-c", '"$@"; exit 42', "sh"], expected_exits=[42]).launch()
        assert vm.pid is not None
        pid = vm.pid
        until(lambda: children(pid) and catches(children(pid)[0], signal.SIGTERM))
        os.kill(children(pid)[0], signal.SIGTERM)
        assert vm.wait(30) == 42
        assert (vm.state, vm.reason) == (State.STOPPED, Reason.QEMU_EXIT)

    def test_that_is_killed_takes_qemu_along(self, bare: MakeMachine) -> None:
        vm = bare(wrapper=["sh", "-c", '"$@"; exit $?', "sh"]).launch()
        assert vm.pid is not None
        pid = vm.pid
        until(lambda: len(group_of(pid)) == 2)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(AbnormalExit, match="SIGKILL"):
            vm.wait(30)
        until(lambda: group_of(pid) == [])  # they have been sent the signal


def test_children_that_it_leaves_are_killed() -> None:
    with FakeQEMU(start=[do.fork()]) as fake:
        vm, pid = launched(fake)
        until(lambda: children(pid))
        (child,) = children(pid)
        os.kill(pid, signal.SIGTERM)
        assert vm.wait(30) == 0
        assert not is_alive(child)


class TestInherits:
    @pytest.fixture
    def pipe(self) -> Iterator[tuple[int, int]]:
        ends = os.pipe()
        for end in ends:
            os.set_inheritable(end, True)
        yield ends
        for end in ends:
            os.close(end)

    @staticmethod
    def descriptors(vm: Machine) -> dict[int, str]:
        directory = f"/proc/{vm.pid}/fd"
        return {int(name): os.readlink(f"{directory}/{name}") for name in os.listdir(directory)}

    def test_only_the_descriptors_that_are_named(self, pipe: tuple[int, int]) -> None:
        class Pass:
            name = "pass"

            @hookimpl
            def pre_launch(self, plan: LaunchPlan) -> None:
                assert plan.pass_fd(pipe[1]) == pipe[1]

        with process("sleep", "1000", plugins=[Pass()]).launch() as vm:
            until(lambda: len(self.descriptors(vm)) == 4)  # it opens some files while it is loaded
            inherited = self.descriptors(vm)
            assert sorted(inherited) == [0, 1, 2, pipe[1]]
            assert inherited[pipe[1]] == os.readlink(f"/proc/self/fd/{pipe[1]}")
            assert {inherited[number] for number in (0, 1, 2)} == {"/dev/null"}

    def test_all_descriptors_where_that_is_asked_for(self, pipe: tuple[int, int]) -> None:
        class All:
            name = "all"

            @hookimpl
            def pre_launch(self, plan: LaunchPlan) -> None:
                plan.inherit_fds = True
                plan.pass_fd(named.fileno())

        with (
            tempfile.TemporaryFile() as named,
            tempfile.TemporaryFile() as unnamed,
            process("sleep", "1000", plugins=[All()]).launch() as vm,
        ):
            inherited = set(self.descriptors(vm))
            assert {*pipe, named.fileno()} <= inherited
            assert unnamed.fileno() not in inherited
            assert not os.get_inheritable(named.fileno())

    def test_what_is_given_is_closed_here(self) -> None:
        class Give:
            name = "give"

            @hookimpl
            def pre_launch(self, plan: LaunchPlan) -> None:
                self.reader, writer = os.pipe()
                plan.defer(lambda: os.close(self.reader))
                plan.give(os.fdopen(writer, "wb"))

        give = Give()
        with process("sleep", "1000", plugins=[give]).launch() as vm:
            assert vm.pid is not None
            os.kill(vm.pid, signal.SIGSTOP)
            os.set_blocking(give.reader, False)
            with pytest.raises(BlockingIOError):
                os.read(give.reader, 1)
            vm.kill()

    @pytest.mark.parametrize("fails_later", [False, True])
    def test_what_is_given_is_closed_where_the_launch_fails(self, fails_later: bool) -> None:
        class Give:
            name = "give"

            @hookimpl
            def pre_launch(self, plan: LaunchPlan) -> None:
                reader, writer = os.pipe()
                plan.give(os.fdopen(writer, "wb"))
                plan.give(os.fdopen(reader, "rb"))
                if not fails_later:
                    raise ValueError("no")

            @hookimpl
            def post_launch(self) -> None:
                raise ValueError("no")

        with pytest.raises(LaunchError):
            process("sleep", "1000", plugins=[Give()]).launch()

    def test_environment_and_its_differences(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FROM_HERE", "kept")
        monkeypatch.setenv("UNWANTED", "x")
        monkeypatch.setenv("CHANGED", "before")
        env = {"CHANGED": "after", "UNWANTED": None, "NEW": "new=\udcff"}
        with process("sleep", "1000", env=env).launch() as vm:
            words = in_proc(vm, "environ").split(b"\0")
        environment = dict(word.split(b"=", 1) for word in words if word)
        assert environment[b"FROM_HERE"] == b"kept"
        assert environment[b"CHANGED"] == b"after"
        assert environment[b"NEW"] == b"new=\xff"
        assert b"UNWANTED" not in environment
        assert os.environ["CHANGED"] == "before"

    def test_cwd(self, tmp_path: Path) -> None:
        with process("sleep", "1000", cwd=tmp_path).launch() as vm:
            assert os.path.samefile(f"/proc/{vm.pid}/cwd", tmp_path)

    def test_no_cwd(self, tmp_path: Path) -> None:
        with pytest.raises(LaunchError, match="cwd is not a directory"):
            process("sleep", "1000", cwd=tmp_path / "missing").launch()

    def test_a_session_of_its_own(self) -> None:
        """So that the terminal's Ctrl-C does not reach it."""
        with process("sleep", "1000").launch() as vm:
            assert vm.pid is not None
            assert os.getsid(vm.pid) == os.getpgid(vm.pid) == vm.pid


class TestIgnoredSIGCHLD:
    """The host program ignores SIGCHLD: the kernel throws exit statuses away."""

    @pytest.fixture(autouse=True)
    def ignored(self) -> Iterator[None]:
        before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        yield
        signal.signal(signal.SIGCHLD, before)

    def test_asked(self, bare: MakeMachine) -> None:
        with bare().launch() as vm:
            assert vm.pid is not None
        assert (vm.state, vm.reason) == (State.STOPPED, Reason.REQUESTED)
        assert vm.exit_status is None
        assert vm.pid is None

    def test_killed(self, bare: MakeMachine) -> None:
        vm = bare().launch()
        vm.kill()
        assert (vm.state, vm.reason) == (State.STOPPED, Reason.KILLED)
        assert vm.exit_status is None

    def test_unasked_is_no_success_since_nothing_vouches_for_it(self) -> None:
        with FakeQEMU() as fake:
            vm, pid = launched(fake)
            os.kill(pid, signal.SIGTERM)
            with pytest.raises(AbnormalExit, match="a status that could not be had") as caught:
                vm.wait(30)
        assert (vm.state, vm.reason) == (State.FAILED, Reason.QEMU_EXIT)
        assert caught.value.exit_status is None


@pytest.mark.parametrize("status", [0, 3])
def test_a_status_on_our_sigterm(status: int) -> None:
    """Asked by SIGTERM, which is the polite way where there is no other."""
    with FakeQEMU(sigterm=[do.exit_with(status)]) as fake:
        vm, _ = launched(fake)
        if status == 0:
            vm.shutdown()
            assert (vm.state, vm.reason) == (State.STOPPED, Reason.REQUESTED)
        else:
            with pytest.raises(AbnormalExit, match="status 3"):
                vm.shutdown()
            assert (vm.state, vm.reason) == (State.FAILED, Reason.QEMU_EXIT)
        assert vm.exit_status == status


def test_deaf_to_sigterm() -> None:
    with FakeQEMU(sigterm=[]) as fake:
        vm, _ = launched(fake)
        with pytest.raises(AbnormalExit, match="SIGKILL"):
            vm.shutdown(timeout=0.5)
    assert (vm.state, vm.reason) == (State.FAILED, Reason.WEDGED)
    assert vm.exit_status == -signal.SIGKILL


@pytest.mark.parametrize("status", [0, 1, 255])
def test_its_end_during_launch(status: int) -> None:
    with FakeQEMU(start=[do.exit_with(status)]) as fake:
        vm = Machine(fake.binary)
        with pytest.raises(LaunchError, match=f"QEMU ended with status {status}") as caught:
            vm.launch()
    assert caught.value.exit_status == vm.exit_status == status
    assert (vm.state, vm.reason) == (State.FAILED, Reason.LAUNCH_ERROR)
