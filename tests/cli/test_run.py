"""`vmfsm run` with pipes: scripts, endings and their statuses, what goes to stdout and what to stderr."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from vmfsm_plugins.verdicts.rules import REPORTED, RULES

from tests.cli.running import Here, environment
from tests.waiting import LIMIT, is_alive, until
from vmfsm import Machine, State, registry
from vmfsm.cli import program
from vmfsm.cli.running.options import KINDS
from vmfsm.cli.running.outcome import MEANINGS, RunStatus
from vmfsm.cli.running.session import Script, Session
from vmfsm.cli.running.steps import Step
from vmfsm.testing import GUEST_ARGS, FakeQEMU
from vmfsm.testing import actions as do

GUEST = ("--", "qemu-system-x86_64", *GUEST_ARGS)
READY = ("--expect", "guest ready")


def send(line: str) -> tuple[str, str]:
    return "--send", rf"{line}\n"


@pytest.mark.parametrize(
    ("options", "more", "status", "said"),
    [
        pytest.param([*READY, *send("ping"), "--expect", r"pong\r?\n"], [], 0, "3 steps done", id="met"),
        pytest.param([*READY, *send("poweroff"), "--then", "wait"], [], 0, "guest shut down", id="power-off"),
        pytest.param([*READY, *send("exit 3"), "--then", "wait"], [], 12, "status 7", id="bad-status"),
        pytest.param(
            [*READY, *send("exit 3"), "--then", "wait", "--pass-status"], [], 7, "status 7", id="passed-on"
        ),
        pytest.param(
            [*READY, *send("exit 3"), "--then", "wait", "--expected-exit", "7"], [], 0, "7)", id="expected"
        ),
        pytest.param(
            [*READY, *send("poweroff"), "--expect", "more"],
            [],
            15,
            "(ended-early): --expect more, step 3 of 3: the guest shut down",
            id="early",
        ),
        pytest.param(
            ["--expect", "no such thing", "--timeout", "0.3"],
            [],
            124,
            "--expect 'no such thing', step 1 of 1: expect('no such thing')",
            id="timeout",
        ),
        pytest.param(
            ["--expect", "no such thing", "--total-timeout", "0.5"],
            [],
            124,
            "the total of 0.5 s was over in: ",
            id="total",
        ),
        pytest.param(
            ["--total-timeout", "0.5"], [], 124, "the total of 0.5 s was over in: ", id="total-of-waiting"
        ),
        pytest.param([*READY, *send("panic"), "--expect", "more"], [], 11, "guest-panicked", id="panic"),
        pytest.param(
            [*READY, *send("panic"), "--then", "wait"],
            ["-action", "panic=pause"],
            11,
            "guest-panicked",
            id="panic-and-pause",
        ),
        pytest.param(
            [*READY, *send("panic"), "--then", "wait", "--allow", "panic"], [], 0, "ok", id="allowed"
        ),
        pytest.param(
            [*READY, *send("ping"), "--then", "wait", "--fail-on", "echo*ping"],
            [],
            11,
            "echo: ping",
            id="fail-on",
        ),
        pytest.param(
            [*READY, "--qmp", "query-status", "--qmp", "no-such a=1"],
            [],
            16,
            "--qmp 'no-such a=1', step 3 of 3: CommandNotFound",
            id="refused",
        ),
        pytest.param(
            ["--qmp", "stop", "--event", "STOP", "--qmp", "cont {}", "--event", "RESUME"],
            [],
            0,
            "4 steps done",
            id="monitor",
        ),
        pytest.param([*READY], ["-no-such-option"], 10, "-no-such-option: invalid option", id="launch"),
    ],
)
def test_endings(here: Here, options: list[str], more: list[str], status: int, said: str) -> None:
    ran = here("run", *options, *GUEST, *more)
    last = ran.stderr.splitlines()[-1]
    assert (ran.returncode, said in last) == (status, True), ran.stderr
    assert last.startswith("vmfsm run: ok" if status == 0 else "vmfsm run: FAILED")


def test_stdout_is_the_console_byte_for_byte(qemu: str, tmp_path: Path) -> None:
    every_byte = bytes(range(256)) * 64 + b"\xff\x1b]2;title\x07\x1b[2J\r\n"
    with FakeQEMU(ready=[do.say(every_byte), do.wait(0.1), do.shut_down()]) as fake:
        ran = subprocess.run(
            [
                sys.executable,
                "-m",
                "vmfsm",
                "run",
                "--console-file",
                str(tmp_path / "log"),
                "--",
                fake.binary,
            ],
            check=False,
            capture_output=True,
            timeout=LIMIT,
            env=environment({}),
        )
    assert (ran.returncode, ran.stdout) == (0, every_byte)
    assert (tmp_path / "log").read_bytes() == every_byte
    assert b"\x1b" not in ran.stderr


def test_what_qemu_says_is_on_stderr_and_harmless(here: Here) -> None:
    with FakeQEMU(ready=[do.output(b"qemu: look\x1b[2J out\n"), do.wait(0.1), do.shut_down()]) as fake:
        ran = here("run", "--", fake.binary)
    assert (ran.returncode, ran.stdout) == (0, "")
    assert ran.stderr.splitlines()[0] == r"qemu: look\x1b[2J out"


def test_values_of_the_monitor_are_on_stderr(here: Here) -> None:
    ran = here("run", "--qmp", "qom-get path=/machine property=type", *GUEST)
    assert ran.stderr.startswith('qom-get: "pc-i440fx')
    ran = here("run", "-q", "--qmp", "qom-get path=/machine property=type", *GUEST)
    assert len(ran.stderr.splitlines()) == 1


def test_what_comes_on_stdin_follows_the_steps(qemu: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "vmfsm", "run", *READY, "--stdin", "--timeout", str(LIMIT), *GUEST],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        out, err = process.communicate(b"ping\npoweroff\n", timeout=LIMIT)
    assert process.returncode == 0, err
    assert b"pong\r\n" in out


def test_several_consoles(here: Here, tmp_path: Path) -> None:
    """The script goes from one to another; the first alone is on stdout."""
    with FakeQEMU(lines={"hello": [do.say("first", console=0), do.say("second", console=1)]}) as fake:
        ran = here(
            *("run", "--console", "a", "--console", "b=virtconsole", "--console-file", f"b={tmp_path}/b"),
            *("--send", r"hello\n", "--on", "b", "--expect-text", "second", "--on", "a", "--expect", "first"),
            *("--", fake.binary),
        )
    assert (ran.returncode, ran.stdout) == (0, "first"), ran.stderr
    assert (tmp_path / "b").read_text() == "second"


def test_bytes_that_are_no_text(here: Here) -> None:
    """As escapes, and as an argument has them."""
    ran = here(
        *("run", *READY, "--send", r"\xff\u20ac" + "\udcfe" + r"\n", "--expect", "\udcfe\r\n"),
        *("--send", r"\xe2\x82\xac\n", "--expect-text", r"echo: \u20ac\n", "--timeout", str(LIMIT), *GUEST),
    )
    assert ran.returncode == 0, ran.stderr
    ran = here("run", "--expect", "\udcfe", "--timeout", "0.1", *GUEST)
    assert (ran.returncode, len(ran.stderr.splitlines())) == (RunStatus.TIMEOUT, 1)
    assert r"--expect '\udcfe', step 1 of 1" in ran.stderr


def test_secrets_are_not_shown(here: Here, tmp_path: Path) -> None:
    refused = "object-add qom-type=no-such id=a password=hidden-from-all"
    ran = here("run", "--qmp", refused, "--result", str(tmp_path / "result"), "--json", *GUEST)
    assert ran.returncode == RunStatus.STEP_FAILED
    assert "hidden-from-all" not in ran.stderr + (tmp_path / "result").read_text()
    assert '"password": "***"' in ran.stderr


def test_a_result_that_cannot_be_written_is_told_before(here: Here, tmp_path: Path) -> None:
    ran = here("run", "--result", str(tmp_path / "none" / "file"), *GUEST)
    assert (ran.returncode, ran.stdout) == (RunStatus.USAGE, "")
    assert "--result: [Errno 2]" in ran.stderr


def test_a_defect_ends_the_machine(qemu: str, capfd: pytest.CaptureFixture[str]) -> None:
    """And is told."""
    machine = Machine(qemu, GUEST_ARGS)
    session = Session(machine, Script([Step("no-such-kind", "", None)]), status=False)
    outcome = session.run()
    session.display.close()
    assert outcome == (RunStatus.FAILED, "--no-such-kind '', step 1 of 1: KeyError: 'no-such-kind'")
    assert machine.state is State.STOPPED
    assert "Traceback" in capfd.readouterr().err


def test_the_result_for_programs(here: Here, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    ran = here("run", "--name", "box", *READY, "--result", str(file), "--json", *GUEST)
    result = json.loads(file.read_text())
    assert json.loads(ran.stderr.splitlines()[-1]) == result
    assert result["seconds"] > 0
    assert result["steps"][0].pop("seconds") > 0
    assert result["command"][0] == "qemu-system-x86_64"
    assert {key: value for key, value in result.items() if key not in {"seconds", "command"}} == {
        "version": 1,
        "outcome": "ok",
        "status": 0,
        "message": "1 step done",
        "machine": "box",
        "state": "stopped",
        "reason": "requested",
        "exit_status": 0,
        "steps": [{"step": "--expect 'guest ready'", "kind": "expect", "met": True}],
        "verdicts": [],
        "recording": None,
    }


def test_it_says_where_the_recording_is(here: Here, tmp_path: Path) -> None:
    ran = here("run", "--name", "box", "--record", str(tmp_path), *READY, *GUEST)
    (file,) = tmp_path.iterdir()
    assert ran.returncode == 0
    assert ran.stderr.endswith(f"; recorded in {file}\n")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--expect", "("], "--expect '(': no regular expression"),
        (["--send", r"\q"], r"\q stands for nothing"),
        (["--send", "\\"], "ends in a backslash"),
        (["--send", r"\ud800"], "half of a character"),
        (["--qmp", "x y"], "not an argument: 'y'"),
        (["--event", "X {"], "as JSON"),
        (["--timeout", "-1"], "--timeout"),
        (["--allow", "nonsense"], "no such kind"),
        (["--allow", "panic", "--fail-on", "panic"], "both"),
        (["--fail-on", "abc"], "is no pattern"),
        (["--name", "a b"], "name must be"),
        (["-o", "qmp"], "not an option of a plugin"),
        (["-o", "qmp.nonsense=1"], "has no option 'nonsense'"),
        (["--console", "a", "--console", "a"], "given twice"),
        (["--stdin"], "--no-stdin"),
        (["--block", "console", "--expect", "x"], "there is no console"),
        (["--console", "none", "--send", "x"], "there is no console"),
        (["--block", "qmp", "--event", "X"], "there is no monitor"),
        (["--on", "other", "--expect", "x"], "there is no console 'other'"),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], options: list[str], said: str) -> None:
    assert program.run(["run", "--no-stdin", *options, *GUEST]) == RunStatus.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert len(err.splitlines()) == 2


@pytest.mark.parametrize("args", [["-serial", "stdio"], ["-serial", "mon:stdio"], ["-monitor", "stdio"]])
def test_what_wants_a_terminal_of_qemus_own_is_an_error(here: Here, args: list[str]) -> None:
    ran = here("run", *GUEST, *args)
    assert (ran.returncode, ran.stdout) == (RunStatus.USAGE, "")
    assert "first serial port is on the terminal anyway" in ran.stderr


def test_without_a_console_such_a_port_is_qemus_output(here: Here) -> None:
    with_port = ["run", "--console", "none", "--fail-on", "guest ready", *GUEST, "-serial", "stdio"]
    ran = here(*with_port)
    assert (ran.returncode, ran.stdout) == (RunStatus.VERDICT, "")
    assert "vmfsm guest ready" in ran.stderr.splitlines()


def test_another_serial_port_is_remarked_upon(here: Here) -> None:
    ran = here("run", *READY, *GUEST, "-serial", "null")
    assert ran.returncode == 0
    assert ran.stderr.startswith("vmfsm run: -serial among QEMU's arguments is another port")


@pytest.fixture
def running(qemu: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A run that waits for ever."""
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "vmfsm",
            "run",
            "--name",
            "box",
            "--qmp",
            "query-name",
            "--then",
            "wait",
            *GUEST,
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment({}),
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"query-name: {}\n"  # it is launched
        try:
            yield process
        finally:
            process.kill()


def qemu_of(process: "subprocess.Popen[bytes]") -> int:
    (entry,) = [entry for entry in registry.machines() if entry.harness.pid == process.pid]
    assert entry.pid is not None
    return entry.pid


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [
        (signal.SIGINT, 130, "interrupted by Ctrl-C (SIGINT)"),
        (signal.SIGTERM, 143, "terminated (SIGTERM)"),
        (signal.SIGHUP, 129, "the terminal hung up (SIGHUP)"),
    ],
)
def test_signals_stop_it_gracefully(
    running: "subprocess.Popen[bytes]", number: signal.Signals, status: int, said: str
) -> None:
    pid = qemu_of(running)
    running.send_signal(number)
    _, err = running.communicate(timeout=LIMIT)
    assert running.returncode == status
    first, last = err.decode().splitlines()
    assert first == "stopping box (Ctrl-C kills it)"
    assert said in last
    assert not is_alive(pid)


def test_a_second_one_kills(qemu: str) -> None:
    with (
        FakeQEMU(on={"quit": [do.hold()]}, sigterm=[]) as fake,
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "vmfsm",
                "run",
                "--name",
                "box",
                "--qmp",
                "stop",
                "--then",
                "wait",
                "--",
                fake.binary,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stderr is not None
        assert process.stderr.readline() == "stop: {}\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == "stopping box (Ctrl-C kills it)\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=LIMIT)
        assert fake.pids == frozenset()
    assert process.returncode == RunStatus.INTERRUPTED
    assert err.splitlines()[0] == "killing box"


def test_what_comes_along_with_the_first_one_does_not_kill(qemu: str) -> None:
    """A terminal that is closed, whose shell sends SIGHUP as well; Ctrl-C for all of a pipeline."""
    going = [do.say("going"), do.shut_down()]
    options = ["--name", "box", "--qmp", "stop", "--then", "wait", "--stop-timeout", "3"]
    with (
        FakeQEMU(ready=[do.say("up")], on={"quit": [do.hold()]}, sigterm=going) as fake,
        subprocess.Popen(
            [sys.executable, "-m", "vmfsm", "run", *options, "--", fake.binary],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        assert process.stderr is not None
        assert process.stdout is not None
        assert process.stderr.readline() == b"stop: {}\n"
        assert process.stdout.read(2) == b"up"
        process.send_signal(signal.SIGHUP)
        assert process.stderr.readline() == b"stopping box (Ctrl-C kills it)\n"
        process.stdout.close()
        process.send_signal(signal.SIGHUP)
        assert process.wait(LIMIT) == RunStatus.HANG_UP
        assert b"killing" not in process.stderr.read()


def test_closed_descriptors_are_nobody_elses(qemu: str, tmp_path: Path) -> None:
    """A monitor's socket as stdout would have the guest write to it."""
    file = tmp_path / "result"
    line = [sys.executable, "-m", "vmfsm", "run", "--result", str(file), *GUEST]
    with subprocess.Popen(["sh", "-c", f"exec {shlex.join(line)} <&- >&- 2>&-"]) as process:
        until(lambda: [one for one in registry.machines() if one.harness.pid == process.pid and one.pid])
        assert {os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3)} == {os.devnull}
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT) == RunStatus.TERMINATED
    assert json.loads(file.read_text())["outcome"] == "terminated"


def test_a_search_without_an_end_is_ended(qemu: str) -> None:
    """It would keep signals and deadlines waiting, too."""
    sooner = "from vmfsm.cli import main; from vmfsm.cli.running import stuck; stuck.MOST = 1; main()"
    with FakeQEMU(ready=[do.say("a" * 40 + "!")]) as fake:
        ran = subprocess.run(
            [sys.executable, "-c", sooner, "run", "--expect", "(a+)+$", "--", fake.binary],
            check=False,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        until(lambda: not fake.pids)
    assert ran.returncode == -signal.SIGVTALRM
    assert "expect.py" in ran.stderr


def test_nothing_is_left_of_a_run_that_is_killed(running: "subprocess.Popen[bytes]") -> None:
    pid = qemu_of(running)
    running.kill()
    running.wait(LIMIT)
    until(lambda: not is_alive(pid))


def test_a_reader_that_leaves_amid_output_ends_it(qemu: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "vmfsm", "run", *READY, *send("flood"), "--then", "wait", *GUEST],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(4096)
        process.stdout.close()
        assert process.wait(LIMIT) == RunStatus.BROKEN_PIPE
        assert b"whoever read the console's output has gone" in process.stderr.read()


def test_a_reader_that_leaves_a_quiet_guest_ends_it(qemu: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "vmfsm", "run", *GUEST],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(20) == b"vmfsm guest ready\r\n>"
        process.stdout.read(1)
        process.stdout.close()
        assert process.wait(LIMIT) == RunStatus.BROKEN_PIPE


def test_a_full_disk_is_called_that(qemu: str, tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "vmfsm", "run", "--then", "wait", *GUEST],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=LIMIT,
        )
    assert ran.returncode == RunStatus.FAILED
    assert "stdout: [Errno 28] No space left on device" in ran.stderr


def test_a_result_for_which_there_is_no_room(here: Here) -> None:
    ran = here("run", *READY, "--result", "/dev/full", *GUEST)
    assert ran.returncode == RunStatus.FAILED
    last = "vmfsm run: FAILED (failed): --result: [Errno 28] No space left on device ["
    assert ran.stderr.splitlines()[-1].startswith(last)


def test_a_slow_reader_gets_all_and_holds_up_nobody(qemu: str, tmp_path: Path) -> None:
    size = 4 * 1024 * 1024
    said = [do.say(b"x" * 65536, times=size // 65536), do.say("end\n"), do.wait(0.1), do.shut_down()]
    with (
        FakeQEMU(ready=said) as fake,
        subprocess.Popen(
            [sys.executable, "-m", "vmfsm", "run", "--expect", "end", "--then", "wait", "--", fake.binary],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        until(lambda: fake.pids)
        until(lambda: not fake.pids)
        out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, err
    assert out == b"x" * size + b"end\n"


def test_every_kind_of_verdict_has_its_name_here() -> None:
    assert set(KINDS) == {*RULES, *REPORTED}


def test_every_status_has_a_meaning() -> None:
    assert set(MEANINGS) == set(RunStatus)
