"""The small names of `qemu.utils`."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.waiting import until
from vmfsm import LaunchError
from vmfsm.compat import QEMUMachine
from vmfsm.compat.qemu_utils import (
    VerboseProcessError,
    get_info_usernet_hostfwd_port,
    hvf_available,
    kvm_available,
    list_accel,
    tcg_available,
)


@pytest.fixture
def vm(qemu: str) -> Iterator[QEMUMachine]:
    with QEMUMachine(qemu, ["-machine", "none"]) as vm:
        yield vm


def forwarded(vm: QEMUMachine) -> int | None:
    return get_info_usernet_hostfwd_port(vm.cmd("human-monitor-command", {"command-line": "info usernet"}))


def test_the_port_that_is_forwarded(vm: QEMUMachine) -> None:
    vm.add_args("-netdev", "user,id=vnet,hostfwd=:127.0.0.1:0-:22")
    vm.launch()
    until(lambda: forwarded(vm) is not None)
    port = forwarded(vm)
    assert port is not None
    assert 0 < port < 65536


def test_no_port_is_forwarded(vm: QEMUMachine) -> None:
    vm.add_args("-netdev", "user,id=vnet")
    vm.launch()
    assert forwarded(vm) is None
    assert get_info_usernet_hostfwd_port("") is None


def test_accelerators(qemu: str) -> None:
    names = list_accel(qemu)
    assert "tcg" in names
    assert tcg_available(qemu)
    assert not hvf_available(qemu) or sys.platform == "darwin"
    assert not kvm_available(qemu_bin=qemu) or "kvm" in names


def test_no_qemu_has_none() -> None:
    assert not tcg_available("/not/there")
    assert not kvm_available(qemu_bin="/not/there")
    with pytest.raises(LaunchError):
        list_accel("/not/there")


def test_kvm_is_for_the_hosts_own_guests() -> None:
    other = "s390x" if platform.machine() != "s390x" else "x86_64"
    assert not kvm_available(other)
    assert kvm_available() == kvm_available(platform.machine()) == os.access("/dev/kvm", os.R_OK | os.W_OK)


def test_a_failed_command_shows_what_it_said() -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        subprocess.run(["sh", "-c", "echo out; echo err >&2; exit 3"], check=True, capture_output=True)
    error = failed.value
    text = str(VerboseProcessError(error.returncode, error.cmd, error.stdout, error.stderr))
    assert "status 3" in text
    assert text.endswith("stdout:\n  out\nstderr:\n  err")
