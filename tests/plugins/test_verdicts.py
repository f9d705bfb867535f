"""What goes wrong in the guest is noticed as it happens, and what was chosen follows."""

import asyncio
import contextlib
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from vmfsm_plugins.verdicts import Verdicts
from vmfsm_plugins.verdicts.rules import CONSOLE, OUTPUT, RULES
from vmfsm_plugins.verdicts.watcher import MOST

from tests.waiting import LIMIT, InThread, until
from vmfsm import (
    AbnormalExit,
    ConfigError,
    GuestPanicked,
    LaunchError,
    Machine,
    MachineDied,
    MachineTimeout,
    Reason,
    State,
    TransitionError,
    Verdict,
    VMError,
)
from vmfsm.testing import GUEST_ARGS, FakeQEMU
from vmfsm.testing import actions as do

PANIC = b"[    1.234567] Kernel panic - not syncing: sysrq triggered crash\r\n"
OOPS = (
    b"[    1.0] BUG: kernel NULL pointer dereference, address: 0000000000000000\r\n"
    b"[    1.0] #PF: supervisor write access in kernel mode\r\n"
    b"[    1.0] Oops: 0002 [#1] PREEMPT SMP NOPTI\r\n"
)
TRACE = b"[    1.3]  panic+0x118/0x2f4\r\n" * 200
LINES = {
    "panic": [do.say(PANIC)],
    "oops": [do.say(OOPS)],
    "oops and panic": [do.say(OOPS + PANIC)],
    "unfinished": [do.say("Kernel panic - not syncing: stuck in")],
    "colours": [do.say("\x1b[31mKernel \x1b[1mpanic - not syncing: \x1b[5mred\x1b[0m\r\n")],
    "assert": [do.say("ASSERT x == y failed\r\n")],
    "abort": [do.output("qemu: x.c:1: main: Assertion `x' failed.\n"), do.die_of(6)],
    "ubsan": [do.output("../hw/x.c:12:3: runtime error: signed integer overflow: 1 + 2\n")],
    "last words": [do.say(PANIC), do.output("bye\n"), do.shut_down("guest-reset")],
    "pvpanic": [do.emit("GUEST_PANICKED", {"action": "pause"})],
    "watchdog": [do.emit("WATCHDOG", {"action": "reset"})],
    "die": [do.exit_with(3)],
    "hello": [do.say("hello\r\n")],
    "panic for good": [
        do.say(PANIC + TRACE + PANIC.replace(b"Kernel", b"---[ end Kernel") + b"\r\nhello\r\n")
    ],
    "flood": [do.say(PANIC + OOPS, times=2000), do.say("the end\r\n")],
}

Make = Callable[..., Machine]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes machines whose guest says and does what `LINES` has; launched by default."""
    machines: list[Machine] = []
    with contextlib.ExitStack() as fakes:

        def build(
            *, launch: bool = True, on: Any = None, args: tuple[str, ...] = (), **options: Any
        ) -> Machine:
            fake = fakes.enter_context(FakeQEMU(lines=LINES, on=on))
            machines.append(Machine(fake.binary, args, options={"verdicts": options}))
            return machines[-1].launch() if launch else machines[-1]

        yield build
        for vm in machines:
            with contextlib.suppress(VMError):
                vm.kill()


def until_waited_for(vm: Machine, calls: int = 1) -> None:
    assert vm._launch is not None
    in_progress = vm._launch.calls.in_progress
    until(lambda: len(in_progress) == calls)


def kinds(vm: Machine) -> list[str]:
    return [verdict.kind for verdict in vm.verdicts.seen]


def actions(vm: Machine) -> list[tuple[object, object]]:
    return [(r.data["verdict"], r.data["action"]) for r in vm.timeline if r.kind == "verdict"]


# -- what is seen -------------------------------------------------------------------------------------------


def test_a_panic_wakes_who_waits(make: Make) -> None:
    vm = make()
    waiting = [InThread(vm.wait, LIMIT), InThread(vm.console.expect, "login:")]
    until_waited_for(vm, 2)
    vm.console.sendline("hello")
    vm.console.sendline("panic")
    for call in waiting:
        with pytest.raises(GuestPanicked) as caught:
            call.result()
        verdict = caught.value.verdict
        assert verdict is not None
        assert (verdict.kind, verdict.where) == ("kernel-panic", "verdicts")
        assert verdict.what == {
            "message": PANIC.decode().strip(),
            "source": "console",
            "position": len("hello\r\n"),
            "pattern": "Kernel panic - not syncing",
        }
        assert "sysrq triggered crash" in str(caught.value)
    assert vm.state is State.RUNNING
    assert vm.verdicts.seen == (verdict,)
    assert vm.verdicts.counts == {"kernel-panic": 1}
    assert actions(vm) == [("kernel-panic", "wake")]
    vm.shutdown()
    assert (vm.state, vm.reason) == (State.STOPPED, Reason.REQUESTED)


def test_who_expects_the_very_words_gets_them(make: Make) -> None:
    """However often it has searched for them before."""
    vm = make()
    for _ in range(20):
        for _ in range(3):
            vm.console.sendline("hello")
        vm.console.sendline("panic")
        found = vm.console.expect("not syncing: (.*)\r\n")
        assert found.match[1] == "sysrq triggered crash"
        with pytest.raises(GuestPanicked):
            vm.wait(LIMIT)


def test_an_oops_is_one_verdict_and_a_panic_after_it_another(make: Make) -> None:
    vm = make()
    vm.console.sendline("oops and panic")
    until(lambda: len(kinds(vm)) == 2)
    with pytest.raises(GuestPanicked) as caught:
        vm.console.expect("never")
    assert caught.value.verdict is not None
    assert caught.value.verdict.kind == "kernel-oops"
    assert "NULL pointer dereference" in str(caught.value.verdict.what["message"])
    [other] = caught.value.errors
    assert isinstance(other, GuestPanicked)
    assert other.verdict == vm.verdicts.seen[1]
    with pytest.raises(MachineTimeout) as late:
        vm.console.expect("never", timeout=0.01)
    assert pickle.loads(pickle.dumps(late.value)).evidence.verdicts == vm.verdicts.seen
    assert any("kernel-panic: " in note for note in late.value.__notes__)


def test_a_panic_after_which_the_kernel_stays_is_one_verdict(make: Make) -> None:
    """It says so again when it is done with the traces, whenever that is."""
    vm = make()
    with vm.verdicts.expected("kernel-panic"):
        vm.console.sendline("panic for good")
    vm.console.expect("hello")
    with pytest.raises(MachineTimeout):
        vm.wait(0.01)
    assert "---[ end Kernel panic - not syncing: sysrq" in vm.console.text
    assert vm.verdicts.counts == {"kernel-panic": 1}


@pytest.mark.parametrize(("line", "message"), [("unfinished", "stuck in"), ("colours", "red")])
def test_lines_that_are_not_as_they_should_be(make: Make, line: str, message: str) -> None:
    vm = make()
    vm.console.sendline(line)
    with pytest.raises(GuestPanicked) as caught:
        vm.wait(LIMIT)
    assert str(caught.value).endswith(f"Kernel panic - not syncing: {message}")


def test_what_came_just_before_the_end(make: Make) -> None:
    """The panic wins over the end, though both are there at once."""
    for _ in range(5):
        vm = make()
        waiting = InThread(vm.wait, LIMIT)
        until_waited_for(vm)
        vm.console.sendline("last words")
        assert isinstance(waiting.join().error, GuestPanicked)
        assert vm.wait(LIMIT) == 0
        assert (vm.state, vm.reason) == (State.STOPPED, Reason.GUEST_SHUTDOWN)
        assert kinds(vm) == ["kernel-panic"]


def test_qemus_own_assertion(make: Make) -> None:
    vm = make()
    waiting = InThread(vm.console.expect, "never")
    until_waited_for(vm)
    vm.console.sendline("abort")
    error = waiting.join().error
    assert isinstance(error, GuestPanicked)
    assert error.verdict is not None
    assert (error.verdict.kind, error.verdict.what["source"]) == ("qemu-assertion", "output")
    with pytest.raises(AbnormalExit) as caught:
        vm.shutdown()
    assert caught.value.reason is Reason.QEMU_SIGNAL


def test_qemus_end_with_an_assertion_that_nobody_was_told(make: Make) -> None:
    vm = make()
    vm.console.sendline("abort")
    with pytest.raises(MachineDied):
        vm.run(asyncio.sleep(LIMIT), timeout=LIMIT, operation="nap")
    with pytest.raises(AbnormalExit) as caught:
        vm.shutdown()
    [untold] = caught.value.errors
    assert isinstance(untold, GuestPanicked)
    assert any("qemu-assertion: " in note for note in caught.value.__notes__)


def test_a_qemu_that_goes_on_after_a_sanitizer(make: Make) -> None:
    vm = make()
    vm.console.sendline("ubsan")
    with pytest.raises(GuestPanicked) as caught:
        vm.wait(LIMIT)
    assert caught.value.verdict is not None
    assert caught.value.verdict.kind == "qemu-ubsan"


def test_each_launch_begins_anew(make: Make) -> None:
    vm = make()
    for _ in range(2):
        vm.console.sendline("panic")
        with pytest.raises(GuestPanicked) as caught:
            vm.wait(LIMIT)
        assert caught.value.verdict is not None
        assert caught.value.verdict.what["position"] == 0
        assert kinds(vm) == ["kernel-panic"]
        vm.shutdown()
        assert kinds(vm) == ["kernel-panic"]
        vm.launch()
        assert (kinds(vm), vm.verdicts.counts) == ([], {})


def test_all_consoles_are_watched() -> None:
    lines = [do.say(PANIC, console=1)]
    several = {"ttyS0": {}, "ttyS1": {"index": 1}}
    with FakeQEMU(lines={"panic": lines}) as fake, Machine(fake.binary, options={"console": several}) as vm:
        vm.launch()
        vm.console.sendline("panic")
        with pytest.raises(GuestPanicked) as caught:
            vm.wait(LIMIT)
        assert caught.value.verdict is not None
        assert caught.value.verdict.what["source"] == "ttyS1"


def test_without_consoles_and_logs(make: Make) -> None:
    barking = FakeQEMU(on={"go": [do.reply(), *LINES["watchdog"]]})
    with barking as fake, Machine(fake.binary, block=["console", "logs"]) as vm:
        vm.launch()
        vm.qmp.execute("go")
        with pytest.raises(GuestPanicked):
            vm.wait(LIMIT)
        assert kinds(vm) == ["watchdog"]


def test_a_flood_of_them_is_counted(make: Make) -> None:
    vm = make(action="record")
    vm.console.sendline("flood")
    vm.console.expect("the end", timeout=LIMIT)
    assert kinds(vm).count("kernel-panic") == MOST
    assert kinds(vm).count("kernel-oops") <= MOST
    assert vm.verdicts.counts["kernel-panic"] == 2000
    assert len(actions(vm)) <= 2 * MOST


def test_one_that_is_expected_is_found_however_many_there_were(make: Make) -> None:
    vm = make(action="record")
    vm.console.sendline("flood")
    vm.console.expect("the end", timeout=LIMIT)
    for _ in range(2):
        with vm.verdicts.expected("kernel-panic", "kernel-oops") as seen:
            vm.console.sendline("oops and panic")
        assert [verdict.kind for verdict in seen.verdicts] == ["kernel-oops", "kernel-panic"]
    assert vm.verdicts.counts["kernel-panic"] == 2002
    assert kinds(vm).count("kernel-panic") == MOST


# -- with a real QEMU ---------------------------------------------------------------------------------------

BARK = b"\xba\x43\x04\xb0\x0f\xee\xeb\xfe" + bytes(502) + b"\x55\xaa"
"""A boot sector: `out 0x443, 15`, which has the watchdog ib700 go off at once, and then nothing."""


def test_a_watchdog_that_nobody_feeds(qemu: str, tmp_path: Path) -> None:
    image = tmp_path / "bark.img"
    image.write_bytes(BARK)
    args = ["-nodefaults", "-machine", "pc", "-m", "16", "-device", "ib700", "-action", "watchdog=pause"]
    args += ["-drive", f"file={image},format=raw,if=floppy,readonly=on"]
    with Machine(qemu, args) as vm:
        vm.launch()
        with pytest.raises(GuestPanicked) as caught:
            vm.wait(LIMIT)
        assert caught.value.verdict is not None
        assert (caught.value.verdict.kind, caught.value.verdict.where) == ("watchdog", "qmp")
        assert vm.run_state == "watchdog"


@pytest.mark.parametrize("action", ["wake", "fail"])
def test_a_panic_of_the_tiny_guest_with_a_dump(qemu: str, tmp_path: Path, action: str) -> None:
    options = {"verdicts": {"dump": tmp_path, "action": action}}
    vm = Machine(qemu, [*GUEST_ARGS, "-action", "panic=pause"], options=options)
    with vm:
        vm.launch()
        vm.console.expect("ready")
        vm.console.sendline("panic")
        error = told(vm)
        assert error.verdict is not None
        assert Path(str(error.verdict.what["dump"])).read_bytes()[:4] == b"\x7fELF"
    assert (vm.state is State.FAILED) == (action == "fail")


def test_a_dump_is_a_file_of_its_own(qemu: str, tmp_path: Path) -> None:
    """Not what somebody's link leads to, nor what was left by another process."""
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "lost.core").symlink_to(tmp_path / "mine")
    options = {"verdicts": {"dump": tmp_path}}
    with Machine(qemu, [*GUEST_ARGS, "-action", "panic=pause"], name="lost", options=options) as vm:
        vm.launch()
        vm.console.expect("ready")
        vm.console.sendline("panic")
        verdict = told(vm).verdict
    assert verdict is not None
    core = Path(str(verdict.what["dump"]))
    assert core == tmp_path / "lost.core"
    assert not core.is_symlink()
    assert (tmp_path / "mine").read_text() == "precious"


def test_no_dump_where_something_is_in_its_place(make: Make, tmp_path: Path) -> None:
    vm = make(dump=tmp_path, on=DUMPED)
    (tmp_path / f"{vm.name}.core").mkdir()
    vm.console.sendline("panic")
    error = told(vm)
    assert error.verdict is not None
    assert "can't be removed" in str(error.verdict.what["dump_error"])


# -- what follows -------------------------------------------------------------------------------------------


def test_only_recorded(make: Make) -> None:
    vm = make(rules={"kernel-panic": {"action": "record"}})
    vm.console.sendline("oops and panic")
    with pytest.raises(GuestPanicked) as caught:
        vm.wait(LIMIT)
    assert caught.value.verdict is not None
    assert caught.value.verdict.kind == "kernel-oops"
    until(lambda: len(kinds(vm)) == 2)
    assert actions(vm) == [("kernel-oops", "wake"), ("kernel-panic", "record")]
    with pytest.raises(MachineTimeout):
        vm.wait(0.01)


def test_not_at_all(make: Make) -> None:
    vm = make(rules={"kernel-panic": None, "guest-panicked": None, "watchdog": None})
    for line in ("panic", "pvpanic", "watchdog", "oops"):
        vm.console.sendline(line)
    with pytest.raises(GuestPanicked) as caught:
        vm.wait(LIMIT)
    assert caught.value.verdict is not None
    assert caught.value.verdict.kind == "kernel-oops"
    until(lambda: "WATCHDOG" in [event["event"] for event in vm.qmp.events()])
    assert kinds(vm) == ["kernel-oops"]
    assert actions(vm) == [("kernel-oops", "wake")]


@pytest.mark.parametrize("options", [{"action": "fail"}, {"rules": {"kernel-panic": {"action": "fail"}}}])
@pytest.mark.parametrize("line", ["panic", "last words"])
def test_the_machine_fails(make: Make, options: dict[str, object], line: str) -> None:
    """Also where the guest ends QEMU for it, and well."""
    vm = make(**options)
    waiting = InThread(vm.wait, LIMIT)
    until_waited_for(vm)
    vm.console.sendline(line)
    error = waiting.join().error
    assert isinstance(error, GuestPanicked)
    assert error.verdict == vm.verdicts.seen[0]
    assert (vm.state, vm.reason) == (State.FAILED, Reason.GUEST_PANICKED)
    with pytest.raises(GuestPanicked):
        vm.shutdown()


@pytest.mark.parametrize("line", ["pvpanic", "watchdog"])
def test_what_others_report_goes_by_the_same_rules(make: Make, line: str) -> None:
    vm = make(action="fail")
    vm.console.sendline(line)
    with pytest.raises(GuestPanicked):
        vm.wait(LIMIT)
    assert vm.reason is Reason.GUEST_PANICKED
    assert [verdict.where for verdict in vm.verdicts.seen] == ["qmp"]


def test_a_rule_of_the_users_own(make: Make) -> None:
    vm = make(rules={"my-assert": "ASSERT*failed"})
    vm.console.sendline("assert")
    with pytest.raises(GuestPanicked) as caught:
        vm.wait(LIMIT)
    assert str(caught.value).endswith("during wait: ASSERT x == y failed")
    assert caught.value.verdict is not None
    assert caught.value.verdict.kind == "my-assert"


# -- where one is expected ----------------------------------------------------------------------------------


def test_expected_ones_are_no_trouble(make: Make) -> None:
    vm = make(action="fail")
    with vm.verdicts.expected("kernel-oops", "guest-panicked") as seen:
        vm.console.sendline("oops")
        vm.console.sendline("pvpanic")
        vm.console.sendline("hello")
        vm.console.expect("hello")
    assert {verdict.kind for verdict in seen.verdicts} == {"kernel-oops", "guest-panicked"}
    assert {action for _, action in actions(vm)} == {"expected"}
    assert vm.state is State.RUNNING
    vm.console.sendline("oops")
    with pytest.raises(GuestPanicked):
        vm.wait(LIMIT)


def test_it_waits_for_those_that_have_not_come(make: Make) -> None:
    vm = make()
    with vm.verdicts.expected("kernel-panic") as seen:
        vm.console.sendline("unfinished")
    assert len(seen.verdicts) == 1


def test_one_that_does_not_come(make: Make) -> None:
    vm = make()
    seen = vm.verdicts.expected("kernel-oops", "kernel-panic", timeout=0.3)
    with pytest.raises(MachineTimeout) as caught, seen:
        vm.console.sendline("panic")
    assert "expected verdicts (kernel-oops, kernel-panic)" in str(caught.value)


def test_another_one_than_expected(make: Make) -> None:
    vm = make()
    with pytest.raises(GuestPanicked) as caught, vm.verdicts.expected("kernel-oops"):
        vm.console.sendline("panic")
    assert caught.value.verdict is not None
    assert caught.value.verdict.kind == "kernel-panic"


def test_qemu_ends_with_it_or_without(make: Make) -> None:
    vm = make(action="fail")
    with vm.verdicts.expected("kernel-panic"):
        vm.console.sendline("last words")
        assert vm.wait(LIMIT) == 0
    assert vm.state is State.STOPPED
    vm.launch()
    with pytest.raises(MachineDied), vm.verdicts.expected("kernel-panic"):
        vm.console.sendline("die")


def test_an_exception_of_the_block_is_left_alone(make: Make) -> None:
    vm = make()
    with pytest.raises(KeyError), vm.verdicts.expected("kernel-oops"):
        raise KeyError
    vm.console.sendline("oops")
    with pytest.raises(GuestPanicked):
        vm.wait(LIMIT)


def test_allowed_ones_need_not_come(make: Make) -> None:
    vm = make()
    with vm.verdicts.allowed("kernel-oops", "kernel-panic") as seen:
        vm.console.sendline("oops")
        vm.console.sendline("hello")
        vm.console.expect("hello")
    assert [verdict.kind for verdict in seen.verdicts] == ["kernel-oops"]
    with pytest.raises(MachineTimeout):
        vm.wait(0.01)


def test_the_innermost_scope_gets_it(make: Make) -> None:
    vm = make()
    with vm.verdicts.allowed("kernel-oops", "kernel-panic") as outer:
        with vm.verdicts.expected("kernel-oops") as inner:
            vm.console.sendline("oops and panic")
        vm.console.sendline("hello")
        vm.console.expect("hello")
    assert [verdict.kind for verdict in inner.verdicts] == ["kernel-oops"]
    assert [verdict.kind for verdict in outer.verdicts] == ["kernel-panic"]


def test_over_launches(make: Make) -> None:
    """A guest that panics at boot, say."""
    vm = make(launch=False)
    with vm.verdicts.expected("kernel-panic") as seen:
        for _ in range(2):
            vm.launch()
            vm.console.sendline("panic")
            until(lambda: vm.verdicts.seen)
            vm.shutdown()
    assert len(seen.verdicts) == 2


def test_in_coroutines(make: Make) -> None:
    vm = make()

    async def test() -> int:
        async with vm.verdicts.expected("kernel-oops") as seen:
            await vm.console.aio.sendline("oops")
        with pytest.raises(MachineTimeout):
            async with vm.verdicts.expected("kernel-oops", timeout=0.01):
                pass
        return len(seen.verdicts)

    assert asyncio.run(test()) == 1


def test_where_it_cannot_be(make: Make) -> None:
    vm = make(launch=False)
    with pytest.raises(TransitionError), vm.verdicts.expected("kernel-oops"):
        pass
    with vm.verdicts.allowed("kernel-oops"):
        pass
    for wrong in ((), ("",), (None,), ("kernel-oops", "kernel_panic")):
        with pytest.raises(ConfigError) as caught:
            vm.verdicts.expected(*wrong)
        assert caught.value.field == "kinds"
    with pytest.raises(ConfigError):
        vm.verdicts.expected("kernel-oops", timeout=-1)


# -- the guest's memory -------------------------------------------------------------------------------------

DUMPED = {"dump-guest-memory": [do.reply(), do.emit("DUMP_COMPLETED", {"result": {"status": "completed"}})]}
FAILED = {
    "dump-guest-memory": [
        do.reply(),
        do.emit("DUMP_COMPLETED", {"result": {"status": "failed"}, "error": "no room"}),
    ]
}


def told(vm: Machine) -> GuestPanicked:
    with pytest.raises(GuestPanicked) as caught:
        vm.wait(LIMIT)
    return caught.value


@pytest.mark.parametrize("action", ["wake", "fail"])
def test_a_dump_before_anything_follows(make: Make, tmp_path: Path, action: str) -> None:
    vm = make(dump=tmp_path, action=action, on=DUMPED)
    vm.console.sendline("oops and panic")
    error = told(vm)
    assert error.verdict is not None
    assert error.verdict.kind == "kernel-oops"
    assert error.verdict.what["dump"] == str(tmp_path / f"{vm.name}.core")
    assert [
        other.verdict.kind for other in error.errors if isinstance(other, GuestPanicked) and other.verdict
    ]
    assert [verdict.what.get("dump") is not None for verdict in vm.verdicts.seen] == [True, False]
    commands = [r.data["command"] for r in vm.timeline if r.kind == "qmp-command"]
    assert commands.count("dump-guest-memory") == 1
    assert (vm.state is State.FAILED) == (action == "fail")


@pytest.mark.parametrize(
    ("on", "timeout", "words"),
    [
        ({}, LIMIT, "CommandNotFound"),
        (FAILED, LIMIT, "no room"),
        ({"dump-guest-memory": []}, 0.3, "not done after 0.3 s"),
        ({"dump-guest-memory": [do.reply()]}, 0.3, "not done after 0.3 s"),
        ({"dump-guest-memory": [do.exit_with(0)]}, LIMIT, "QEMU has ended"),
        ({"dump-guest-memory": [do.hang_up()]}, LIMIT, "no connection"),
    ],
)
def test_a_dump_that_cannot_be_had(make: Make, tmp_path: Path, on: Any, timeout: float, words: str) -> None:
    vm = make(dump=tmp_path, dump_timeout=timeout, on=on)
    waiting = InThread(vm.wait, LIMIT)
    until_waited_for(vm)
    vm.console.sendline("panic")
    error = waiting.join().error
    assert isinstance(error, GuestPanicked)
    assert error.verdict is not None
    assert words in str(error.verdict.what["dump_error"])
    assert "dump" not in error.verdict.what
    assert list(tmp_path.iterdir()) == []


def test_a_dump_of_a_qemu_that_has_ended(make: Make, tmp_path: Path) -> None:
    vm = make(dump=tmp_path, on=DUMPED)
    waiting = InThread(vm.wait, LIMIT)
    until_waited_for(vm)
    vm.console.sendline("last words")
    error = waiting.join().error
    assert isinstance(error, GuestPanicked)
    assert error.verdict is not None
    assert {"dump", "dump_error"} & set(error.verdict.what)


def test_which_get_one(make: Make, tmp_path: Path) -> None:
    vm = make(
        dump=tmp_path,
        rules={"kernel-oops": {"dump": False}, "x": {"pattern": "hello", "action": "record"}},
        on=DUMPED,
    )
    for line in ("hello", "oops"):
        vm.console.sendline(line)
    error = told(vm)
    assert error.verdict is not None
    assert "dump" not in error.verdict.what
    vm.console.sendline("panic")
    error = told(vm)
    assert error.verdict is not None
    assert "dump" in error.verdict.what
    vm.console.sendline("panic")
    error = told(vm)
    assert error.verdict is not None
    assert "dump" not in error.verdict.what


def test_a_dump_without_monitor_or_place(make: Make, tmp_path: Path) -> None:
    with FakeQEMU(lines=LINES) as fake:
        options: Any = {"verdicts": {"dump": tmp_path}, "qmp": {"enabled": False}}
        with Machine(fake.binary, options=options) as vm:
            vm.launch()
            vm.console.sendline("panic")
            error = told(vm)
            assert error.verdict is not None
            assert "no monitor" in str(error.verdict.what["dump_error"])
    vm = make(dump=tmp_path / "nowhere", launch=False)
    with pytest.raises(LaunchError, match=r"\['dump'\] is not a directory: .*nowhere"):
        vm.launch()


# -- options ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"rules": {"x": 1}}, "['rules']['x']"),
        ({"rules": {"x": "abc"}}, "['rules']['x']"),
        ({"rules": {"x": {"pattern": 1}}}, "['rules']['x']['pattern']"),
        ({"rules": {"x": {"pattern": ["good", "no"]}}}, "['rules']['x']['pattern']"),
        ({"rules": {"x": {"source": "guest"}}}, "['rules']['x']['source']"),
        ({"rules": {"x": {"action": "expected"}}}, "['rules']['x']['action']"),
        ({"rules": {"x": {"dump": 1}}}, "['rules']['x']['dump']"),
        ({"rules": {"x": {"patern": "good"}}}, "['rules']['x']['patern']"),
        ({"rules": {1: "good"}}, "['rules']"),
        ({"rules": {"hung_task": None}}, "['rules']['hung_task']"),
        ({"rules": {"guest-paniced": {"action": "fail"}}}, "['rules']['guest-paniced']"),
        ({"rules": ["good"]}, "['rules']"),
        ({"action": "explode"}, "['action']"),
        ({"action": 1}, "['action']"),
        ({"dump": "a\0b"}, "['dump']"),
        ({"dump_timeout": -1}, "['dump_timeout']"),
    ],
)
def test_options_that_are_wrong(options: dict[str, object], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Machine("qemu", options={"verdicts": options})
    assert caught.value.field == f"options['verdicts']{field}"


def test_kinds_that_are_like_others() -> None:
    rules = {"kernel-panics": "Too many panics", "hung_task": {"pattern": [], "action": "fail"}, "odd": None}
    vm = Machine("qemu", options={"verdicts": {"rules": rules}})
    vm.verdicts.allowed("kernel-panics", "hung_task", "odd", "of-another-plugin")


def test_sources(make: Make) -> None:
    here = {"pattern": "hello", "action": "record"}
    vm = make(
        rules={
            "output": {**here, "source": "output"},
            "console": {**here, "source": "console"},
            "both": {**here, "source": "both"},
            "several": {**here, "pattern": ["good-bye", "hello"]},
        }
    )
    vm.console.sendline("hello")
    vm.console.expect("hello")
    assert kinds(vm) == ["console", "both", "several"]


# -- the built-in rules -------------------------------------------------------------------------------------

REAL = {
    "kernel-panic": [
        "[    2.0] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"
    ],
    "kernel-oops": [
        "BUG: unable to handle page fault for address: ffffffffc0000000",
        "[  1.0] BUG: kernel NULL pointer dereference, address: 0000000000000000",
        "Unable to handle kernel NULL pointer dereference at virtual address 0000000000000000",
        "kernel BUG at lib/list_debug.c:56!",
        "Internal error: Oops: 0000000096000045 [#1] SMP",
        "Internal error: synchronous external abort: 96000210 [#1] PREEMPT SMP",
        "Oops [#1]",
        "Oops: 0002 [#1] PREEMPT SMP PTI",
        "Oops: Kernel access of bad area, sig: 11 [#1]",
        "general protection fault, probably for non-canonical address 0xdead: 0000 [#1] SMP",
        "invalid opcode: 0000 [#1] SMP",
        "Oops: general protection fault, probably for non-canonical address 0xdead: 0000 [#1] SMP KASAN",
        "double fault: 0000 [#1] SMP",
        "kernel stack overflow (double-fault): 0000 [#1] SMP",
        "stack segment: 0000 [#1] SMP",
        "int3: 0000 [#1] SMP",
        "divide error: 0000 [#1] PREEMPT SMP NOPTI",
        "illegal operation: 0001 ilc:1 [#1] SMP",
        "Oops: 0004 ilc:3 [#1] SMP",
        "Kernel bug detected[#1]:",
        "Internal error: Oops - BUG: 00000000f2000800 [#1] PREEMPT SMP",
        "Oops - illegal instruction [#1]",
    ],
    "kernel-lockup": [
        "watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [swapper/0:1]",
        "NMI watchdog: Watchdog detected hard LOCKUP on cpu 1",
        "watchdog: CPU 3 self-detected hard LOCKUP @ plpar_hcall_norets+0x1c/0x28",
        "watchdog: CPU 2 detected hard LOCKUP on other CPUs 3",
        "BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 31s!",
    ],
    "hung-task": [
        "INFO: task kworker/0:1:12 blocked for more than 120 seconds.",
        "INFO: task kworker/0:1:12 blocked in I/O wait for more than 120 seconds.",
    ],
    "rcu-stall": [
        "rcu: INFO: rcu_preempt self-detected stall on CPU",
        "rcu: INFO: rcu_sched detected stalls on CPUs/tasks:",
        "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-... } 21 jiffies s: 49",
        "INFO: rcu_tasks detected stalls on tasks:",
    ],
    "kasan": ["BUG: KASAN: slab-out-of-bounds in kmalloc_oob_right+0xa8/0xbc [kasan_test]"],
    "kmsan": ["BUG: KMSAN: uninit-value in test_uninit_kmsan_check_memory+0x1be/0x380"],
    "kfence": ["BUG: KFENCE: out-of-bounds read in test_out_of_bounds_read+0xa6/0x234"],
    "kcsan": ["BUG: KCSAN: data-race in test_kernel_read / test_kernel_write"],
    "ubsan": ["UBSAN: array-index-out-of-bounds in ../lib/test_ubsan.c:12:3"],
    "initramfs": [
        "Gave up waiting for root file system device.  Common problems:",
        "ALERT!  UUID=1234 does not exist.  Dropping to a shell!",
        "Entering emergency mode. Exit the shell to continue.",
        'You are in emergency mode. After logging in, type "journalctl -xb" to view',
    ],
    "qemu-asan": ["==123==ERROR: AddressSanitizer: heap-use-after-free on address 0x602000000010"],
    "qemu-msan": [
        "==123==WARNING: MemorySanitizer: use-of-uninitialized-value",
        "==123==ERROR: MemorySanitizer: SEGV on unknown address 0x000000000000",
    ],
    "qemu-tsan": [
        "WARNING: ThreadSanitizer: data race (pid=123)",
        "==123==ERROR: ThreadSanitizer: SEGV on unknown address 0x000000000000",
    ],
    "qemu-lsan": ["==123==ERROR: LeakSanitizer: detected memory leaks"],
    "qemu-ubsan": [
        "../hw/net/x.c:12:34: runtime error: shift exponent 32 is too large for 32-bit type 'int'",
        "==123==ERROR: UndefinedBehaviorSanitizer: SEGV on unknown address 0x000000000000",
    ],
    "qemu-assertion": [
        "qemu-system-x86_64: ../block/io.c:12: bdrv_co_x: Assertion `bs->quiesce' failed.",
        "ERROR:../hw/core/x.c:12:f: assertion failed: (a == b)",
        "ERROR:../hw/core/x.c:12:f: code should not be reached",
    ],
    "qemu-abort": [
        "Unexpected error in object_property_find_err() at ../qom/object.c:1332:",
        "qemu: qemu_mutex_lock_impl: Invalid argument",
        "qemu: fatal: Trying to execute code outside RAM or ROM at 0x00000000000a0000",
        "*** stack smashing detected ***: terminated",
        "*** buffer overflow detected ***: terminated",
        "free(): double free detected in tcache 2",
        "double free or corruption (fasttop)",
        "corrupted size vs. prev_size",
        "corrupted double-linked list",
        "malloc(): invalid size (unsorted)",
        "realloc(): invalid next size",
        "munmap_chunk(): invalid pointer",
        "(process:7): GLib-ERROR **: 10:00:00.000: ../glib/gmem.c:106: failed to allocate 99 bytes",
        "../tcg/tcg.c:2345: tcg fatal error",
        "Co-routine re-entered recursively",
        "Co-routine was already scheduled in 'aio_co_schedule'",
        "qemu: hardware error: register_ioport_read: invalid opaque",
    ],
    "kvm-error": [
        "KVM internal error. Suberror: 1",
        "error: kvm run failed Bad address",
        "KVM: entry failed, hardware error 0x80000021",
    ],
}
HARMLESS = [
    "Command line: console=ttyS0 panic=-1 oops=panic softlockup_panic=1 hung_task_panic=1 kasan.fault=report",
    "kasan: KernelAddressSanitizer initialized (generic)",
    "kfence: initialized - using 2097152 bytes for 255 objects at 0x(____ptrval____)-0x(____ptrval____)",
    "kcsan: enabled early",
    "UBSAN: enabled",
    "NMI watchdog: Enabled. Permanently consumes one hw-PMU counter.",
    "rcu: RCU CPU stall warnings timeout set to 60 (rcu_cpu_stall_timeout).",
    "rcu: INFO: rcu_preempt starvation check",
    "traps: prog[123] general protection fault ip:7f0000 sp:7ffe00 error:0 in libc.so[7f0000+1000]",
    "prog[123]: segfault at 0 ip 0000000000000000 sp 00007ffe error 14 in prog[400000+1000]",
    "traps: prog[99] trap invalid opcode ip:401000 sp:7ffe error:0",
    "WARNING: CPU: 0 PID: 1 at kernel/foo.c:12 bar+0x12/0x34",
    "mce: CPU supports 0 MCE banks",
    "reboot: Restarting system",
    "Kernel panic is configured by kernel.panic",
    "---[ end Kernel panic - not syncing: sysrq triggered crash ]---",
    "User process fault: interruption code 003b ilc:2 in prog[3ff8b580000+1000]",
    "traps: prog[99] trap int3 ip:401000 sp:7ffe error:0",
    "NMI watchdog: hard LOCKUP detector disabled",
    "INFO: task scheduling is blocked for now",
    "Loading initial ramdisk ...",
    "emergency mode is not needed",
    "qemu-system-x86_64: warning: host doesn't support requested feature",
    "qemu-system-x86_64: terminating on signal 15 from pid 1",
]


def verdicts_of(line: str, source: str) -> list[str]:
    from vmfsm_plugins.verdicts.watcher import Watcher

    found: list[str] = []
    Watcher(source, source, RULES, lambda verdict: found.append(verdict.kind))(f"{line}\r\n".encode())
    return found


@pytest.mark.parametrize("kind", RULES)
def test_what_kernels_sanitizers_and_qemu_really_say(kind: str) -> None:
    [source] = RULES[kind].sources
    for line in REAL[kind]:
        assert verdicts_of(line, source) == [kind], line
        assert verdicts_of(line, OUTPUT if source == CONSOLE else CONSOLE) == []


@pytest.mark.parametrize("line", HARMLESS)
def test_what_is_harmless(line: str) -> None:
    assert verdicts_of(line, CONSOLE) == verdicts_of(line, OUTPUT) == []


def test_what_another_launch_has_said_belongs_to_nothing_in_this_one() -> None:
    from vmfsm_plugins.verdicts.watcher import Watcher

    found: list[Verdict] = []
    watcher = Watcher(CONSOLE, CONSOLE, RULES, found.append)
    for launch in (b"BUG: kernel NULL pointer dereference, address: 0\n", b"Oops: 0002 [#1] SMP\n"):
        watcher(launch)
        watcher(b"")
    assert [verdict.kind for verdict in found] == ["kernel-oops"] * 2


def test_the_drop_in_has_none(qemu: str) -> None:
    from vmfsm.compat import QEMUMachine

    with FakeQEMU(lines=LINES) as fake:
        vm = QEMUMachine(fake.binary)
        vm.set_console()
        vm.launch()
        vm.console_socket.sendall(b"panic\n")
        assert b"Kernel panic" in vm.console_socket.recv(1000)
        vm.shutdown()
        assert vm.exitcode() == 0


def test_it_says_what_it_is() -> None:
    assert repr(Verdicts()) == "<Verdicts: none>"
