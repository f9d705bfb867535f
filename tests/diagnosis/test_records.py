"""What is said of records that real faults seldom leave, or leave only by luck."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.scripts import run_script
from vmfsm import Record, diagnosis, recording
from vmfsm.diagnosis import Diagnosis, Diagnostician

CALL = {
    "operation": "expect('login:') on console 'console'",
    "thread": "MainThread",
    "caller": "/t/test_a.py:7",
}
SAID = "MachineTimeout: vm: expect('login:') on console 'console' timed out after 10 s"


def transition(at: float, source: str, dest: str, reason: str | None = None) -> Record:
    event = {"launching": "launch", "running": "launched", "quitting": "quit"}.get(dest, "exited")
    return Record("transition", at, {"event": event, "source": source, "dest": dest, "reason": reason})


UP = (transition(100.0, "configured", "launching"), transition(101.0, "launching", "running"))


def down(at: float, reason: str = "requested", dest: str = "stopped") -> tuple[Record, ...]:
    return transition(at, "running", "quitting", reason), transition(at + 0.1, "quitting", dest, reason)


def record(kind: str, at: float, **data: Any) -> Record:
    return Record(kind, at, data)


def console(at: float, text: str) -> Record:
    return record("console", at, console="console", text=text)


def wait(
    begin: float, end: float, outcome: str, error: str | None = None, **more: Any
) -> tuple[Record, Record]:
    call = {**CALL, **more}
    return (
        record("wait-begin", begin, timeout=10.0, **call),
        record("wait", end, seconds=end - begin, outcome=outcome, error=error, **call),
    )


def failure(at: float, error: str, by: str) -> Record:
    return record("failure", at, error=error, by=by)


def said(*told: Record, **snapshot: Any) -> Diagnosis:
    diagnostician = Diagnostician()
    for one in sorted(told, key=lambda record: record.at):
        diagnostician.add(one)
    return diagnostician.conclude({"name": "vm", "harness": {"pid": 7, "cwd": "/t"}, **snapshot})


IN_VAIN = (*wait(102.0, 112.0, "timeout", SAID), failure(112.1, SAID, "with"), *down(112.2))


def test_a_guest_that_goes_on_talking_does_not_hang() -> None:
    it = said(*UP, console(103, "a\n"), console(108, "b\r\n"), *IN_VAIN)
    assert it.kind == "timeout"
    assert it.cause == (
        "vm: expect('login:') on console 'console' came to nothing within 10.0 s "
        "(test_a.py:7, 12.0 s after launch); the guest went on talking, last 'b'"
    )


def test_one_console_that_talks_is_enough() -> None:
    other = record("console", 111.0, console="other", text="tick\n")
    it = said(*UP, console(103, "a\n"), other, *IN_VAIN)
    assert it.kind == "timeout"
    assert [clue.lane for clue in it.clues[:2]] == ["console:other", "console:console"]
    assert it.clues[1].text == "console 'console' had been silent for 9.0 s: its last line was 'a'"


def test_what_a_guest_says_after_the_wait_does_not_count() -> None:
    assert said(*UP, console(102, "a\n"), *IN_VAIN, console(112.05, "late\n")).kind == "guest-hang"


def test_a_boot_loop_that_nobody_judged() -> None:
    reset = {"event": "RESET", "data": {"guest": True, "reason": "guest-reset"}}
    resets = [record("qmp-event", 103.0 + n, **reset) for n in range(4)]
    it = said(*UP, *resets, *IN_VAIN)
    assert it.kind == "boot-loop"
    assert "the guest seems to be in a boot loop: 4 resets meanwhile" in it.cause


def boots(*last: str) -> list[Record]:
    """A machine resets more than once for a reboot, and of what is said by then some comes later."""
    reset = {"event": "RESET", "data": {"guest": True, "reason": "guest-reset"}}
    restarting = "[    5.5] reboot: Restarting system\r\n[    5.6] reboot: mach"
    return [
        one
        for n, words in enumerate(last)
        for one in (
            console(102.0 + n, f"BIOS\r\n[    {n}.123456] Run /init\r\n"),
            console(102.5 + n, f"{words}\r\n{restarting}"),
            record("qmp-event", 102.6 + n, **reset),
            console(102.61 + n, "ine restart\r\n"),
            record("qmp-event", 102.7 + n, **reset),
        )
    ]


def test_what_a_guest_says_last_before_each_reset() -> None:
    it = said(*UP, *boots(*["no disk"] * 4), console(109, "[    0.2] Linux version"), *IN_VAIN)
    after = "each time after its last words 'no disk'"
    assert it.kind == "boot-loop"
    assert f"in a boot loop: 8 resets meanwhile, {after}: expect('login:')" in it.cause
    bursts = "they came in 4 bursts, each for one reboot, perhaps"
    assert (
        it.clues[0].text == f"8 resets by the guest in 3.1 s, the last 5.7 s after launch, {after}; {bursts}"
    )


def test_last_words_that_do_not_always_repeat() -> None:
    it = said(*UP, *boots("no disk", "no disk", "a", "no disk"), *IN_VAIN)
    assert "8 resets meanwhile, 3 of 4 times after its last words 'no disk': " in it.cause
    it = said(*UP, *boots("a", "b", "c"), *IN_VAIN)
    assert "6 resets meanwhile: " in it.cause
    assert ", after 'c'; they came in 3 bursts" in it.clues[0].text


def test_a_guest_that_hangs_after_many_resets() -> None:
    begin, end = wait(106.0, 112.0, "timeout", SAID)
    it = said(
        *UP, *boots(*"aaa"), console(105.9, "> "), begin, end, failure(112.1, SAID, "with"), *down(112.2)
    )
    assert it.kind == "guest-hang"
    assert "(test_a.py:7, 12.0 s after launch), after 6 resets by the guest; it had been silent" in it.cause
    assert any("each time after its last words 'a'" in clue.text for clue in it.clues)


OWN: dict[str, Any] = {"operation": "execute('query-status')", "thread": "vmfsm-io, Task-104", "caller": None}
"""A wait of a plugin."""


@pytest.mark.parametrize("outcome", ["interrupted", "done", "timeout", "failed"])
@pytest.mark.parametrize("thread", ["vmfsm-io, Task-104", "vmfsm-worker-1"])
@pytest.mark.parametrize("by", ["with", "note", "wait"])
def test_what_plugins_do_after_it_hides_nothing(outcome: str, thread: str, by: str) -> None:
    call = {"operation": "execute('query-block')"}
    late = wait(102.0, 108.0, "timeout", "MachineTimeout: vm: late", **call)
    own = wait(108.1, 109.2, outcome, "CancelledError", **{**OWN, "thread": thread})
    it = said(*UP, *late, failure(108.0, "RuntimeError: of that", by), *own, *down(108.05))
    assert it.kind == "monitor-wedged"
    assert it.wait is not None
    assert it.wait["operation"] == call["operation"]


def test_what_plugins_do_is_no_wait_of_the_test() -> None:
    own = wait(102.0, 112.0, "timeout", "MachineTimeout: vm: query-status", **OWN)
    it = said(*UP, *own, failure(112.05, "AssertionError: no", "with"), *down(112.1))
    assert it.kind == "test-failed"
    begun = wait(103.0, 112.0, "done")[0], wait(104.0, 112.0, "done", **OWN)[0]
    died = record("exit", 105.0, status=-9), failure(105.0, "QEMU died of SIGKILL (qemu-signal)", "end")
    it = said(*UP, *begun, *died, *down(105.1, "qemu-signal", "failed"))
    assert it.cause.endswith(", while test_a.py:7 waited for expect('login:') on console 'console'")
    killed = said(*UP, *begun, recording={"problems": ["the harness was killed"]})
    assert "while test_a.py:7 waited for expect('login:')" in killed.cause


def test_a_plugins_task_that_is_cancelled_is_no_interruption() -> None:
    own = wait(102.0, 110.2, "interrupted", "CancelledError", **OWN)
    assert said(*UP, *own, *down(110.1)).outcome == "ok"


def test_a_timeout_of_what_no_record_tells() -> None:
    error = "MachineTimeout: vm: following the log timed out after 5 s"
    it = said(*UP, failure(107.0, error, "with"), *down(107.1))
    assert (it.kind, it.cause) == (
        "timeout",
        "vm: something came to nothing, 7.0 s after launch: following the log timed out after 5 s",
    )


def test_resets_by_the_test_are_no_boot_loop() -> None:
    reset = {"event": "RESET", "data": {"guest": False, "reason": "host-qmp-system-reset"}}
    resets = [record("qmp-event", 103.0 + n, **reset) for n in range(4)]
    assert said(*UP, console(102, "a\n"), *resets, *IN_VAIN).kind == "guest-hang"


def test_out_of_memory() -> None:
    it = said(
        *UP,
        record("exit", 105.0, status=-9),
        failure(105.01, "QEMU died of SIGKILL (oom-killed)", "end"),
        *down(105.02, "oom-killed", "failed"),
    )
    assert it.kind == "qemu-killed"
    assert it.cause == "vm: the kernel's out-of-memory killer killed QEMU (SIGKILL), 5.0 s after launch"


def test_the_first_that_went_wrong_is_the_cause() -> None:
    """A crash at the end, after the test has failed, is not why it did."""
    end = (record("exit", 113.0, status=-11), *down(112.5, "qemu-signal", "failed"))
    it = said(*UP, console(102, "a\n"), *IN_VAIN[:-2], *end)
    assert it.kind == "guest-hang"


def test_a_wait_in_vain_long_before_the_tests_own_error_is_not_the_cause() -> None:
    it = said(
        *UP, *wait(102.0, 103.0, "timeout", SAID), failure(109.0, "AssertionError: no", "with"), *down(110)
    )
    assert it.kind == "test-failed"
    assert "AssertionError: no" in it.cause


def test_an_error_that_was_made_of_a_wait_in_vain_is() -> None:
    it = said(
        *UP, *wait(102.0, 112.0, "timeout", SAID), failure(112.01, "RuntimeError: gone", "with"), *down(113)
    )
    assert it.kind == "guest-hang"


def test_a_wait_in_vain_that_does_not_count_as_a_failure() -> None:
    assert said(*UP, *wait(102.0, 103.0, "timeout", SAID), *down(110)).outcome == "ok"


def test_the_last_launch_counts() -> None:
    again = [one._replace(at=one.at + 50) for one in (*UP, *down(105))]
    it = said(*UP, console(102, "a\n"), *IN_VAIN, *again)
    assert (it.outcome, it.kind) == ("ok", "ok")
    assert it.cause.startswith("vm: all went well; it took 5.1 s")


def test_ctrl_c_is_no_failure() -> None:
    it = said(*UP, *wait(102.0, 103.0, "interrupted", "KeyboardInterrupt"), *down(104))
    assert (it.outcome, it.kind) == ("unfinished", "interrupted")


def test_a_limit_of_a_test_runner_is() -> None:
    error = "Failed: Timeout (>10.0s) from pytest-timeout."
    it = said(*UP, *wait(102.0, 112.0, "interrupted", error), failure(112.01, error, "with"), *down(113))
    assert (it.outcome, it.kind) == ("failed", "interrupted")
    assert error in it.cause


def test_a_migration_that_fails() -> None:
    error = "MigrationError: vm: no route"
    call = wait(102.0, 103.0, "failed", error, operation="migrate")
    it = said(*UP, *call, failure(103.01, error, "with"), *down(104))
    assert it.kind == "migration-failed"


def test_a_bundle_of_one_that_lives() -> None:
    """What is there of a recording ends in the middle, and nobody was killed: a snapshot says so."""
    it = said(*UP, wait(102.0, 103.0, "done")[0], state="running")
    assert (it.outcome, it.kind) == ("unfinished", "unfinished")
    assert it.wait is not None
    assert it.wait["until"] is None


def test_nothing_at_all() -> None:
    assert said().outcome == "unfinished"


def test_hostile_words_are_harmless_and_short() -> None:
    words = "\x1b[2J\x1b[31mred\u202e\x07" + "A" * 3_000 + "\r\n"
    it = said(*UP, console(102.4, "B" * 1_000_000), console(102.5, "\n" + words), *IN_VAIN)
    assert "red\\u202e\\x07AAA" in it.cause
    assert len(it.cause) < 600
    assert it.cause.isprintable()


def test_memory_is_bounded_whatever_goes_on_at_once() -> None:
    diagnostician = Diagnostician()
    for one in UP:
        diagnostician.add(one)
    for n in range(3_000):
        at = 102 + n / 1000
        for more in (
            console(at, "x" * 50),
            *wait(at, at, "timeout", SAID, thread=f"T{n}"),
            record("wait-begin", at, timeout=None, operation=f"o{n}", thread="t", caller=None),
            record("step-begin", at, step=f"s{n}", thread=f"T{n}"),
            record("qmp-command", at, command="c", id=n, arguments=[]),
            record("hook-begin", at, hook=f"h{n}", plugin="p"),
            failure(at, "x", "note"),
        ):
            diagnostician.add(more)
    story = diagnostician._story
    for name, value in vars(story).items():
        if isinstance(value, Mapping | list | tuple) or hasattr(value, "maxlen"):
            assert len(value) <= 51, name
    assert diagnostician.conclude({"name": "vm"}).outcome == "failed"


@pytest.mark.parametrize(
    ("last", "sign", "cause", "clue"),
    [
        (
            "vm.console.expect('login:', timeout=60)",
            "expect('login:')",
            r".* after launch, while <string>:\d+ waited for expect\('login:'\) .*, since .*",
            "the test was at step 'boot'.*",
        ),
        (
            "vm.hold('to look at it'); time.sleep(60)",
            '"kind":"hold"',
            r".* after launch",
            r"the machine was held by MainThread \(to look at it\) since .*",
        ),
    ],
)
def test_a_harness_that_is_killed(tmp_path: Path, last: str, sign: str, cause: str, clue: str) -> None:
    ran = run_script(
        f"""
        def when_written():
            [file] = Path(sys.argv[1], "rec").glob("*.jsonl")
            while {sign!r} not in file.read_text().partition(chr(10))[2]:  # the header has this script
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)

        vm.shutdown()
        os.environ["VMFSM_RECORD"] = sys.argv[1] + "/rec"
        vm = machine().launch()
        vm.console.expect("ready")
        threading.Thread(target=when_written, daemon=True).start()
        with vm.trace("boot"):
            {last}
        """,
        tmp_path,
    )
    assert ran.status == -9, ran.err
    [path] = (tmp_path / "rec").glob("*.jsonl")
    it = diagnosis.diagnose(recording.read(str(path)))
    assert (it.outcome, it.kind) == ("unfinished", "harness-killed")
    killed = r"\S+: the harness \(pid \d+\) was killed: its last record is of "
    assert re.fullmatch(killed + cause, it.cause), it
    assert any(re.fullmatch(clue, one.text) for one in it.clues), it


def test_a_kill_that_was_too_quick_to_be_recorded_is_not_blamed_on_the_end_of_the_block() -> None:
    died = wait(102.0, 103.0, "died", "MachineDied: vm: ended")
    block = record("wait-begin", 103.2, operation="shutdown", thread="MainThread", caller="/t/a.py:1")
    it = said(*UP, *died, failure(103.1, "MachineDied: vm: ended", "with"), block, *down(103.0, "killed"))
    cause = "vm: the machine was ended by kill(), 3.0 s after launch, while test_a.py:7 waited for "
    assert it.cause == cause + CALL["operation"]
