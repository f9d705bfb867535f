"""`vmfsm qmp` and `vmfsm screendump`: beside the harness's own commands, in scripts, and as a shell."""

import json
import os
import shlex
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pexpect
import pytest

from tests.cli.harness import Harness, MakeHarness
from tests.cli.running import environment, vmfsm
from tests.cli.screens import Screen
from tests.waiting import LIMIT
from vmfsm import Machine
from vmfsm.cli.qmpshell.arguments import parse_arguments, parse_command
from vmfsm.cli.qmpshell.completing import candidates, describe, signature
from vmfsm.cli.qmpshell.history import History
from vmfsm.cli.qmpshell.schema import Schema
from vmfsm.cli.status import ExitStatus

UP = "vm = idle('box').launch(); say(); input()"


@pytest.fixture
def box(harness: MakeHarness) -> Harness:
    return harness(UP).hear()


def test_one_command(box: Harness) -> None:
    ran = vmfsm("qmp", "box", "query-name")
    assert (ran.returncode, json.loads(ran.stdout), ran.stderr) == (0, {}, "")
    assert vmfsm("qmp", "box", "qom-get", "path=/machine", "property=type").stdout == '"none-machine"\n'
    ran = vmfsm("qmp", f"{box.pid}/box", "qom-get", '{"path": "/machine", "property": "type"}')
    assert ran.stdout == '"none-machine"\n'


def test_what_goes_wrong(box: Harness) -> None:
    ran = vmfsm("qmp", "box", "no-such")
    assert (ran.returncode, ran.stdout) == (ExitStatus.FAILED, "")
    assert ran.stderr == "vmfsm: no-such: CommandNotFound: The command no-such has not been found\n"
    assert vmfsm("qmp", "box", "stop", "x").returncode == ExitStatus.USAGE
    assert vmfsm("qmp", "other", "stop").returncode == ExitStatus.NO_SUCH_MACHINE


def test_a_script(box: Harness) -> None:
    """Each line is a command; one that fails is told, and the others are executed."""
    lines = [
        "# a remark",
        "",
        "qom-get path=/machine property=type",
        '{"execute": "query-status"}',
        "no-such",
        "stop {",
        "query-name",
    ]
    ran = subprocess.run(
        [sys.executable, "-m", "vmfsm", "qmp", "box"],
        check=False,
        input="\n".join(lines),
        capture_output=True,
        text=True,
        env=environment({}),
        timeout=LIMIT,
    )
    assert ran.returncode == ExitStatus.FAILED
    first, second, third = map(json.loads, ran.stdout.splitlines())
    assert (first, second["status"], third) == ("none-machine", "running", {})
    assert [line.split(":")[1] for line in ran.stderr.splitlines()] == [" line 5", " line 6"]


def test_a_picture_of_the_screen(harness: MakeHarness, tmp_path: Path) -> None:
    harness(
        "vm = Machine('qemu-system-x86_64', ['-S', '-nodefaults', '-vga', 'std'], name='box').launch(); "
        "bare = idle('bare').launch(); say(); input()"
    ).hear()
    file = tmp_path / "screen.png"
    ran = vmfsm("screendump", "box", str(file))
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"{file}\n", "")
    data = file.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    assert width >= 640
    assert height >= 400
    ran = vmfsm("screendump", "box", str(tmp_path / "screen.ppm"))
    assert (tmp_path / "screen.ppm").read_bytes().startswith(b"P6\n%d %d\n" % (width, height))
    ran = vmfsm("screendump", "bare", str(tmp_path / "none.png"))
    assert (ran.returncode, ran.stdout) == (ExitStatus.FAILED, "")
    assert ran.stderr == "vmfsm: bare: it has no graphics device (-device VGA is one)\n"


# -- the shell ----------------------------------------------------------------------------------------------


class Shell(Screen):
    """`vmfsm qmp box` on a screen."""

    def __init__(self, state: Path) -> None:
        super().__init__(columns=80, rows=30)
        self._state = state

    def __enter__(self) -> Self:
        super().__enter__()
        words = ["env", f"XDG_STATE_HOME={self._state}", sys.executable, "-m", "vmfsm", "qmp", "box"]
        self.type(f"clear; {shlex.join(words)}; echo status $?", "Enter")
        self.shows("box>")
        return self

    def shows(self, row: str) -> None:
        """Wait for this row."""
        self.until(lambda rows: row in rows)

    def run(self, line: str, row: str) -> None:
        """Type a line, and wait for this row of its answer."""
        self.type("C-l")
        self.until(lambda rows: rows[0] == "box>")
        self.type("-l", line)
        self.until(lambda rows: rows[0] == f"box> {line}")
        self.type("Enter")
        self.shows(row)


@pytest.fixture
def shell(box: Harness, tmp_path: Path) -> Iterator[Shell]:
    with Shell(tmp_path) as shell:
        yield shell


def test_the_shell(shell: Shell, tmp_path: Path) -> None:
    shell.type("query-hotp", "Tab")
    shell.shows("box> query-hotpluggable-cpus")
    shell.type("C-u")
    shell.type("qom-get path=/machine prop", "Tab", "type", "Enter")  # at once, as when it is pasted
    shell.shows('"none-machine"')
    shell.run("query-name", "{}")
    shell.run("qom-get path=/machine property=type", '"none-machine"')
    shell.run("no-such", "CommandNotFound: The command no-such has not been found")
    shell.run("help qom-get", "  property  string")
    shell.run("stop", "EVENT STOP")
    shell.run("object-add qom-type=secret id=s data=hidden", "{}")
    vmfsm("qmp", "box", "cont")  # somebody else's
    shell.shows("EVENT RESUME")
    shell.type("C-d")
    shell.shows("status 0")
    file = tmp_path / "vmfsm" / "qmp-history"
    assert file.stat().st_mode & 0o777 == 0o600
    assert "+query-name\n" in file.read_text()
    assert "hidden" not in file.read_text()


def test_sigterm_restores_the_terminal(box: Harness) -> None:
    line = "stty -a; echo so; {} -m vmfsm qmp box; stty -a; echo so"
    words = ["-c", line.format(sys.executable)]
    child = pexpect.spawn("sh", words, env=environment({}), encoding="utf-8", timeout=LIMIT)
    child.expect_exact("so\r\n")
    settings = child.before
    child.expect_exact("box>")
    (shell,) = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
    os.kill(int(shell), signal.SIGTERM)
    child.expect_exact("so\r\n")
    assert str(settings) in str(child.before)
    child.close(force=True)


def test_two_shells_and_the_harness(harness: MakeHarness, tmp_path: Path) -> None:
    """All have the monitor at once, and everybody gets the replies to their own commands."""
    harness("""
        vm = idle('box').launch()
        say()
        threading.Thread(target=lambda: (input(), os._exit(0))).start()
        while True:
            assert vm.qmp.execute("qom-get", path="/machine", property="type") == "none-machine"
            time.sleep(0.001)
        """).hear()
    with Shell(tmp_path / "1") as one, Shell(tmp_path / "2") as other:
        one.run("query-name", "{}")
        other.run("qom-get path=/machine property=type", '"none-machine"')
        one.run("query-status", '  "status": "running",')
        other.run("query-name", "{}")
        for shell in (one, other):
            shell.type("exit", "Enter")
            shell.shows("status 0")


def test_the_end_of_the_program_is_told(shell: Shell, box: Harness) -> None:
    box.kill()
    shell.shows("the harness has ended")
    shell.type("query-name", "Enter")
    shell.shows(f"status {ExitStatus.NO_SUCH_MACHINE:d}")


# -- what there is to know ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def schema(qemu: str) -> Schema:
    with Machine(qemu, ["-M", "none", "-nodefaults"]) as vm:
        vm.launch()
        return Schema(vm.qmp.execute("query-qmp-schema"))


def names(schema: Schema, line: str) -> list[str]:
    return [one.text for one in candidates(schema, line)[1]]


def test_completion(schema: Schema) -> None:
    assert names(schema, "query-nam") == ["query-name", "query-named-block-nodes"]
    assert names(schema, "qom-get p") == ["path=", "property="]
    assert names(schema, "qom-get path=/machine p") == ["property="]
    assert names(schema, "blockdev-add driver=null-") == ["null-aio", "null-co"]
    assert names(schema, "blockdev-add driver=null-co latency") == ["latency-ns="]
    assert names(schema, "blockdev-add driver=raw file.dri") == ["file.driver="]
    assert names(schema, "blockdev-add driver=raw file.driver=null-c") == ["null-co"]
    assert names(schema, "migrate no-such=t") == names(schema, "no-such x") == []
    assert names(schema, "blockdev-add read-only=t") == ["true"]
    assert names(schema, "help STO") == ["STOP"]
    assert names(schema, 'qom-get {"pa') == []


def test_what_is_known_of_a_command(schema: Schema) -> None:
    assert signature(schema, "qom-get ") == "path: string  property: string"
    assert signature(schema, "system_powerdown") == ""
    assert "  mode                existing|absolute-paths, optional" in describe(
        schema, "blockdev-snapshot-sync"
    )
    assert describe(schema, "query-status")[-1].startswith("  returns {")
    assert describe(schema, "RESET")[0] == "RESET (event)"
    assert describe(schema, "no-such") == []


def test_arguments() -> None:
    assert parse_arguments(["a=1", "b=true", "c=text", 'd="1"', "e.f=x", "e.g=[1]"]) == {
        "a": 1,
        "b": True,
        "c": "text",
        "d": "1",
        "e": {"f": "x", "g": [1]},
    }
    assert parse_command('x {"a": 1}') == ("x", {"a": 1})
    assert parse_command('{"execute": "x", "arguments": {"a": 1}, "id": 7}') == ("x", {"a": 1})
    assert parse_command("x a='b c'") == ("x", {"a": "b c"})


@pytest.mark.parametrize(
    "line",
    ["x a", "x a=1 a=2", "x a=1 a.b=2", "{", '{"run": 1}', '{"execute": 1}', "x a='", "/x", "x .=1"],
)
def test_what_is_no_command(line: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_command(line)


def test_a_password_is_not_remembered(tmp_path: Path) -> None:
    history = History(tmp_path / "new" / "history")
    for line in ("query-name", "set_password protocol=vnc password=x", "object-add data=y", "stop"):
        history.store_string(line)
    assert list(history.load_history_strings()) == ["stop", "query-name"]
