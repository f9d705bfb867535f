"""`vmfsm ps`, `inspect`, `shutdown` and `kill`, from outside, whatever the harness is at."""

import fcntl
import json
import os
import pty
import re
import select
import shlex
import signal
import socket
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

from tests.cli.harness import Harness, MakeHarness
from tests.cli.running import PATIENT, environment
from tests.cli.running import patient_vmfsm as vmfsm
from tests.cli.test_program import completions
from tests.waiting import LIMIT, is_alive, until
from vmfsm import recording
from vmfsm.cli.status import ExitStatus

IDLE = "vm = idle('target').launch(); say(); "
COMPUTES = IDLE + "threading.Thread(target=lambda: (input(), os._exit(0))).start()\nwhile True: pass"
DEBUGS = IDLE + "breakpoint()"
"""It waits at pdb's prompt, which reads what it is told."""
STATES = [pytest.param(COMPUTES, id="computes"), pytest.param(DEBUGS, id="in pdb")]


def rows(text: str) -> dict[str, list[str]]:
    """The rows of a table, by their first words."""
    return {line.split()[0]: line.split() for line in text.splitlines()[1:]}


def listed(*options: str) -> dict[str, dict[str, Any]]:
    ran = vmfsm("ps", "--json", *options)
    assert (ran.returncode, ran.stderr) == (0, "")
    return {machine["name"]: machine for machine in json.loads(ran.stdout)}


# -- ps -----------------------------------------------------------------------------------------------------


def test_no_machines() -> None:
    ran = vmfsm("ps")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "no machines\n")
    assert vmfsm("ps", "--json").stdout == "[]\n"


def test_machines_of_several_programs(harness: MakeHarness) -> None:
    one = harness(
        "b = idle('b'); a = idle('a').launch(); say(); input()", PYTEST_CURRENT_TEST="t.py::x (call)"
    )
    other = harness("c = idle('c').launch(); c.shutdown(); say(); input()")
    one.hear()
    other.hear()
    ran = vmfsm("ps", "--all")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[0].split()[:4] == ["NAME", "STATE", "REASON", "AGE"]
    found = rows(ran.stdout)
    assert list(found) == ["a", "b", "c"]
    assert found["a"][1] == "running"
    assert found["a"][-4:] == [str(one.pid), "t.py::x", *["python", "-c", "..."]][-4:]
    assert found["b"][1] == "configured"
    assert found["c"][1:3] == ["stopped", "requested"]
    assert list(rows(vmfsm("ps").stdout)) == ["a"]
    told = listed("--all")
    assert told["a"]["test"] == "t.py::x (call)"
    assert (told["c"]["state"], told["c"]["harness"]) == ("stopped", other.pid)
    one.tell()
    one.process.wait(LIMIT)
    assert vmfsm("ps").stderr == "no machines (1 without a QEMU: vmfsm ps --all)\n"


def test_a_harness_that_stands_still_is_said_to_be_silent(harness: MakeHarness) -> None:
    one = harness(IDLE + "input()").hear()
    (entry,) = one.entries()
    one.stop()
    machine = listed("--timeout", "0.01")["target"]
    assert (machine["status"], machine["state"], machine["pid"]) == ("silent", None, entry.pid)
    assert rows(vmfsm("ps", "--timeout", "0.01").stdout)["target"][1] == "silent"
    ran = vmfsm("inspect", "target", VMFSM_TIMEOUT_SCALE=None)
    assert (ran.returncode, ran.stdout) == (ExitStatus.NO_ANSWER, "")
    assert ran.stderr.startswith("vmfsm: target: ")
    assert str(one.pid) in ran.stderr
    one.process.send_signal(signal.SIGCONT)
    until(lambda: listed()["target"]["status"] == "live")


def test_what_a_dead_harness_left(harness: MakeHarness) -> None:
    one = harness("vm = idle('target').launch(); say(); input()").hear()
    one.orphan()
    assert rows(vmfsm("ps").stdout)["target"][1] == "orphaned"
    ran = vmfsm("kill", "target")
    assert ran.returncode == ExitStatus.NO_SUCH_MACHINE
    assert "has died" in ran.stderr
    assert ran.stderr.endswith("\nvmfsm gc kills and removes what it has left\n")


def test_nothing_is_shown_of_a_harness_that_was_killed(harness: MakeHarness) -> None:
    one = harness(IDLE + "input()").hear()
    one.kill()
    assert vmfsm("ps", "--all").stderr == "no machines\n"
    assert vmfsm("inspect", "target").returncode == ExitStatus.NO_SUCH_MACHINE


# -- inspect ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", STATES)
def test_a_harness_answers_and_ends_its_machine_whatever_it_is_at(harness: MakeHarness, body: str) -> None:
    one = harness(body).hear()
    ran = vmfsm("inspect", "target")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.match(r"target  running for \d", ran.stdout)
    assert f"harness  pid {one.pid}, python -c ...\n" in ran.stdout
    assert "COMMAND\n  cd " in ran.stdout
    ran = vmfsm("stop", "target")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "target: stopped (requested), exit status 0\n"
    one.tell("import os; os._exit(0)")


def test_what_a_guest_and_its_end_looked_like(harness: MakeHarness) -> None:
    one = harness("""
        vm = guest("target", expected_exits=(7,)).launch()
        vm.console.expect("ready")
        vm.console.sendline("exit 3")
        vm.wait()
        say()
        input()
    """).hear()
    text = vmfsm("inspect", "target").stdout
    assert re.match(r"target  stopped \((qemu-exit|guest-shutdown)\) for \d", text)
    assert "  qemu     ended with status 7" in text
    assert "\n  | vmfsm guest ready\n" in text
    states = [line.split()[2] for line in text.partition("STATE")[2].splitlines()[1:5]]
    assert states == ["launching", "running", "quitting", "stopped"]
    assert "vmfsm guest ready" not in vmfsm("inspect", "target", "--lines", "0").stdout
    whole = json.loads(vmfsm("inspect", "target", "--json").stdout)
    assert (whole["name"], whole["exit_status"], whole["harness"]["pid"]) == ("target", 7, one.pid)


def test_a_guest_cannot_act_on_the_terminal(harness: MakeHarness) -> None:
    """What it echoes: an escape sequence, one with a C1 byte, a title, and half a character."""
    harness("""
        vm = guest("target").launch()
        vm.console.expect("ready")
        vm.console.send(b"a\\x1b[2Jb\\x9b31mc\\x1b]0;title\\x07d\\xff\\n")
        vm.console.expect("d")
        say()
        input()
    """).hear()
    for options in ((), ("--json",)):
        text = vmfsm("inspect", "target", *options).stdout
        assert all(char.isprintable() or char == "\n" for char in text)
        assert "[2J" in text


def test_a_machine_that_is_not_there_and_those_that_are(harness: MakeHarness) -> None:
    harness("a = idle('here').launch(); say(); input()").hear()
    ran = vmfsm("inspect", "there")
    assert (ran.returncode, ran.stdout) == (ExitStatus.NO_SUCH_MACHINE, "")
    assert ran.stderr == "vmfsm: no machine 'there' (there are: here)\n"


def test_names_that_several_harnesses_have(harness: MakeHarness) -> None:
    first, second = (harness(IDLE + "input()").hear() for _ in range(2))
    ran = vmfsm("inspect", "target")
    assert ran.returncode == ExitStatus.NO_SUCH_MACHINE
    assert f"{first.pid}/target" in ran.stderr
    assert f"{second.pid}/target" in ran.stderr
    told = json.loads(vmfsm("inspect", f"{second.pid}/target", "--json").stdout)
    assert told["harness"]["pid"] == second.pid


def said(path: Path) -> list[str]:
    """What the guest said, by a recording: any number of pieces, wherever they break."""
    return [str(record.data["text"]) for record in recording.read(path).records() if record.kind == "console"]


def test_the_recording_of_a_dead_harness(harness: MakeHarness, tmp_path: Path) -> None:
    one = harness(
        """
        vm = guest("target").launch()
        vm.console.expect("ready")
        say()
        input()
    """,
        VMFSM_RECORD=str(tmp_path),
    ).hear()
    (path,) = tmp_path.glob("target-*.jsonl")
    until(lambda: "guest ready" in "".join(said(path)))
    one.kill()
    ran = vmfsm("inspect", str(path))
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("target  running for ")
    assert f"harness  pid {one.pid}," in ran.stdout
    assert "\n  | vmfsm guest ready\n" in ran.stdout
    assert f"  record   {path}\n" in ran.stdout
    path.write_text("{nonsense\n")
    ran = vmfsm("inspect", str(path))
    assert (ran.returncode, ran.stdout) == (ExitStatus.FAILED, "")
    assert str(path) in ran.stderr


# -- shutdown and kill --------------------------------------------------------------------------------------


def test_who_ends_a_machine_is_told_also_where_its_program_ends_with_it(harness: MakeHarness) -> None:
    """Its main thread has nothing more to do, long before the answer is on its way."""
    harness("""
        from vmfsm.iothread import IOThread

        class Late:
            name = "late"

            @hookimpl
            def state_changed(self, transition):
                if transition.dest.value == "stopped":
                    IOThread.get().post(time.sleep, 0.3)

        vm = idle("target", plugins=[Late()]).launch()
        say()
        vm.wait()
    """).hear()
    ran = vmfsm("shutdown", "target")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "target: stopped (requested), exit status 0\n"


def test_several_are_killed_and_each_is_reported(harness: MakeHarness) -> None:
    one = harness("a = idle('a').launch(); b = idle('b').launch(); say(); input()").hear()
    pids = [entry.pid for entry in one.entries()]
    ran = vmfsm("kill", "a", "nobody", "b")
    assert ran.returncode == ExitStatus.NO_SUCH_MACHINE
    assert ran.stdout == "".join(f"{name}: stopped (killed), exit status -9\n" for name in "ab")
    assert ran.stderr.startswith("vmfsm: nobody: no machine 'nobody' (there are: a, b)")
    assert not any(is_alive(pid) for pid in pids if pid)
    again = vmfsm("kill", "a", "--json")
    assert json.loads(again.stdout) == [
        {"name": "a", "state": "stopped", "reason": "killed", "exit_status": -9}
    ]


def test_a_shutdown_that_has_to_kill_is_a_failure(harness: MakeHarness) -> None:
    one = harness(IDLE + "input()").hear()
    (entry,) = one.entries()
    assert entry.pid
    os.kill(entry.pid, signal.SIGSTOP)
    ran = vmfsm("shutdown", "target", "--timeout", "1")
    assert ran.returncode == ExitStatus.FAILED
    assert "target" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert listed("--all")["target"]["reason"] == "wedged"


# -- hold and release ---------------------------------------------------------------------------------------


def test_a_test_that_waits_has_all_the_time_while_it_is_held(harness: MakeHarness) -> None:
    """Its second of patience is over when the machine has been released, and not before."""
    one = harness("""
        vm = guest("target").launch()
        vm.console.expect("ready")
        say()
        input()
        try:
            vm.console.expect("never", timeout=1)
        except MachineTimeout:
            say("timed out")
        input()
    """).hear()
    ran = vmfsm("hold", "target", "--reason", "for\ta look")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "target: held (for a look)\n"
    one.tell()
    assert listed()["target"]["held"] == "for\ta look"
    assert "  held     for a look\n" in vmfsm("inspect", "target").stdout
    assert one.is_silent(1.5)
    assert vmfsm("release", "target").stdout == "target: released\n"
    one.hear("timed out")
    assert listed()["target"]["held"] is None


# -- graph --------------------------------------------------------------------------------------------------


def test_the_way_that_a_machine_has_gone(harness: MakeHarness) -> None:
    harness(IDLE + "vm.shutdown(); vm.launch(); say(); input()").hear().hear()
    way = vmfsm("graph", "target").stdout
    assert way.startswith("stateDiagram-v2\n")
    (stopped,) = [line for line in way.splitlines() if "quitting --> stopped" in line]
    assert "requested" in stopped
    assert "class running here" in way
    dot = vmfsm("graph", "target", "--format", "dot").stdout
    assert dot.startswith("digraph ")
    table = vmfsm("graph").stdout
    assert "quitting --> stopped: exited\n" in table


# -- gdb ----------------------------------------------------------------------------------------------------


def test_a_stub_for_gdb(harness: MakeHarness) -> None:
    """What is printed attaches: the stub answers there as the remote protocol of gdb says."""
    harness("vm = guest('target').launch(); vm.console.expect('ready'); say(); input()").hear()
    ran = vmfsm("gdb", "target", "--", "my vmlinux")
    assert (ran.returncode, ran.stderr) == (0, "")
    words = shlex.split(ran.stdout)
    assert (words[:2], words[3:]) == (["gdb", "-ex"], ["my vmlinux"])
    path = words[2].removeprefix("target remote ")
    with socket.socket(socket.AF_UNIX) as stub:
        stub.settimeout(LIMIT)
        stub.connect(path)
        stub.sendall(b"$?#3f")
        said = b""
        while b"$T05" not in said:  # it has stopped by a trap; acknowledgements may come before
            more = stub.recv(100)
            assert more, said
            said += more
    assert json.loads(vmfsm("gdb", "target", "--json").stdout)["target"] == path
    without = vmfsm("gdb", "target", "--exec", PATH="/nowhere")
    assert (without.returncode, without.stdout) == (ExitStatus.FAILED, "")
    assert without.stderr.startswith("vmfsm: gdb: No such file")


# -- at a terminal ------------------------------------------------------------------------------------------


def at_terminal(*arguments: str, columns: int, **env: str | None) -> str:
    """What `vmfsm` writes to a terminal."""
    leader, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "vmfsm", *arguments],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment({**PATIENT, **env}),
    )
    os.close(terminal)
    written = b""
    try:
        while select.select([leader], [], [], LIMIT)[0]:
            try:
                written += os.read(leader, 65536)
            except OSError:  # the other end is closed
                break
    finally:
        os.close(leader)
    assert process.wait(LIMIT) == 0
    return written.decode().replace("\r\n", "\n")


def test_colours_on_a_terminal_and_nowhere_else(harness: MakeHarness) -> None:
    harness(IDLE + "input()").hear()
    green = "\x1b[32mrunning\x1b[0m"
    assert green in at_terminal("ps", columns=80)
    assert "\x1b" not in at_terminal("ps", columns=80, NO_COLOR="1")
    assert "\x1b" not in at_terminal("--no-color", "ps", columns=80)
    assert green in at_terminal("ps", columns=80, NO_COLOR="")
    assert "\x1b" not in vmfsm("ps").stdout


def test_tables_fit_the_terminal(harness: MakeHarness) -> None:
    harness(
        """
        vm = idle("a-machine-with-a-very-long-name-as-some-test-suites-make-them-up").launch()
        other = idle("b").launch()
        say()
        input()
    """,
        PYTEST_CURRENT_TEST="tests/test_of_something.py::test_of_many[parameter-値] (call)",
    ).hear()
    for columns in (60, 12):
        lines = at_terminal("ps", columns=columns, NO_COLOR="1").splitlines()
        assert len(lines) == 3
        assert max(map(len, lines)) <= columns
    assert "tests/test_of_something.py::test_of_many[parameter-値]" in vmfsm("ps").stdout


def test_ctrl_c(harness: MakeHarness) -> None:
    one = harness(IDLE + "input()").hear()
    one.stop()
    process = subprocess.Popen(
        [sys.executable, "-m", "vmfsm", "inspect", "target", "--timeout", "100"],
        stderr=subprocess.PIPE,
        env=environment({"VMFSM_TIMEOUT_SCALE": "30"}),
        text=True,
    )
    try:
        until(lambda: _connects(process.pid))
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    assert (process.returncode, said) == (ExitStatus.INTERRUPTED, "")


def _connects(pid: int) -> bool:
    """Whether it has a socket."""
    try:
        links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return False
    return any(link.startswith("socket:") for link in links)


def test_names_of_machines_complete(harness: MakeHarness) -> None:
    one = harness("a = idle('alpha').launch(); b = idle('beta').launch(); say(); input()").hear()
    assert completions("vmfsm inspect al") == ["alpha"]
    assert completions(f"vmfsm kill {one.pid}/") == [f"{one.pid}/alpha", f"{one.pid}/beta"]


def test_a_harness_without_a_control_socket(harness: MakeHarness) -> None:
    one: Harness = harness(IDLE + "input()", VMFSM_CONTROL="0").hear()
    machine = listed()["target"]
    assert (machine["status"], machine["harness"]) == ("silent", one.pid)
    assert vmfsm("kill", "target").returncode == ExitStatus.NO_ANSWER
