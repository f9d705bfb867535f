"""gdb at a machine that was not started for it."""

import asyncio
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from vmfsm_plugins.qmp import QMPCommandError

from tests.endings import MakeGuest, guests, until_guest_is_up
from tests.waiting import LIMIT
from vmfsm import ConfigError, Machine
from vmfsm.testing import FakeQEMU
from vmfsm.testing import actions as do


@pytest.fixture
def make(qemu: str) -> Iterator[MakeGuest]:
    with guests(qemu) as make:
        yield make


def gdb(target: str, *commands: str) -> str:
    """What gdb says to some commands, connected with a stub."""
    words = [word for command in (f"target remote {target}", *commands) for word in ("-ex", command)]
    ran = subprocess.run(
        ["gdb", "-nx", "-batch", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=LIMIT,
        text=True,
        check=False,
    )
    return ran.stdout


def test_gdb_looks_at_a_guest_and_lets_it_go(make: MakeGuest) -> None:
    vm = make().launch()
    until_guest_is_up(vm)
    with vm.hold("gdb"):
        target = vm.qmp.gdbstub()
        assert oct(os.stat(os.path.dirname(target)).st_mode)[-3:] == "700"
        mark = vm.qmp.mark()
        said = gdb(target, "info registers rip", "detach")
        vm.qmp.wait_event("STOP", since=mark)
        vm.qmp.wait_event("RESUME", since=mark)
    assert "rip            0x" in said
    vm.console.sendline("ping")
    vm.console.expect("pong")
    assert vm.qmp.gdbstub() == asyncio.run(vm.qmp.aio.gdbstub()) == target
    assert "rip            0x" in gdb(target, "info registers rip", "detach")
    vm.shutdown()
    assert not os.path.exists(target)


def test_of_many_who_ask_at_once_one_makes_it(make: MakeGuest) -> None:
    vm = make().launch()

    async def ask() -> list[str]:
        return await asyncio.gather(*(vm.qmp.aio.gdbstub() for _ in range(5)))

    assert len(set(asyncio.run(ask()))) == 1
    commands = [record.data["command"] for record in vm.timeline if record.kind == "qmp-command"]
    assert commands.count("human-monitor-command") == 1


def test_each_launch_has_its_own(make: MakeGuest) -> None:
    vm = make()
    targets = set()
    for _ in range(2):
        vm.launch()
        targets.add(vm.qmp.gdbstub())
        vm.shutdown()
    assert len(targets) == 2


def test_one_that_is_there_already(make: MakeGuest, tmp_path: Path) -> None:
    path = tmp_path / "my gdb"
    assert make(more=["-gdb", f"unix:{path},server=on,wait=off"]).launch().qmp.gdbstub() == str(path)
    for anywhere, host in (("", "localhost"), ("127.0.0.1", "127.0.0.1")):
        vm = make(more=["-gdb", f"tcp:{anywhere}:0"]).launch()
        target = vm.qmp.gdbstub()
        assert re.fullmatch(rf"{host}:[1-9]\d+", target)
        assert "rip            0x" in gdb(target, "info registers rip", "detach")


def test_one_that_is_no_socket(make: MakeGuest) -> None:
    with pytest.raises(ConfigError, match="no socket") as caught:
        make(more=["-gdb", "null"]).launch().qmp.gdbstub()
    assert caught.value.field == "args"


def test_a_directory_of_any_name(make: MakeGuest, tmp_path: Path) -> None:
    base = tmp_path / 'a "b", c\\d'
    base.mkdir()
    target = make(base_dir=base).launch().qmp.gdbstub()
    assert target.startswith(f"{base}/")
    assert Path(target).is_socket()


def test_a_directory_that_is_too_long_for_a_socket(make: MakeGuest, tmp_path: Path) -> None:
    base = tmp_path / ("x" * 100)
    base.mkdir()
    vm = make(base_dir=base).launch()
    with pytest.raises(OSError, match="too long for a socket"):
        vm.qmp.gdbstub()


def test_a_qemu_that_cannot() -> None:
    refusal = do.reply("Could not open gdbserver on device 'unix:…'\r\n")
    orders = {"query-chardev": [do.reply([]), do.reply([])], "human-monitor-command": [refusal]}
    with FakeQEMU(on=orders) as fake, Machine(fake.binary) as vm:
        vm.launch()
        with pytest.raises(QMPCommandError, match="Could not open gdbserver") as caught:
            vm.qmp.gdbstub()
    assert caught.value.command == "gdbserver"
