"""`machine.snapshot()`: what the page says, at any time, from anywhere, without waiting for anybody."""

import contextlib
import itertools
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import BUILT_IN, MakeMachine
from tests.endings import MakeGuest, guests, stop_process, until_guest_is_up
from tests.waiting import InThread, until
from vmfsm import AbnormalExit, LaunchError, Machine, hookimpl, jsonable
from vmfsm.iothread import IOThread
from vmfsm.testing import GUEST_ARGS

PAGE = (Path(__file__).parents[1] / "docs" / "snapshot.md").read_text(encoding="utf-8")
TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "number": (int, float),
    "str": (str,),
    "bool": (bool,),
    "null": (type(None),),
    "list": (list,),
    "object": (dict,),
}


def fields(table: str, *, column: int = 0) -> Iterator[tuple[str, str, tuple[type, ...]]]:
    """Plugin (where the table has that column), field and types of its rows."""
    text = PAGE.partition(f"<!-- fields: {table} -->")[2].partition("<!-- end -->")[0]
    for line in text.splitlines()[3:]:
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        plugin = cells[0].strip("`") if column else ""
        name = re.findall(r"`(\w+)`", cells[column])[-1]
        yield plugin, name, tuple(kind for word in cells[column + 1].split(", ") for kind in TYPES[word])


def has(table: str, found: Mapping[str, object]) -> None:
    """`found` has the fields of a table, and no others, of the types that it says."""
    rows = {name: types for _, name, types in fields(table)}
    assert sorted(found) == sorted(rows)
    for name, types in rows.items():
        value = found[name]
        assert isinstance(value, types), (name, value)
        assert not isinstance(value, bool) or bool in types, (name, value)


def check(picture: Mapping[str, Any]) -> Mapping[str, Any]:
    """It is what the page says, and agrees with itself."""
    assert json.loads(json.dumps(picture, allow_nan=False)) == picture
    has("snapshot", picture)
    for info in picture["plugins"]:
        has("plugins", info)
    details = picture["details"]
    consoles = details.get("console", {}).values()
    for plugin, name, types in fields("details", column=1):
        for part in consoles if plugin == "console" else [details[plugin]] if plugin in details else []:
            assert isinstance(part[name], types), (plugin, name, part)
    history = picture["history"]
    last = history[-1] if history else {"dest": "configured", "reason": None, "seconds": picture["since"]}
    assert (picture["state"], picture["reason"]) == (last["dest"], last["reason"])
    assert picture["since"] == last["seconds"]
    assert all(row["seconds"] >= 0 and row["at"] >= 0 for row in history)
    for before, after in itertools.pairwise(history):
        assert before["dest"] == after["source"]
        assert before["at"] - before["seconds"] == pytest.approx(after["at"])
    assert all(record["at"] >= 0 for record in (*picture["timeline"], *picture["verdicts"]))
    return picture


def running(make: MakeGuest, **parameters: Any) -> Machine:
    vm = make(**parameters)
    vm.launch()
    until_guest_is_up(vm)
    return vm


def test_the_page_has_tables() -> None:
    assert len(list(fields("snapshot"))) > 20
    plugins = {plugin for plugin, _, _ in fields("details", column=1)}
    assert plugins == {"qmp", "console", "logs", "fdpass", "recorder"}


def test_a_life(qemu: str, tmp_path: Path) -> None:
    shown: dict[str, Any] = {}

    class Watching:
        name = "watching"

        @hookimpl
        def pre_launch(self, machine: Machine) -> None:
            shown["pre_launch"] = machine.snapshot()

        @hookimpl
        async def post_launch(self, machine: Machine) -> None:
            shown["post_launch"] = machine.snapshot()

        @hookimpl
        def early_cleanup(self, machine: Machine) -> None:
            shown["early_cleanup"] = machine.snapshot()

        @hookimpl
        def post_shutdown(self, machine: Machine) -> None:
            shown["post_shutdown"] = machine.snapshot()

    vm = Machine(
        qemu,
        GUEST_ARGS,
        name="demo",
        env={"COLOUR": "blue", "HOME": None},
        log_dir=tmp_path,
        plugins=[Watching()],
        options={"console": {"buffer": 100_000}},
    )
    configured = check(vm.snapshot())
    assert (configured["state"], configured["launches"], configured["pid"]) == ("configured", 0, None)
    assert configured["command"] == [qemu, *GUEST_ARGS]
    assert "qmp" not in configured["details"]
    with vm:
        vm.launch()
        with open("/dev/null", "rb") as null:
            vm.fds.add(null.fileno(), fdset=7)
        vm.console.expect("ready")
        running = check(vm.snapshot())
        pid = vm.pid
        said = subprocess.run([vm.command[0], "--version"], capture_output=True, text=True, check=True).stdout
        version_as_printed = said.splitlines()[0].removeprefix("QEMU emulator version ")
    stopped = check(vm.snapshot())

    for hook, state in {"pre_launch": "launching", "post_launch": "launching"}.items():
        assert check(shown[hook])["state"] == state
        assert shown[hook]["running_hook"] == f"{hook} of plugin 'watching'"
    for hook in ("early_cleanup", "post_shutdown"):
        assert (check(shown[hook])["state"], shown[hook]["reason"]) == ("quitting", "requested")
    assert shown["pre_launch"]["pid"] is None
    assert shown["post_launch"]["pid"] == shown["early_cleanup"]["pid"] == pid
    assert shown["post_shutdown"]["pid"] is None

    assert (running["state"], running["reason"], running["launches"]) == ("running", None, 1)
    assert (running["pid"], running["exit_status"], running["running_hook"]) == (pid, None, None)
    assert {"hook": "pre_launch", "plugin": "watching"}.items() <= next(
        row for row in running["hooks"] if row["plugin"] == "watching"
    ).items()
    assert running["command"] == list(vm.command)
    assert running["environment"] == {"COLOUR": "blue", "HOME": None}
    assert running["cwd"] == os.getcwd()
    assert running["paths"]["log_dir"] == str(tmp_path)
    assert running["harness"]["pid"] == os.getpid()
    assert "test_a_life" in running["harness"]["test"]
    assert running["timeline"] == [
        {"kind": record.kind, "at": shown["at"], "data": jsonable(record.data)}
        for record, shown in zip(vm.timeline, running["timeline"], strict=False)
    ]
    qmp, console = running["details"]["qmp"], running["details"]["console"]["console"]
    assert (qmp["version"], qmp["run_state"]) == (version_as_printed, "running")
    assert "vmfsm guest ready" in console["lines"]
    assert (console["path"], console["closed"]) == (str(tmp_path / "demo-console.log"), False)
    assert running["details"]["logs"]["path"] == str(tmp_path / "demo.log")
    (passed,) = running["details"]["fdpass"]["passed"]
    assert (passed["fdset"], passed["path"]) == (7, None)

    assert (stopped["state"], stopped["reason"], stopped["exit_status"]) == ("stopped", "requested", 0)
    assert (stopped["pid"], stopped["paths"]["directory"]) == (None, None)
    assert [row["hook"] for row in stopped["hooks"] if row["plugin"] == "watching"] == [
        "pre_launch",
        "post_launch",
        "early_cleanup",
        "post_shutdown",
    ]
    assert [event["event"] for event in stopped["details"]["qmp"]["events"]] == ["SHUTDOWN"]
    assert stopped["details"]["console"]["console"]["closed"]


def test_after_a_launch_that_failed(qemu: str) -> None:
    vm = Machine(qemu, ["-no-such-option"])
    for launches in (1, 2):
        with pytest.raises(LaunchError):
            vm.launch()
        picture = check(vm.snapshot())
        assert (picture["state"], picture["reason"]) == ("failed", "launch-error")
        assert (picture["launches"], picture["exit_status"]) == (launches, 1)


def test_verdicts_outlive_their_records(qemu: str) -> None:
    with guests(qemu) as make:
        vm = running(make)
        vm.console.sendline("panic")
        until(lambda: vm.snapshot()["verdicts"])
        first = next(record for record in vm.timeline if record.kind == "verdict")
        IOThread.get().post(lambda: vm.record("flood", {}, size=1 << 30))
        until(lambda: first not in vm.timeline)
        verdicts = check(vm.snapshot())["verdicts"]
        assert "guest-panicked" in {verdict["data"]["verdict"] for verdict in verdicts}


def test_what_differs_in_the_environment_is_told_before_the_launch_too(bare: MakeMachine) -> None:
    vm = bare(env={**os.environ, "COLOUR": "red", "NOT_THERE": None})
    assert vm.snapshot()["environment"] == {"COLOUR": "red"}
    vm.launch()
    assert vm.snapshot()["environment"] == {"COLOUR": "red"}


def test_repr(bare: MakeMachine) -> None:
    vm = bare(name="demo")
    assert re.fullmatch(r"<Machine demo configured since \d+\.\d s>", repr(vm))
    vm.launch()
    assert re.fullmatch(rf"<Machine demo running since \d+\.\d s pid={vm.pid}>", repr(vm))
    with vm.hold("lunch"):
        assert re.fullmatch(rf"<Machine demo running since \d+\.\d s held \(lunch\) pid={vm.pid}>", repr(vm))
    vm.kill()
    assert re.fullmatch(r"<Machine demo stopped \(killed\) since \d+\.\d s>", repr(vm))


# -- it waits for nobody ------------------------------------------------------------------------------------


def test_with_qemu_stopped_and_the_io_thread_held_up(qemu: str) -> None:
    held, go = threading.Event(), threading.Event()

    class HoldsUp:
        name = "holds-up"

        @hookimpl
        async def early_cleanup(self) -> None:
            held.set()
            go.wait(600)

    with guests(qemu) as make:
        vm = running(make, plugins=[HoldsUp()])
        stop_process(vm.pid)
        assert InThread(vm.snapshot).result()["state"] == "running"
        ending = InThread(vm.kill)
        try:
            assert held.wait(600)
            picture = check(InThread(vm.snapshot).result())
            assert (picture["state"], picture["reason"]) == ("quitting", "killed")
            assert picture["running_hook"] == "early_cleanup of plugin 'holds-up'"
        finally:
            go.set()
        ending.result()


def test_on_the_io_thread(bare: MakeMachine) -> None:
    vm = bare()
    shown: list[Mapping[str, Any]] = []
    IOThread.get().post(lambda: shown.append(vm.snapshot()))
    until(lambda: shown)
    assert check(shown[0])["state"] == "configured"


def test_of_many_threads_while_it_lives_and_dies(bare: MakeMachine) -> None:
    vm, over = bare(), threading.Event()

    def look() -> int:
        looks = 0
        while not over.is_set():
            check(vm.snapshot())
            looks += 1
        return looks

    lookers = [InThread(look) for _ in range(4)]
    try:
        for _ in range(5):
            vm.launch()
            vm.kill()
    finally:
        over.set()
    assert all(looker.result() > 0 for looker in lookers)
    assert check(vm.snapshot())["launches"] == 5


def test_in_a_forked_child(qemu: str) -> None:
    with guests(qemu) as make:
        vm = running(make)
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.write(writing, json.dumps(vm.snapshot()).encode())
            finally:
                os._exit(0)
        os.close(writing)
        with open(reading, encoding="utf-8") as file:
            picture = check(json.load(file))
        os.waitpid(child, 0)
        assert (picture["state"], picture["pid"]) == ("running", vm.pid)
        assert picture["harness"]["pid"] == os.getpid()


# -- what plugins show --------------------------------------------------------------------------------------


class Shows:
    def __init__(self, name: str, shown: Any) -> None:
        self.name = name
        self.shown = shown

    @hookimpl
    def snapshot(self, machine: Machine) -> Any:
        return self.shown(machine)


def raising(error: BaseException) -> Any:
    def raise_it(machine: Machine) -> None:
        raise error

    return raise_it


class Rude(Mapping[str, object]):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, key: str) -> object:
        return key

    def __iter__(self) -> Any:
        raise RuntimeError("I am rude")


def test_what_is_wrong_with_a_part_costs_only_that(bare: MakeMachine) -> None:
    vm = bare(
        Shows("good", lambda machine: {"name": machine.name, "set": {1}, "raw": b"\xff"}),
        Shows("silent", lambda machine: None),
        Shows("list", lambda machine: ["what?"]),
        Shows("raises", raising(ValueError("no\nmore"))),
        Shows("rude", lambda machine: Rude()),
    )
    assert check(vm.snapshot())["details"] == {
        "good": {"name": vm.name, "set": [1], "raw": "\\xff"},
        "list": {"error": "TypeError: a snapshot's part is a mapping or None, not list"},
        "raises": {"error": "ValueError: no"},
        "rude": {"error": "RuntimeError: I am rude"},
    }


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_what_ends_programs_is_for_the_main_thread_only(bare: MakeMachine, error: BaseException) -> None:
    vm = bare(Shows("drastic", raising(error)))
    with pytest.raises(type(error)):
        vm.snapshot()
    shown: list[Mapping[str, Any]] = []
    IOThread.get().post(lambda: shown.append(vm.snapshot()))
    until(lambda: shown)
    for picture in (*shown, InThread(vm.snapshot).result()):
        assert picture["details"]["drastic"]["error"].startswith(type(error).__name__)


def test_the_plugins(bare: MakeMachine, qemu: str) -> None:
    given = Shows("given", lambda machine: None)
    (info,) = bare(given).plugins
    assert info == ("given", None, None, f"{__name__}:Shows", __file__, ("snapshot",), {})
    vm = Machine(qemu, options={"qmp": {"negotiate_timeout": 5}}, plugins=[given.__class__("other", None)])
    by_name = {info.name: info for info in vm.plugins}
    assert list(by_name)[:4] == ["logs", "fdpass", "console", "qmp"]
    assert "other" in list(by_name)[4:]
    qmp = by_name["qmp"]
    assert (qmp.distribution, qmp.options) == ("vmfsm", {"negotiate_timeout": 5})
    assert qmp.module == "vmfsm_plugins.qmp.plugin:QMP"
    assert qmp.path is not None
    assert qmp.path.endswith("qmp/plugin.py")
    assert qmp.hooks == ("configured", "pre_launch", "post_launch", "post_shutdown", "snapshot")


# -- secrets, and the shell ---------------------------------------------------------------------------------


def test_no_secret_is_in_it(qemu: str) -> None:
    vm = Machine(
        qemu,
        ["-M", "none", "-object", "secret,id=s,data=sesame1", "-no-such-option"],
        env={"API_TOKEN": "token12", "PROXY": "http://me:in-url@there/", "DATA": "learned-one"},
        plugins=[Shows("tells", lambda machine: {"it": "a learned-one"})],
    )
    vm.secrets.add("learned-one")
    for _ in range(2):  # before its launch, and after
        text = json.dumps(check(vm.snapshot()))
        assert not [secret for secret in ("sesame1", "token12", "in-url", "learned-one") if secret in text]
        assert vm.snapshot()["environment"] == {
            "API_TOKEN": "***",
            "PROXY": "http://me:***@there/",
            "DATA": "***",
        }
        with pytest.raises(LaunchError):
            vm.launch()


def test_the_line_for_a_shell_starts_the_same(bare: MakeMachine, tmp_path: Path) -> None:
    said = tmp_path / "said"
    program = tmp_path / "a program"
    program.write_text(f'#!/bin/sh\n{{ pwd; env | grep ^MY_; printf "[%s]" "$@"; }} > {said}\nexit 3\n')
    program.chmod(0o755)
    there = tmp_path / "a 'directory'"
    there.mkdir()
    vm = Machine(
        program,
        ["it's", "$(id)", "a\nb"],
        env={"MY_1": "x y", "MY_2": "`id`"},
        cwd=there,
        block=BUILT_IN,
    )
    with contextlib.suppress(LaunchError):  # there is no monitor to wait for
        vm.launch()
    with contextlib.suppress(AbnormalExit):
        vm.wait()
    by_us = said.read_text()
    said.unlink()
    shell = vm.snapshot()["shell"]
    assert isinstance(shell, str)
    again = subprocess.run(["sh", "-c", shell], cwd="/", check=False)
    assert (again.returncode, said.read_text()) == (3, by_us)
    assert f"{there}\n" in by_us


def test_where_it_was_started_is_where_it_is(
    bare: MakeMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    vm = bare().launch()
    monkeypatch.chdir("/")
    picture = vm.snapshot()
    assert picture["cwd"] == os.path.realpath(f"/proc/{vm.pid}/cwd") == str(tmp_path)
    assert str(picture["shell"]).startswith(f"cd {tmp_path} && ")


def test_a_machine_with_a_monitor_can_be_started_from_it(qemu: str) -> None:
    with guests(qemu) as make:
        shell = running(make).snapshot()["shell"]
    assert isinstance(shell, str)
    again = subprocess.run(
        ["sh", "-c", f"{shell} -qmp stdio"],
        input='{"execute": "qmp_capabilities"}\n{"execute": "quit"}\n',
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (again.returncode, again.stderr) == (0, "")
