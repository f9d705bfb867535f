"""Subclasses: what they override is called exactly when it was, and what they reach for is there."""

import ctypes
import logging
import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.compat.conftest import NOTHING, MakeVM
from tests.scripts import run_script
from tests.waiting import is_alive, until
from vmfsm.compat import AbnormalShutdown, QEMUMachine, QEMUMachineError, VMLaunchFailure

HOOKS = (
    "_launch",
    "_pre_launch",
    "_post_launch",
    "_early_cleanup",
    "_do_shutdown",
    "_soft_shutdown",
    "_hard_shutdown",
    "_close_qmp_connection",
    "_close_qemu_log_file",
    "_load_io_log",
    "_post_shutdown",
)


class Noting(QEMUMachine):
    """Notes which of the old methods are called, and what is there then."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self.calls: list[str] = []
        self.depth = 0

    @property
    def _base_args(self) -> list[str]:
        self.calls.append(" " * self.depth + "_base_args")
        assert self._sock_pair is not None
        return super()._base_args


def _noting(name: str) -> Any:
    def call(self: Noting, *args: Any) -> Any:
        self.calls.append(" " * self.depth + name)
        self.depth += 1
        try:
            return getattr(super(Noting, self), name)(*args)
        finally:
            self.depth -= 1

    return call


for _hook in HOOKS:
    setattr(Noting, _hook, _noting(_hook))

LAUNCH = ["_launch", " _pre_launch", "  _base_args", " _post_launch"]
CLEAN_UP = ["_post_shutdown", " _close_qmp_connection", " _close_qemu_log_file", " _load_io_log"]


def noted(vm: QEMUMachine) -> list[str]:
    assert isinstance(vm, Noting)
    calls, vm.calls = vm.calls, []
    return calls


def test_when_they_are_called(make_vm: MakeVM) -> None:
    vm = make_vm(kind=Noting)
    for _ in range(2):
        vm.launch()
        assert noted(vm) == LAUNCH
        vm.shutdown()
        soft = ["_do_shutdown", " _soft_shutdown", "  _early_cleanup", "  _close_qmp_connection"]
        assert noted(vm) == [*soft, *CLEAN_UP]
        vm.shutdown()
        assert noted(vm) == []
    vm.launch()
    vm.kill()
    assert noted(vm)[4:] == ["_hard_shutdown", " _early_cleanup", *CLEAN_UP]
    vm.launch()
    with pytest.raises(AbnormalShutdown):
        vm.wait(0)
    hard = [" _hard_shutdown", "  _early_cleanup"]
    assert noted(vm)[4:] == [*soft, *hard, *CLEAN_UP]
    vm._binary = "/nowhere"
    with pytest.raises(VMLaunchFailure):
        vm.launch()
    assert noted(vm) == [*LAUNCH[:3], *CLEAN_UP]
    vm._binary = "false"
    with pytest.raises(VMLaunchFailure):
        vm.launch()
    assert noted(vm) == [*LAUNCH, "_early_cleanup", *CLEAN_UP]


class Extending(QEMUMachine):
    """Adds to what there is, before and after."""

    @property
    def _base_args(self) -> list[str]:
        return ["-accel", "tcg", *super()._base_args, "-name", "n"]

    def _pre_launch(self) -> None:
        super()._pre_launch()
        self.early = (self._qemu_log_file, self._qemu_log_path, self._temp_dir, self._name, self._launched)

    def _post_launch(self) -> None:
        super()._post_launch()
        self.status = self.qmp("query-status")

    def _post_shutdown(self) -> None:
        super()._post_shutdown()
        assert self._popen is not None
        self.ended = (self._popen.pid, self.exitcode())


def test_extending(make_vm: MakeVM, tmp_path: Path) -> None:
    vm = make_vm(kind=Extending)
    assert isinstance(vm, Extending)
    vm.launch()
    args = list(vm._qemu_full_args)
    assert args[1:4] == ["-accel", "tcg", "-display"]
    assert args[-5:] == ["-name", "n", *NOTHING]
    file, path, temp_dir, name, launched = vm.early
    assert file is not None
    assert path == f"{temp_dir}/{name}.log"
    assert os.path.exists(path)
    assert temp_dir is not None
    assert os.path.dirname(temp_dir) == str(tmp_path)
    assert os.path.basename(temp_dir).startswith("qemu-machine-")
    assert os.stat(temp_dir).st_mode & 0o777 == 0o700
    assert not launched
    assert "return" in vm.status
    pid = vm.get_pid()
    vm.shutdown()
    assert vm.ended == (pid, 0)


class ToStdout(QEMUMachine):
    def _pre_launch(self) -> None:
        super()._pre_launch()
        self._close_qemu_log_file()
        assert self._qemu_log_path is not None


def test_output_on_stdout(make_vm: MakeVM, capfd: pytest.CaptureFixture[str]) -> None:
    vm = make_vm(kind=ToStdout, wrapper=["sh", "-c", 'echo out; echo err >&2; exec "$@"', "sh"])
    vm.launch()
    vm.shutdown()
    assert capfd.readouterr().out == "out\nerr\n"
    assert vm.get_log() == ""


class Failing(QEMUMachine):
    where = ""

    def _post_launch(self) -> None:
        super()._post_launch()
        if self.where == "_post_launch":
            raise ValueError(self.where)

    def _pre_launch(self) -> None:
        if self.where == "before":
            raise ValueError(self.where)
        super()._pre_launch()
        if self.where == "_pre_launch":
            raise ValueError(self.where)


@pytest.mark.parametrize("where", ["before", "_pre_launch", "_post_launch"])
def test_one_that_raises(make_vm: MakeVM, tmp_path: Path, where: str) -> None:
    vm = make_vm(kind=Failing, name="it")
    vm.set_console()
    assert isinstance(vm, Failing)
    vm.where = where
    with pytest.raises(VMLaunchFailure) as caught:
        vm.launch()
    assert isinstance(caught.value.__cause__, ValueError)
    assert vm.exitcode() == (-signal.SIGKILL if where == "_post_launch" else None)
    assert os.listdir(tmp_path) == []
    assert vm._cons_sock_pair is vm._sock_pair is None
    vm.where = ""
    vm.set_machine("pc")
    vm.args[:] = []
    vm.launch()
    assert vm.is_running()


class Late(QEMUMachine):
    """Raises before the clean-up; or after it was made, and made again."""

    is_last = True

    def _post_shutdown(self) -> None:
        if not self.is_last:
            super()._post_shutdown()
            super()._post_shutdown()
        raise ValueError("after the end")


@pytest.mark.parametrize("is_last", [True, False])
def test_one_that_raises_at_the_end(
    make_vm: MakeVM, tmp_path: Path, short_dir: str, caplog: pytest.LogCaptureFixture, is_last: bool
) -> None:
    vm = make_vm(kind=Late, monitor_address=f"{short_dir}/m")
    assert isinstance(vm, Late)
    vm.is_last = is_last
    for end, status in ((vm.shutdown, 0), (vm.kill, -signal.SIGKILL)):
        vm.launch()
        with pytest.raises(ValueError, match="after the end"):
            end()
        assert not vm._launched
        assert (vm.exitcode(), vm.get_log()) == (status, "")
        assert os.listdir(short_dir) == []
        assert os.listdir(tmp_path) == ["s"]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


class Untroubled(QEMUMachine):
    """Has nothing of what `launch` does about failures."""

    def launch(self) -> None:
        self._launch()
        self._launched = True


def test_one_that_launches_by_itself(make_vm: MakeVM, tmp_path: Path) -> None:
    vm = make_vm(kind=Untroubled)
    for _ in range(2):
        vm.launch()
        assert vm.cmd("query-status")["running"]
        vm.shutdown()
        assert vm.exitcode() == 0
        assert os.listdir(tmp_path) == []
    vm._pre_launch()
    vm._post_shutdown()
    assert os.listdir(tmp_path) == []


class Insisting(QEMUMachine):
    """Does every part of a launch again."""

    again = "_launch"

    def _launch(self) -> None:
        super()._launch()
        if self.again == "_launch":
            self.first = self._popen
            super()._launch()

    def _pre_launch(self) -> None:
        super()._pre_launch()
        if self.again == "_pre_launch":
            super()._pre_launch()


@pytest.mark.parametrize("again", ["_launch", "_pre_launch"])
@pytest.mark.parametrize("address", [None, "path"])
def test_a_launch_that_is_begun_again(
    make_vm: MakeVM, tmp_path: Path, short_dir: str, again: str, address: str | None
) -> None:
    vm = make_vm(kind=Insisting, monitor_address=f"{short_dir}/m" if address else None)
    assert isinstance(vm, Insisting)
    vm.again = again
    vm.launch()
    assert vm.cmd("query-status")["running"]
    if again == "_launch":
        assert vm.first is not None
        assert not is_alive(vm.first.pid)
    vm.shutdown()
    assert vm.exitcode() == 0
    assert os.listdir(short_dir) == []
    assert os.listdir(tmp_path) == ["s"]


def _die_with_parent() -> None:
    ctypes.CDLL("libc.so.6").prctl(1, signal.SIGKILL)


class OwnLaunch(QEMUMachine):
    """Starts QEMU by itself, to have it die with its parent."""

    session = False

    def _launch(self) -> None:
        self._pre_launch()
        self._popen = subprocess.Popen(
            self._qemu_full_args,
            stdin=subprocess.DEVNULL,
            stdout=self._qemu_log_file,
            stderr=subprocess.STDOUT,
            close_fds=False,
            start_new_session=self.session,
            preexec_fn=_die_with_parent,  # noqa: PLW1509
        )
        self._launched = True
        self._post_launch()


class OwnSession(OwnLaunch):
    session = True


OWN = pytest.mark.parametrize("kind", [OwnLaunch, OwnSession])


@OWN
@pytest.mark.parametrize("where", ["pair", "path", "none"])
def test_own_launch(
    make_vm: MakeVM, tmp_path: Path, short_dir: str, kind: type[QEMUMachine], where: str
) -> None:
    vm = make_vm(kind=kind, monitor_address=f"{short_dir}/m" if where == "path" else None)
    vm.set_qmp_monitor(where != "none")
    for _ in range(2):
        vm.launch()
        assert isinstance(vm._popen, subprocess.Popen)
        assert vm.is_running()
        assert vm.get_pid() == vm._popen.pid
        if where == "none":
            vm.kill()
            assert vm.exitcode() == -signal.SIGKILL
        else:
            assert vm.cmd("query-status")["running"]
            vm.shutdown()
            assert vm.exitcode() == vm._popen.returncode == 0
        assert not is_alive(vm._popen.pid)
        assert vm.get_log() == ""
    assert os.listdir(tmp_path) == ["s"]


@OWN
def test_own_launch_that_fails(make_vm: MakeVM, kind: type[QEMUMachine]) -> None:
    vm = make_vm("-unknown", kind=kind)
    with pytest.raises(VMLaunchFailure) as caught:
        vm.launch()
    assert caught.value.exitcode == 1
    assert str(caught.value.output).endswith("-unknown: invalid option\n")


@OWN
def test_own_launch_and_a_death(make_vm: MakeVM, kind: type[QEMUMachine]) -> None:
    vm = make_vm(kind=kind)
    vm.launch()
    os.kill(vm.get_pid() or 0, signal.SIGKILL)
    with pytest.raises(QEMUMachineError):
        vm.event_wait("STOP")
    until(lambda: not vm.is_running())
    with pytest.raises(AbnormalShutdown):
        vm.shutdown()
    assert vm.exitcode() == -signal.SIGKILL


def test_own_launch_that_nothing_can_be_made_of(
    make_vm: MakeVM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine that is to adopt the process has no room for its files, say."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    vm = make_vm(kind=OwnLaunch)
    with pytest.raises(VMLaunchFailure) as caught:
        vm.launch()
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.exitcode == vm.exitcode() == -signal.SIGKILL
    assert os.listdir(tmp_path) == []


def test_own_launch_of_something_else(make_vm: MakeVM, qemu: str) -> None:
    class Elsewhere(QEMUMachine):
        """The command line is one for another host, say."""

        def _launch(self) -> None:
            self._pre_launch()
            self._popen = subprocess.Popen([qemu, *self._qemu_full_args[1:]], close_fds=False)
            self._launched = True
            self._post_launch()

    vm = make_vm(kind=Elsewhere, binary="/nowhere/qemu")
    vm.launch()
    assert vm.cmd("query-status")["running"]


def test_own_launch_that_leaves_out_the_rest(make_vm: MakeVM, tmp_path: Path) -> None:
    class Shortest(OwnLaunch):
        def _post_launch(self) -> None:
            """There is nothing to wait for."""

    for end in ("shutdown", "kill"):
        vm = make_vm(kind=Shortest)
        vm.set_qmp_monitor(False)
        vm.launch()
        assert vm.is_running()
        getattr(vm, end)()
        assert not vm.is_running()
        assert vm._popen is not None
        assert not is_alive(vm._popen.pid)
        assert os.listdir(tmp_path) == []


def test_own_launch_without_a_monitor_of_ours(make_vm: MakeVM) -> None:
    class Bare(OwnLaunch):
        @property
        def _base_args(self) -> list[str]:
            args = []
            if self._qmp_set:
                if self._sock_pair:
                    args += ["-chardev", f"socket,id=mon,fd={self._sock_pair[0].fileno()}"]
                else:
                    args += ["-chardev", f"socket,id=mon,path={self._monitor_address}"]
                args += ["-mon", "chardev=mon,mode=control"]
            if self._machine is not None:
                args += ["-machine", self._machine]
            args += ["-serial", "null"] * self._console_index
            if self._console_set:
                assert self._cons_sock_pair is not None
                args += ["-chardev", f"socket,id=console,fd={self._cons_sock_pair[0].fileno()}"]
                assert self._console_device_type is None
                args += ["-serial", "chardev:console"]
            return args

    vm = make_vm("-display", "none", kind=Bare)
    vm.set_machine("pc")
    vm.set_console(console_index=1)
    vm.launch()
    assert vm.cmd("query-chardev")
    assert "-vga" not in vm._qemu_full_args


BEGINNING = """
import atexit, os, sys
from vmfsm.compat import QEMUMachine

vm = QEMUMachine("qemu-system-x86_64", ["-M", "none"], base_temp_dir=sys.argv[1])

def end():
    vm.shutdown()
    print("ended", vm.exitcode(), flush=True)

"""


def test_shutdown_at_exit(qemu: str, tmp_path: Path) -> None:
    """What was registered by `atexit` finds QEMU alive, and ends it well."""
    for registered in ("atexit.register(end)\nvm.launch()\n", "vm.launch()\natexit.register(end)\n"):
        ran = run_script("", tmp_path, beginning=BEGINNING + registered)
        assert (ran.status, ran.err, ran.out, ran.left) == (0, "", "ended 0\n", [])


def test_without_an_end(qemu: str, tmp_path: Path) -> None:
    body = "vm.launch()\nprint(vm.get_pid(), flush=True)\n"
    ran = run_script(body, tmp_path, beginning=BEGINNING)  # beside: Python warns that the log was not closed
    assert (ran.status, ran.left) == (0, [])
    assert not is_alive(int(ran.out))
    ran = run_script(f"{body}raise SystemExit(3)", tmp_path, beginning=BEGINNING)
    assert (ran.status, ran.left) == (3, [])
    assert not is_alive(int(ran.out))
    ran = run_script(f"{body}os.kill(os.getpid(), 9)", tmp_path, beginning=BEGINNING)
    assert ran.status == -9
    until(lambda: not is_alive(int(ran.out)))


def test_sockets_without_an_end(qemu: str, tmp_path: Path) -> None:
    body = f"""
vm = QEMUMachine({qemu!r}, base_temp_dir=sys.argv[1], sock_dir=sys.argv[1])
vm.set_console()
vm.launch()
assert len([name for name in os.listdir(sys.argv[1]) if name.endswith(".sock")]) == 2
"""
    assert run_script(body, tmp_path, beginning=BEGINNING).left == []
    ran = run_script(f"{body}os.kill(os.getpid(), 9)", tmp_path, beginning=BEGINNING)
    assert ran.status == -9
    until(lambda: not os.listdir(tmp_path))  # the temporary directory, too


def test_a_temporary_directory_that_no_launch_used(qemu: str, tmp_path: Path) -> None:
    ran = run_script(
        "print(os.path.isdir(vm.temp_dir), vm.log_dir == vm.temp_dir)", tmp_path, beginning=BEGINNING
    )
    assert (ran.status, ran.err, ran.out, ran.left) == (0, "", "True True\n", [])
