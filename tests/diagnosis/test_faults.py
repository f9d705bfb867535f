"""Each kind from what was recorded of a real fault: does the one line name it to who knows nothing else?"""

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.recordings import written
from tests.waiting import InThread, until
from vmfsm import LaunchPlan, Machine, VMError, diagnosis, hookimpl
from vmfsm.diagnosis import Diagnosis, Diagnostician
from vmfsm.testing import GUEST_ARGS, FakeQEMU
from vmfsm.testing import actions as do

QEMU = "qemu-system-x86_64"
SOON = 1.0
"""Seconds for what is never to come."""
LATE = 30.0
WITHIN = 3.0
"""Seconds for a launch that gets where it hangs, also on a busy host."""


class Bench:
    """Where a fault is made, and what is said of it afterwards."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.machine: Machine

    def make(self, binary: str = QEMU, args: Any = GUEST_ARGS, **kw: Any) -> Machine:
        options = {"recorder": {"directory": str(self._directory)}, **kw.pop("options", {})}
        self.machine = Machine(binary, args, name="vm", options=options, **kw)
        return self.machine

    @contextlib.contextmanager
    def failing(self, *args: Any, **kw: Any) -> Iterator[Machine]:
        """A machine that is launched, in a block that is left by an error."""
        try:
            with self.make(*args, **kw) as vm:
                vm.launch()
                if not args:
                    vm.console.expect("vmfsm guest")
                yield vm
        except (VMError, AssertionError):
            return
        pytest.fail("nothing has failed")

    def said(self) -> Diagnosis:
        return diagnosis.diagnose(written(self.machine))

    def check(self, kind: str, cause: str, *clues: str, outcome: str = "failed") -> Diagnosis:
        """What is said of it: patterns of the cause and of clues, in which `WHO` is a line of this file."""
        said = self.said()
        found = [clue.text for clue in said.clues]
        shown = "\n".join([f"{said.outcome} {said.kind}: {said.cause}", *found])
        assert (said.outcome, said.kind) == (outcome, kind), shown
        pattern = f"vm: {cause}".replace("WHEN", r"[\d.]+ m?s after launch")
        pattern = pattern.replace("MEANWHILE", r"(, while WHO waited|; WHO waited) for expect\(.*")
        pattern = pattern.replace("WHO", r"\S*test_faults\.py:\d+")
        assert re.fullmatch(pattern, said.cause), shown
        for clue in clues:
            assert any(re.fullmatch(clue, text) for text in found), f"{clue!r} is not in\n{shown}"
        return said


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


# -- the guest ----------------------------------------------------------------------------------------------


def test_a_guest_that_hangs(bench: Bench) -> None:
    with bench.failing() as vm:
        vm.console.sendline("hang")
        vm.console.expect("echo: hang\r\n")
        vm.console.expect("login:", timeout=SOON)
    said = bench.check(
        "guest-hang",
        r"the guest seems to hang: expect\('login:'\) on console 'console' came to nothing within 1\.0 s "
        r"\(WHO, WHEN\); it had been silent for [\d.]+ m?s, after '> echo: hang'",
        r"the console had been silent for [\d.]+ m?s: its last line was '> echo: hang'",
    )
    assert said.wait is not None
    assert said.wait["operation"] == "expect('login:') on console 'console'"
    assert said.wait["outcome"] == "timeout"
    assert said.at == said.wait["until"]


def test_a_guest_that_waits_for_input(bench: Bench) -> None:
    with bench.failing() as vm:
        vm.console.expect("> ")
        vm.console.expect("login:", timeout=SOON)
    bench.check("guest-hang", r"the guest seems to wait for input: .*, after '>'", ".*a prompt, perhaps")


def test_a_guest_that_never_says_anything(bench: Bench) -> None:
    with bench.failing(QEMU, [*GUEST_ARGS, "-S"]) as vm:
        vm.console.expect("ready", timeout=SOON)
    bench.check("guest-hang", r"the guest never said anything: .*", "no console had said anything")


def test_a_guest_that_panics(bench: Bench) -> None:
    with bench.failing() as vm:
        vm.console.sendline("panic")
        vm.console.expect("login:", timeout=LATE)
    bench.check("guest-panic", r"the guest panicked, WHENMEANWHILE")


def test_a_kernel_that_panics(bench: Bench) -> None:
    words = (
        "[    1.200000] BUG: kernel NULL pointer dereference\r\n[    1.210000] Call Trace:\r\n"
        "[    1.211000]  <TASK>\r\n[    1.212000]  ? panic+0x10a/0x2e0\r\n[    1.213000]  do_it+0x1/0x2\r\n"
        "[    1.300000] Kernel panic - not syncing: Fatal exception\r\n[    1.400000] Kernel Offset: none\r\n"
    )
    with FakeQEMU(lines={"boot": [do.say(words)]}) as fake, bench.failing(fake.binary, ()) as vm:
        vm.console.sendline("boot")
        vm.console.expect("login:", timeout=LATE)
    bench.check(
        "guest-panic",
        r"the guest's kernel oopsed: '\[    1\.2.*BUG: kernel NULL .*' on console 'console', WHENMEANWHILE",
        r"console 'console' said '\[    1\.200000\] BUG: kernel NULL pointer dereference'",
        r"its call trace: panic, do_it",
        r"also: kernel-panic: '\[    1\.300000\] Kernel panic - not syncing: Fatal exception'",
    )


def test_a_boot_loop(bench: Bench) -> None:
    with bench.failing(options={"qmp": {"boot_loop": (3, 60.0)}}) as vm:
        for _ in range(4):
            vm.console.sendline("reboot")
            vm.console.expect("ready", timeout=LATE)
    bench.check(
        "boot-loop",
        r"the guest is in a boot loop: 4 resets by the guest in .*MEANWHILE",
        r"\d+ resets by the guest in .*",
    )


def test_a_guest_that_shuts_down(bench: Bench) -> None:
    with bench.failing() as vm:
        vm.console.sendline("poweroff")
        vm.console.expect("login:", timeout=LATE)
    bench.check("guest-shutdown", r"the guest shut itself down, WHENMEANWHILE")


def test_a_guest_that_resets_where_that_is_an_end(bench: Bench) -> None:
    with bench.failing(QEMU, [*GUEST_ARGS, "-no-reboot"]) as vm:
        vm.console.expect("> ")
        vm.console.sendline("triple")
        vm.console.expect("login:", timeout=LATE)
    bench.check("guest-shutdown", r"the guest reset itself, which ends QEMU here, WHENMEANWHILE")


def test_a_guest_that_ends_with_a_status(bench: Bench) -> None:
    with bench.failing() as vm:
        vm.console.sendline("exit 3")
        vm.console.expect("login:", timeout=LATE)
    bench.check(
        "guest-exit", r"the guest ended QEMU with status 7: it wrote 3 to isa-debug-exit, WHENMEANWHILE"
    )


def test_a_console_that_is_closed(bench: Bench) -> None:
    with FakeQEMU(lines={"go": [do.close_console()]}) as fake, bench.failing(fake.binary, ()) as vm:
        vm.console.sendline("go")
        vm.console.expect("login:", timeout=LATE)
    bench.check("console-lost", r"a console was closed while QEMU lived, and WHO waited for .*, WHEN")


# -- QEMU ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "kind", "cause"),
    [
        (signal.SIGKILL, "qemu-killed", r"QEMU was killed from outside \(SIGKILL, and not by vmfsm\)"),
        (signal.SIGSEGV, "qemu-crashed", "QEMU crashed: it died of SIGSEGV"),
        (
            signal.SIGTERM,
            "qemu-killed",
            r"a signal that vmfsm did not send ended QEMU: .* 'qemu-.*: terminating on signal 15 from .*'",
        ),
    ],
)
def test_a_qemu_that_ends_of_a_signal(bench: Bench, number: signal.Signals, kind: str, cause: str) -> None:
    with bench.failing() as vm:
        waiting = InThread(vm.console.expect, "login:", timeout=LATE)
        until(lambda: any("login" in str(wait) for wait in vm.snapshot()["waits"]))  # type: ignore[union-attr]
        assert vm.pid is not None
        os.kill(vm.pid, number)
        vm.console.expect("login:", timeout=LATE)
    waiting.join()
    bench.check(kind, rf"{cause}, WHEN, while .* waited for expect\('login:'\) on console 'console'")


def test_a_qemu_that_fails_an_assertion(bench: Bench) -> None:
    words = "qemu-system-fake: ../hw/x.c:12: foo: Assertion `x' failed.\n"
    orders = {"query-block": [do.output(words), do.die_of(signal.SIGABRT)]}
    with FakeQEMU(on=orders) as fake, bench.failing(fake.binary, ()) as vm:
        vm.qmp.execute("query-block", timeout=LATE)
    bench.check(
        "qemu-crashed",
        r"QEMU failed \(qemu-assertion\) and died of SIGABRT: 'qemu-.*' on QEMU's output, WHEN.*",
        "QEMU died of SIGABRT",
    )


def test_a_qemu_that_is_stopped(bench: Bench) -> None:
    with bench.failing() as vm:
        assert vm.pid is not None
        os.kill(vm.pid, signal.SIGSTOP)
        try:
            vm.qmp.execute("query-status", timeout=SOON)
        finally:
            with contextlib.suppress(VMError):
                vm.shutdown(timeout=4)
    bench.check(
        "monitor-wedged",
        r"QEMU's monitor did not answer execute\('query-status'\) within 1\.0 s \(WHO, WHEN\), though "
        r"QEMU's process lived; it seems to have stood still as a whole \(SIGSTOP, or stuck\)",
        r"it did not react to SIGTERM for .* either: it seems to be stopped \(SIGSTOP\), or stuck",
        r"the monitor had not answered query-status for [\d.]+ m?s",
        "to end it, vmfsm had to send SIGTERM, then SIGKILL",
    )


def test_a_command_that_takes_too_long(bench: Bench) -> None:
    with FakeQEMU(on={"query-block": []}) as fake, bench.failing(fake.binary, ()) as vm:
        vm.qmp.execute("query-block", timeout=SOON)
    bench.check("timeout", r"QEMU's monitor did not answer .*", r"the monitor was heard again .* later")


def test_a_qemu_that_does_not_end(bench: Bench) -> None:
    with bench.failing() as vm:
        assert vm.pid is not None
        os.kill(vm.pid, signal.SIGSTOP)
        vm.shutdown(timeout=4)
    bench.check(
        "shutdown-forced",
        r"QEMU did not end when it was asked to by qmp, WHEN within .*, and was sent SIGTERM and SIGKILL",
        r"it did not react to SIGTERM .*",
    )


def test_an_event_that_does_not_come(bench: Bench) -> None:
    with bench.failing() as vm:
        vm.qmp.wait_event("STOP", timeout=SOON)
    bench.check("timeout", r"wait_event\('STOP'\) came to nothing within 1\.0 s \(WHO, WHEN\)")


# -- launches -----------------------------------------------------------------------------------------------


class Failing:
    name = "disks"

    @hookimpl
    def post_launch(self, machine: Machine) -> None:
        raise RuntimeError("no disk")


class Hanging:
    name = "slow"

    @hookimpl
    async def post_launch(self, machine: Machine) -> None:
        await asyncio.Event().wait()


class Untidy:
    name = "tidy"

    @hookimpl
    def post_shutdown(self, machine: Machine) -> None:
        raise OSError("disk full")


class WithCompanion:
    name = "helper"

    def __init__(self, command: str, ready: str | None = None) -> None:
        self._command, self._ready = command, ready

    @hookimpl
    def pre_launch(self, plan: LaunchPlan) -> None:
        ready = self._ready and os.path.join(plan.directory, self._ready)
        plan.companion(["sh", "-c", self._command], name="helper", ready=ready)


def test_a_bad_option(bench: Bench) -> None:
    with pytest.raises(VMError):
        bench.make(QEMU, ["-nosuch"]).launch()
    bench.check(
        "launch-failed",
        r"QEMU did not come up: it ended with status 1: 'qemu-system-x86_64: -nosuch: invalid option', WHEN",
    )


def test_a_binary_that_is_missing(bench: Bench) -> None:
    with pytest.raises(VMError):
        bench.make("/nonexistent/qemu").launch()
    bench.check("launch-failed", r"the launch failed before QEMU was started: .*'/nonexistent/qemu'")


def test_a_monitor_that_never_greets(bench: Bench) -> None:
    with FakeQEMU(start=[do.hold()]) as fake, pytest.raises(VMError):
        bench.make(fake.binary, ()).launch(timeout=WITHIN)
    bench.check(
        "monitor-wedged", r"not up within 3\.0 s: QEMU was started, but its monitor did not get through .*"
    )


def test_a_hook_that_fails(bench: Bench) -> None:
    with pytest.raises(VMError):
        bench.make(plugins=[Failing()]).launch()
    bench.check(
        "hook-failed",
        r"the launch failed after .*: hook post_launch of plugin 'disks' raised RuntimeError: no disk",
    )


def test_a_hook_that_hangs(bench: Bench) -> None:
    with pytest.raises(VMError):
        bench.make(plugins=[Hanging()], block=["qmp"]).launch(timeout=WITHIN)
    bench.check(
        "hook-hang", r"not up within 3\.0 s: hook post_launch of plugin 'slow' did not come to its end"
    )


def test_a_clean_up_that_fails(bench: Bench) -> None:
    with bench.failing(QEMU, GUEST_ARGS, plugins=[Untidy()]):
        pass
    bench.check("hook-failed", r"hook post_shutdown of plugin 'tidy' raised OSError: disk full, WHEN")


def test_a_companion_that_ends(bench: Bench, tmp_path: Path) -> None:
    sign = tmp_path / "sign"
    command = f"until [ -e {sign} ]; do sleep 0.05; done; echo bad luck; exit 3"
    with bench.failing(plugins=[WithCompanion(command)]) as vm:
        vm.console.expect("ready")
        sign.touch()
        vm.console.expect("login:", timeout=LATE)
    bench.check("companion-ended", r"a program that the machine needs beside QEMU is gone: .*status 3.*")


def test_a_companion_that_is_never_ready(bench: Bench) -> None:
    with pytest.raises(VMError):
        bench.make(plugins=[WithCompanion("exec sleep 100", "never")]).launch(timeout=WITHIN)
    bench.check(
        "companion-not-ready", r"not up within 3\.0 s: companion 'helper' was started, but never ready"
    )


# -- the test -----------------------------------------------------------------------------------------------


def test_a_test_that_fails(bench: Bench) -> None:
    with bench.failing() as vm, vm.trace("ask"):
        vm.console.sendline("ping")
        vm.console.expect("pong")
        raise AssertionError("wrong answer")
    bench.check(
        "test-failed",
        r"the test failed in step 'ask', WHEN: AssertionError: wrong answer; the machine was fine .*",
        "step 'ask' was left by AssertionError: wrong answer",
    )


def test_a_wait_in_vain_that_the_test_does_not_mind(bench: Bench) -> None:
    with bench.make() as vm:
        vm.launch()
        with contextlib.suppress(TimeoutError):
            vm.console.expect("login:", timeout=0.1)
        vm.console.expect("ready")
    bench.check("ok", r"all went well; it took .*", outcome="ok")


def test_a_machine_that_somebody_else_kills(bench: Bench) -> None:
    with bench.failing() as vm:
        waiting = InThread(vm.console.expect, "login:", timeout=LATE)
        until(lambda: any("login" in str(wait) for wait in vm.snapshot()["waits"]))  # type: ignore[union-attr]
        vm.kill()
        vm.console.expect("login:", timeout=LATE)
    waiting.join()
    bench.check(
        "ended-meanwhile", r"the machine was ended by kill\(\)( in WHO)?, WHEN, while .* waited for expect.*"
    )


def test_one_that_is_held(bench: Bench) -> None:
    vm = bench.make()
    with vm:
        vm.launch()
        with vm.hold("to look at it"):
            diagnostician = Diagnostician()
            until(lambda: any(record.kind == "hold" for record in vm.timeline))
            for record in vm.timeline:
                diagnostician.add(record)
            said = diagnostician.conclude(vm.snapshot())
    assert (said.outcome, said.kind) == ("unfinished", "held")
    assert re.fullmatch(r"vm: the machine was held by MainThread \(to look at it\), since .*", said.cause)
