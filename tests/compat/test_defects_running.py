"""While it runs: its log, the harness's own signals, and how long its end takes."""

import os
import time
from pathlib import Path

import pytest

from tests.compat.conftest import MakeVM
from tests.scripts import run_script
from tests.waiting import until
from vmfsm.testing import GUEST_ARGS


def test_the_log_can_be_read_while_it_runs(make_vm: MakeVM, short_dir: str) -> None:
    vm = make_vm(wrapper=["sh", "-c", 'echo hello; exec "$@"', "sh"], name="v", log_dir=short_dir)
    vm.launch()
    assert Path(short_dir, "v.log").read_text() == "hello\n"
    assert vm.get_log() is None  # which old code is used to
    vm._load_io_log()
    assert vm.get_log() == "hello\n"
    vm.shutdown()
    assert vm.get_log() == "hello\n"
    vm.launch()
    assert vm.get_log() is None


CTRL_C = """
import os, signal, sys
from vmfsm.compat import QEMUMachine

signal.signal(signal.SIGINT, lambda *_: None)
vm = QEMUMachine("qemu-system-x86_64", ["-M", "none"], base_temp_dir=sys.argv[1])
vm.launch()
os.killpg(0, signal.SIGINT)
try:
    vm.event_wait("SHUTDOWN", timeout=0.5)
except TimeoutError:
    print("not heard of")
vm.shutdown()
"""


def test_ctrl_c_is_not_for_qemu(qemu: str, tmp_path: Path) -> None:
    ran = run_script("", tmp_path, beginning=CTRL_C)
    assert (ran.status, ran.err, ran.out, ran.left) == (0, "", "not heard of\n", [])


def until_it_says(file: Path, what: bytes) -> None:
    until(lambda: what in file.read_bytes())


@pytest.mark.parametrize("drain", [True, False])
def test_the_end_waits_for_no_poll(make_vm: MakeVM, tmp_path: Path, drain: bool) -> None:
    """It took 1.3 s more where the console was drained, and took turns of up to 50 ms anyway."""
    best = 60.0
    for _ in range(5):
        log = tmp_path / "console"
        vm = make_vm(*GUEST_ARGS, drain_console=drain, console_log=str(log) if drain else None)
        vm.set_console()
        vm.launch()
        assert vm.console_socket.recv(1)
        if drain:
            until_it_says(log, b"ready")
        begin = time.monotonic()
        vm.shutdown()
        best = min(best, time.monotonic() - begin)
        assert vm.exitcode() == 0
    assert best < 1


def test_a_temporary_directory_that_cannot_be_removed(
    make_vm: MakeVM, tmp_path: Path, short_dir: str
) -> None:
    vm = make_vm(monitor_address=f"{short_dir}/m")
    vm.launch()
    directory = Path(vm.temp_dir)
    directory.rename(tmp_path / "elsewhere")
    directory.symlink_to(tmp_path / "elsewhere")  # which no code removes as a tree
    with pytest.raises(OSError, match="symbolic link"):
        vm.shutdown()
    assert (vm.exitcode(), vm.get_log(), os.listdir(short_dir)) == (0, "", [])
    vm.shutdown()  # nothing is launched any more
    vm.launch()
    vm.shutdown()
    assert vm.exitcode() == 0
