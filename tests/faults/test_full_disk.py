"""No room where files are written: a launch that needs it says so, a machine that runs goes on."""

import os
import textwrap
from pathlib import Path

import pytest

from tests.endings import MakeGuest, assert_ended, until_guest_is_up
from tests.faults.conftest import MakeDisk, fill
from tests.scripts import run_script
from tests.waiting import until
from vmfsm import LaunchError, Machine, Reason, State


def assert_works(vm: Machine) -> None:
    vm.console.sendline("ping")
    vm.console.expect("pong")
    assert vm.qmp.execute("query-status")["status"] == "running"


def assert_floods(vm: Machine, amount: int = 60_000) -> None:
    """More than any disk here takes; nobody reads it but the framework."""
    vm.console.sendline("flood")
    until(lambda: vm.console.lost + len(vm.console.text) > amount)
    assert vm.qmp.execute("query-status")["status"] == "running"


def test_no_more_files_for_the_private_directory(guest: MakeGuest, small_disk: MakeDisk) -> None:
    disk = small_disk(inodes=1)  # its own root is the one
    vm = guest(base_dir=disk)
    with pytest.raises(LaunchError, match=r"base_dir: no directory can be made in .*: No space left"):
        vm.launch()
    assert_ended(vm, State.FAILED, Reason.LAUNCH_ERROR, None)
    assert os.listdir(disk) == []


def test_no_more_files_in_the_private_directory(guest: MakeGuest, small_disk: MakeDisk) -> None:
    """At whatever number of files that a launch makes: what it has made is removed, or else all goes well."""
    outcomes = set()
    for inodes in range(2, 7):
        disk = small_disk(inodes=inodes)
        vm = guest(base_dir=disk)
        try:
            vm.launch()
        except LaunchError as error:
            assert "No space left" in str(error)  # noqa: PT017 - it may raise, and then says why
            assert vm.state is State.FAILED
            outcomes.add("failed")
        else:
            until_guest_is_up(vm)
            vm.shutdown()
            assert_ended(vm, State.STOPPED, Reason.REQUESTED, 0)
            outcomes.add("launched")
        assert os.listdir(disk) == []
    assert outcomes == {"failed", "launched"}


def test_no_room_in_the_private_directory(guest: MakeGuest, small_disk: MakeDisk) -> None:
    """There are the logs, for which there is memory, too."""
    disk = small_disk()
    vm = guest(base_dir=disk)
    fill(disk)
    vm.launch()
    until_guest_is_up(vm)
    assert_works(vm)
    assert_floods(vm, 20_000)
    vm.shutdown()
    assert_ended(vm, State.STOPPED, Reason.REQUESTED, 0)
    assert os.listdir(disk) == ["filling"]


def test_a_log_directory_that_gets_full(
    guest: MakeGuest, small_disk: MakeDisk, caplog: pytest.LogCaptureFixture
) -> None:
    disk = small_disk(size=32)
    vm = guest(log_dir=disk).launch()
    until_guest_is_up(vm)
    assert_floods(vm)
    assert caplog.text.count("No space left") == 1
    assert "cannot write" in caplog.text
    vm.shutdown()
    assert_ended(vm, State.STOPPED, Reason.REQUESTED, 0)


def test_no_room_for_the_log_of_a_console(guest: MakeGuest, small_disk: MakeDisk) -> None:
    disk = small_disk()
    fill(disk)
    vm = guest(options={"console": {"log": disk / "console.log"}}).launch()
    until_guest_is_up(vm)
    assert_works(vm)
    (warning,) = [record for record in vm.timeline if record.kind.endswith("-file")]
    assert "No space left" in str(warning.data)
    vm.shutdown()
    assert_ended(vm, State.STOPPED, Reason.REQUESTED, 0)


# What fills the disk goes while a machine runs: the registry is whole again with the next launch.
REGISTRY = """
import logging, os, sys
from pathlib import Path
from vmfsm import Machine, State, registry
from vmfsm.testing import GUEST_ARGS

logging.basicConfig(format="%(name)s %(message)s", stream=sys.stdout)
disk = Path(os.environ["XDG_RUNTIME_DIR"])

def fill():
    try:
        with open(disk / "filling", "ab", buffering=0) as file:
            while True:
                file.write(b"x" * 512)
    except OSError:
        pass

def live_through(name):
    vm = Machine("qemu-system-x86_64", GUEST_ARGS, base_dir=sys.argv[1], name=name).launch()
    vm.console.expect("ready")
    known = [(entry.name, entry.status.value) for entry in registry.machines()]
    vm.shutdown()
    assert vm.state is State.STOPPED
    return known
"""


def test_no_room_for_the_registry(
    qemu: str, small_disk: MakeDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warning says so, and machines come and go as ever; those that are registered are found."""
    disk = small_disk(size=8)
    machines = tmp_path / "machines"
    machines.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(disk))
    ran = run_script(
        textwrap.dedent(
            """
            fill()
            assert live_through("first") == []
            os.unlink(disk / "filling")
            assert live_through("second") == [("second", "live")]
            fill()
            assert live_through("third") == []
            os.unlink(disk / "filling")
            assert live_through("fourth") == [("fourth", "live")]
            """
        ),
        machines,
        beginning=REGISTRY,
    )
    assert (ran.status, ran.err, ran.left) == (0, "", [])
    warnings = ran.out.splitlines()
    assert warnings
    assert all(line.startswith("vmfsm.ownership ") and "No space left" in line for line in warnings)
    until(lambda: not any(disk.glob("vmfsm/*")))
