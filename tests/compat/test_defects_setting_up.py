"""What a machine is made of: values that were misread, names that clashed, paths that were corrupted."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.compat.conftest import MakeVM
from vmfsm.compat import QEMUMachine, QEMUMachineError


@pytest.mark.parametrize(
    "wrong",
    [
        {"args": "-M none"},
        {"args": b"-M"},
        {"args": 5},
        {"wrapper": "gdbserver"},
        {"monitor_address": ["localhost", 9001]},
        {"monitor_address": ("localhost", "9001")},
        {"monitor_address": ("localhost",)},
        {"monitor_address": 9001},
    ],
    ids=str,
)
def test_what_was_misread_is_refused(qemu: str, wrong: dict[str, Any]) -> None:
    for kind in (AssertionError, QEMUMachineError):
        with pytest.raises(kind, match=next(iter(wrong))):
            QEMUMachine(qemu, **wrong)


def test_commas_in_values(make_vm: MakeVM, tmp_path: Path) -> None:
    directory = tmp_path / "a,b"
    directory.mkdir()
    vm = make_vm("-M", "pc", sock_dir=str(directory), name="v")
    vm.set_console()
    with open(os.devnull) as null:
        vm.add_fd(null.fileno(), 7, "what,ever=1")
        vm.launch()
    (fdset,) = vm.cmd("query-fdsets")
    assert fdset["fds"][0]["opaque"] == "what,ever=1"
    assert sorted(os.listdir(directory)) == ["v-console.sock", "v-monitor.sock"]
    vm.shutdown()
    assert os.listdir(directory) == []


def test_a_long_directory(make_vm: MakeVM, tmp_path: Path) -> None:
    """Longer than any socket's path may be: by default there is none."""
    base = tmp_path / ("x" * 200)
    base.mkdir()
    vm = make_vm("-M", "pc", base_temp_dir=str(base))
    vm.set_console()
    vm.launch()
    assert vm.temp_dir.startswith(f"{base}/qemu-machine-")
    vm.shutdown()
    assert os.listdir(base) == []


def test_names_that_nobody_chose_do_not_clash(make_vm: MakeVM, short_dir: str) -> None:
    machines = [make_vm(sock_dir=short_dir) for _ in range(3)]
    for vm in machines:
        vm.launch()
    assert len(os.listdir(short_dir)) == 3


def test_two_machines_of_one_name_have_a_log_each(make_vm: MakeVM, short_dir: str) -> None:
    machines = [
        make_vm(wrapper=["sh", "-c", f'echo {what}; exec "$@"', "sh"], name="same", log_dir=short_dir)
        for what in ("first", "second")
    ]
    for vm in machines:
        vm.launch()
    for vm in machines:
        vm.shutdown()
    assert [vm.get_log() for vm in machines] == ["first\n", "second\n"]
    assert sorted(os.listdir(short_dir)) == ["same.2.log", "same.log"]
    assert Path(short_dir, "same.log").read_text() == "first\n"
