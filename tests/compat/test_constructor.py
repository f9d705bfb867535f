"""Every parameter of every revision, and what else there is to be configured and seen."""

import asyncio
import copy
import inspect
import math
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.compat.conftest import NOTHING, MakeVM
from tests.waiting import InThread
from vmfsm import compat
from vmfsm.compat import QEMUMachine, QEMUMachineError, QEMUQtestMachine
from vmfsm.compat.errors import MisuseError


def test_positions() -> None:
    parameters = inspect.signature(QEMUMachine).parameters.values()
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == ["binary", "args", "wrapper", "name", "base_temp_dir", "monitor_address"]
    assert {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY} == {
        "test_dir": None,
        "sock_dir": None,
        "socket_scm_helper": None,
        "drain_console": False,
        "console_log": None,
        "log_dir": None,
        "qmp_timer": 30,
    }


def test_a_constructor_makes_nothing(tmp_path: Path) -> None:
    args = ["-S"]
    wrapper = ["env"]
    vm = QEMUMachine("/nowhere", args, wrapper, "n", str(tmp_path), ("h", 1), log_dir="/l", sock_dir="/s")
    assert (vm.args, vm.args is args, vm._args is vm.args) == (["-S"], False, True)
    assert (vm.binary, vm._name, vm._monitor_address, vm._wrapper) == ("/nowhere", "n", ("h", 1), ["env"])
    assert (vm.log_dir, vm.sock_dir, vm._temp_dir) == ("/l", "/s", None)
    assert os.listdir(tmp_path) == []


def test_names() -> None:
    names = {QEMUMachine("q", name=name)._name for name in (None, "", None)}
    assert len(names) == 3
    assert "" not in names


@pytest.mark.parametrize(
    "wrong",
    [
        {"args": "-S"},
        {"args": 5},
        {"args": b"-S"},
        {"wrapper": "strace"},
        {"monitor_address": ["localhost", 1]},
        {"monitor_address": ("localhost",)},
        {"monitor_address": ("localhost", "1")},
        {"monitor_address": ("localhost", True)},
        {"monitor_address": ("localhost", 70000)},
        {"monitor_address": ("localhost", -1)},
        {"monitor_address": 5},
        {"monitor_address": ""},
        {"monitor_address": "a\0b"},
        {"name": 5},
        {"base_temp_dir": 5},
        {"base_temp_dir": "/tmp", "test_dir": "/var/tmp"},
        {"sock_dir": b"/tmp"},
        {"log_dir": 1},
        {"console_log": 1},
        {"socket_scm_helper": 1},
        {"qmp_timer": "30"},
        {"qmp_timer": math.nan},
    ],
)
def test_misuse(wrong: dict[str, Any]) -> None:
    for kind in (AssertionError, QEMUMachineError):
        with pytest.raises(kind):
            QEMUMachine("q", **wrong)


class Own(QEMUMachine):
    """One that has a constructor of its own."""

    def __init__(self, binary: str, *, level: int) -> None:
        super().__init__(binary)
        self.level = level


@pytest.mark.parametrize(
    ("construct", "message"),
    [
        (lambda: QEMUMachine("q", no_such=1), r"^QEMUMachine\..*no_such"),  # type: ignore[call-arg]
        (QEMUMachine, r"^QEMUMachine\..*binary"),
        (lambda: QEMUMachine(*"qawnbmx"), r"^QEMUMachine\."),
        (lambda: QEMUQtestMachine("q", no_such=1), r"^QEMUQtestMachine\..*no_such"),  # type: ignore[call-arg]
        (lambda: Own("q"), r"^Own\..*level"),  # type: ignore[call-arg]
    ],
)
def test_parameters_that_do_not_fit(construct: Callable[[], object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        construct()


@pytest.mark.parametrize("wrong", ["x", math.nan, [1]])
def test_a_wrong_time_is_named(make_vm: MakeVM, wrong: Any) -> None:
    with pytest.raises(MisuseError, match=r"^qmp_timer must"):
        QEMUMachine("q", qmp_timer=wrong)
    vm = make_vm()
    vm.qmp_command_timeout = wrong
    with pytest.raises(MisuseError, match="qmp_command_timeout must") as caught:
        vm.launch()
    assert caught.value.exitcode is None  # type: ignore[attr-defined]  # a VMLaunchFailure, too
    vm.qmp_command_timeout = 10
    vm.launch()


@pytest.mark.parametrize(
    ("call", "parameter"),
    [
        (lambda vm: vm.set_console("isa-serial", "x"), "console_index"),
        (lambda vm: vm.set_console("isa-serial", -1), "console_index"),
        (lambda vm: vm.set_console(console_index=None), "console_index"),
        (lambda vm: vm.set_console(5), "device_type"),
        (lambda vm: vm.set_qmp_monitor("no"), "enabled"),
        (lambda vm: vm.add_args("-S", ["-name", "x"]), "args"),
        (lambda vm: vm.add_args("-m", 64), "args"),
    ],
)
def test_wrong_settings(call: Callable[[QEMUMachine], object], parameter: str) -> None:
    vm = QEMUMachine("q")
    before = [*vm._base_args, *vm.args]
    with pytest.raises(MisuseError, match=f"^{parameter} must"):
        call(vm)
    assert [*vm._base_args, *vm.args] == before


@pytest.mark.parametrize("enabled", [True, 1, False, 0, None])
def test_what_is_as_good_as_a_bool(enabled: Any) -> None:
    vm = QEMUMachine("q")
    vm.set_qmp_monitor(enabled)
    assert ("-mon" in vm._base_args) == bool(enabled)


@pytest.mark.parametrize("place", ["sock_dir", "console in sock_dir", "monitor_address"])
def test_a_missing_directory_is_named(make_vm: MakeVM, tmp_path: Path, place: str) -> None:
    missing = str(tmp_path / "missing")
    if place == "monitor_address":
        vm = make_vm(monitor_address=f"{missing}/mon")
    else:
        vm = make_vm(sock_dir=missing)
    if place == "console in sock_dir":
        vm.set_qmp_monitor(False)
        vm.set_console()
    with pytest.raises(FileNotFoundError) as caught:
        vm.launch()
    assert caught.value.filename == missing
    assert repr(missing) in str(caught.value)
    os.mkdir(missing)
    vm.launch()


def test_temp_dir(make_vm: MakeVM, tmp_path: Path) -> None:
    vm = make_vm()
    path = vm.temp_dir
    assert vm.temp_dir == vm._temp_dir == vm.sock_dir == vm.log_dir == path
    assert os.path.dirname(path) == str(tmp_path)
    vm.launch()
    assert vm.temp_dir == path
    assert os.listdir(path) == [f"{vm._name}.log"]
    vm.shutdown()
    assert not os.path.exists(path)
    again = vm.temp_dir
    assert again != path
    vm.launch()
    vm.shutdown()
    assert os.listdir(tmp_path) == []


def test_a_temp_dir_goes_with_its_machine(tmp_path: Path) -> None:
    vm = QEMUMachine("q", base_temp_dir=str(tmp_path))
    assert os.path.isdir(vm.temp_dir)
    del vm
    assert os.listdir(tmp_path) == []


def test_test_dir(make_vm: MakeVM, tmp_path: Path) -> None:
    vm = make_vm(base_temp_dir=None, test_dir=str(tmp_path))
    assert os.path.dirname(vm.temp_dir) == str(tmp_path)
    assert QEMUMachine("q")._base_temp_dir == "/var/tmp"


def test_log_dir(make_vm: MakeVM, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    vm = make_vm(log_dir=str(logs), name="it", wrapper=["sh", "-c", 'echo $$; exec "$@"', "sh"])
    for _ in range(2):
        vm.launch()
        pid = vm.get_pid()
        assert vm.get_log() is None
        vm.shutdown()
        assert vm.get_log() == (logs / "it.log").read_text() == f"{pid}\n"
    assert os.listdir(logs) == ["it.log"]
    other = make_vm(log_dir=str(logs), name="it")
    vm.launch()
    other.launch()
    assert other._qemu_log_path == str(logs / "it.2.log")
    vm.shutdown()
    other.shutdown()
    assert sorted(os.listdir(logs)) == ["it.2.log", "it.log"]


@pytest.mark.parametrize("name", ["a b", "ä..x", "x" * 90, ".hidden", "-x"])
def test_any_name(make_vm: MakeVM, name: str) -> None:
    vm = make_vm(name=name)
    vm.launch()
    assert vm._qemu_log_path == f"{vm.temp_dir}/{name}.log"


def test_several_in_threads(make_vm: MakeVM) -> None:
    def live() -> int | None:
        vm = make_vm(name="same")
        with vm:
            vm.launch()
            assert vm.cmd("query-status")["running"]
            assert threading.current_thread() is not threading.main_thread()
        return vm.exitcode()

    assert [call.result() for call in [InThread(live) for _ in range(4)]] == [0] * 4


async def _in_a_loop(vm: QEMUMachine) -> Any:
    vm.launch()
    try:
        return vm.qmp("query-status")
    finally:
        vm.shutdown()


def test_inside_a_running_loop(make_vm: MakeVM) -> None:
    assert asyncio.run(_in_a_loop(make_vm()))["return"]["running"]


def test_exports() -> None:
    for name in compat.__all__:
        assert getattr(compat, name)
    assert issubclass(compat.QEMUMachineAddDeviceError, QEMUMachineError)


def test_errors_can_be_copied_and_pickled() -> None:
    error = compat.VMLaunchFailure(1, "qemu", "output")
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert other.args == error.args == (1, "qemu", "output")
    assert str(error) == "\n\tExit code: 1\n\tCommand: qemu\n\tOutput: output"


def test_arguments_of_a_launched_machine(make_vm: MakeVM) -> None:
    vm = make_vm()
    vm.launch()
    vm.add_args("-S")
    assert vm._qemu_full_args[-len(NOTHING) :] == NOTHING
    vm.shutdown()
    vm.launch()
    assert vm.cmd("query-status")["status"] == "prelaunch"
    with pytest.raises(IndexError):
        vm.get_command_arguments("-S")
