"""Bundles: of what fails in any way, and on request."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from vmfsm_plugins.bundle import Bundles, report

from tests.bundles import LIVE, Seen, bundles, the_bundle
from tests.endings import (
    LAUNCH_FAILURES,
    MakeGuest,
    guests,
    send,
    stop_process,
    until_guest_is_up,
)
from tests.waiting import LIMIT, InThread, until
from vmfsm import (
    ConfigError,
    LaunchError,
    Machine,
    MachineTimeout,
    State,
    TransitionError,
    VMError,
    diagnosis,
    hookimpl,
    recording,
)
from vmfsm import report as reports
from vmfsm.report.text import render

QUICK: dict[str, Any] = {"report": False}
LONG = 60.0
LEFT_OUT = "what only a living QEMU tells (registers, devices, the screen)"


@pytest.fixture
def failed(tmp_path: Path) -> Path:
    return tmp_path / "failed"


@pytest.fixture
def make(qemu: str, failed: Path) -> Iterator[MakeGuest]:
    """Makes machines that leave bundles, without the page, which takes a process."""
    with guests(qemu) as make:

        def with_bundles(options: dict[str, dict[str, object]] | None = None, **parameters: Any) -> Machine:
            given = {"bundle": {"directory": failed, **QUICK}, **(options or {})}
            return make(options=given, **parameters)

        yield with_bundles


def fail(vm: Machine, error: BaseException, do: Callable[[Machine], object] = lambda vm: None) -> None:
    """Leave the block of a machine that runs by `error`."""
    with vm:
        vm.launch()
        until_guest_is_up(vm)
        do(vm)
        raise error


def test_an_exception_leaves_the_block(
    make: MakeGuest, failed: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """All that there can be, and the page."""
    vm = make(more=["-device", "VGA"], options={"bundle": {"directory": failed, "timeout": LONG}})
    with pytest.raises(ValueError, match="no disk") as caught:
        fail(vm, ValueError("no disk\x1b[1m"))
    it = the_bundle(failed)
    assert vm.plugin("bundle").path == str(it.path)
    assert caught.value.__notes__ == [f"{vm.name}: bundle: {it.path}"]
    assert capfd.readouterr().err == f"vmfsm: {vm.name}: bundle: {it.path}\n"
    assert it.missing == {}
    screen = {"screendump.png", "screendump.ppm"} & it.names
    assert len(screen) == 1
    assert it.names - screen == LIVE | {
        *("README.txt", "bundle.json", "report.html", "snapshot.json", "recording.jsonl"),
        *("console-console.log", "qemu.log"),
    }
    assert it.told["why"] == vm.failure == "ValueError: no disk\\x1b[1m"
    assert json.loads(it.text("query-status.json"))["running"] is True
    assert "CPU#0" in it.text("registers.txt")
    assert "isa-debug-exit" in it.text("device-tree.txt")
    assert "ready" in it.text("console-console.log")
    assert json.loads(it.text("snapshot.json"))["state"] == "quitting"
    history = recording.read(it.path / "recording.jsonl")
    assert history.snapshot()["state"] == "stopped", "it has the end"
    assert history.snapshot()["failure"] == vm.failure
    assert history.problems == ()
    assert "no disk" in it.text("report.html")
    assert it.readme.index("CAUSE") < it.readme.index("WHERE TO LOOK FIRST") < it.readme.index("WHAT IS HERE")


def test_none_of_what_has_not_failed(make: MakeGuest, failed: Path) -> None:
    with make() as vm:
        vm.launch()
    assert bundles(failed) == []
    assert vm.plugin("bundle").path is None
    with make() as vm:
        vm.launch()
        vm.kill()
    assert bundles(failed) == []


def test_it_has_no_hook_without_a_directory(bare: Callable[..., Machine]) -> None:
    vm = Machine("qemu-system-x86_64", plugins=[Bundles()])
    (info,) = [info for info in vm.plugins if info.name == "bundle"]
    assert info.hooks == ()


def test_the_environment(qemu: str, failed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(failed.parent)
    monkeypatch.setenv("VMFSM_BUNDLE", "failed")
    with guests(qemu) as make:
        vm = make(options={"bundle": QUICK})
        with pytest.raises(ValueError, match="no"):
            fail(vm, ValueError("no"))
    assert the_bundle(failed).told["why"] == "ValueError: no"


def test_a_wait_in_vain_without_a_block(make: MakeGuest, failed: Path) -> None:
    vm = make().launch()
    with pytest.raises(MachineTimeout):
        vm.console.expect("login:", timeout=0.05)
    vm.shutdown()
    assert "expect('login:')" in the_bundle(failed).told["why"]


def test_consoles_of_like_names(qemu: str, failed: Path) -> None:
    consoles: dict[str, object] = {"a:b": {"index": 0}, "a_b": {"index": 1}}
    options: dict[str, dict[str, object]] = {"console": consoles, "bundle": QUICK}
    with Machine(qemu, ["-S", "-nodefaults"], options=options).launch() as vm:
        assert {"console-a:b.log", "console-a_b.log"} <= Seen(vm.bundle(failed, timeout=LONG)).names


def test_with_the_recorder(make: MakeGuest, failed: Path, tmp_path: Path) -> None:
    vm = make(options={"recorder": {"directory": tmp_path / "records"}})
    with pytest.raises(ValueError, match="no"):
        fail(vm, ValueError("no"))
    it = the_bundle(failed)
    own = Path(vm.plugin("recorder").path).read_bytes()
    copied = (it.path / "recording.jsonl").read_bytes()
    assert own.startswith(copied)
    assert b'"dest":"stopped"' in copied


def test_a_qemu_that_does_not_answer(make: MakeGuest, failed: Path) -> None:
    vm = make(options={"bundle": {"directory": failed, "timeout": 3, "memory": True, **QUICK}})
    vm.launch()
    until_guest_is_up(vm)
    stop_process(vm.pid)
    vm.note_failure("it stands still")
    with pytest.raises(VMError):
        vm.shutdown(timeout=4)
    it = the_bundle(failed)
    assert "QEMU's monitor does not answer" in it.missing["QEMU's run state"]
    assert it.missing["the guest's registers"] == "QEMU's monitor does not answer"
    assert it.missing["guest's memory"] == "QEMU's monitor does not answer"
    assert "ready" in it.text("console-console.log")
    assert not it.names & LIVE
    assert it.told["seconds"] < 3


def test_a_shutdown_keeps_its_time(make: MakeGuest, failed: Path) -> None:
    vm = make().launch()
    until_guest_is_up(vm)
    stop_process(vm.pid)
    vm.note_failure("it stands still")
    ending = InThread(vm.shutdown, timeout=1).join(LIMIT)
    assert type(ending.error).__name__ == "AbnormalExit"
    assert vm.exit_status == -signal.SIGKILL
    assert the_bundle(failed).told["why"] == "it stands still"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_qemu_that_died(make: MakeGuest, failed: Path, number: signal.Signals) -> None:
    vm = make().launch()
    until_guest_is_up(vm)
    send(vm.pid, number)
    with contextlib.suppress(VMError):
        vm.wait(LIMIT)
    it = the_bundle(failed)
    assert it.told["why"] == f"QEMU died of {number.name} (qemu-signal)"
    assert it.missing[LEFT_OUT] == "QEMU has ended"
    assert "ready" in it.text("console-console.log")
    has_core = "core" in it.names or "QEMU's core" in it.missing or "QEMU's core here" in it.missing
    assert has_core == (number is signal.SIGSEGV)


def test_a_qemu_that_is_killed(make: MakeGuest, failed: Path) -> None:
    vm = make().launch()
    until_guest_is_up(vm)
    vm.note_failure("enough")
    vm.kill()
    it = the_bundle(failed)
    assert not it.names & LIVE
    assert "QEMU has ended" in it.missing.values()


@pytest.mark.parametrize("name", LAUNCH_FAILURES)
def test_a_launch_that_fails(make: MakeGuest, failed: Path, name: str) -> None:
    vm = make()
    error = LAUNCH_FAILURES[name].come(vm)
    if vm.failure is None:
        assert bundles(failed) == []
    else:
        it = the_bundle(failed)
        assert it.told["why"] == vm.failure == str(error).removeprefix(f"{vm.name}: ")
        assert not it.names & LIVE


class Stuck:
    name = "stuck"

    @hookimpl
    async def post_launch(self) -> None:
        await asyncio.Event().wait()


def test_a_launch_that_hangs(
    qemu: str, failed: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bundle has what takes a while all the same: longer than who launches waits otherwise."""
    make = report.make

    def slowly(bundle: str, seconds: float) -> int:
        time.sleep(3)
        return make(bundle, seconds)

    monkeypatch.setattr(report, "make", slowly)
    vm = Machine(qemu, ["-S"], plugins=[Stuck()], options={"bundle": {"directory": failed, "timeout": LONG}})
    with pytest.raises(LaunchError, match="not up after") as caught, vm:
        vm.launch(timeout=1)
    it = the_bundle(failed)
    assert it.told["why"] == vm.failure
    assert "report.html" in it.names
    assert f"{vm.name}: bundle: {it.path}" in caught.value.__notes__
    assert capfd.readouterr().err == f"vmfsm: {vm.name}: bundle: {it.path}\n"


@pytest.mark.parametrize("executable", [None, ""])
def test_a_python_that_is_nowhere(
    make: MakeGuest, failed: Path, executable: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a program that has it built in."""
    vm = make(options={"bundle": {"directory": failed, "timeout": LONG}}).launch()
    vm.note_failure("no")
    monkeypatch.setattr(sys, "executable", executable)
    vm.shutdown()
    assert "Python" in the_bundle(failed).missing["the report"]


def test_the_page_takes_nothing_from_the_current_directory(
    make: MakeGuest, failed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "click.py").write_text("raise SystemExit('planted')")
    monkeypatch.chdir(tmp_path)
    vm = make(options={"bundle": {"directory": failed, "timeout": LONG}}).launch()
    vm.note_failure("no")
    vm.shutdown()
    assert "report.html" in the_bundle(failed).names


def test_a_binary_that_is_not_there(failed: Path, tmp_path: Path) -> None:
    vm = Machine(tmp_path / "no-qemu", options={"bundle": {"directory": failed, **QUICK}})
    with pytest.raises(LaunchError) as caught, vm:
        vm.launch()
    it = the_bundle(failed)
    assert it.told["why"] == vm.failure
    assert f"{vm.name}: bundle: {it.path}" in caught.value.__notes__


def test_a_guest_that_panics(make: MakeGuest, failed: Path) -> None:
    vm = make().launch()
    until_guest_is_up(vm)
    vm.console.sendline("panic")
    with pytest.raises(VMError):
        vm.console.expect("never", timeout=LIMIT)
    with contextlib.suppress(VMError):
        vm.shutdown()
    it = the_bundle(failed)
    assert "panic" in it.told["why"]
    assert "panic" in it.readme.partition("WHAT IS HERE")[0]


def test_a_failure_after_the_end(make: MakeGuest, failed: Path) -> None:
    vm = make()
    with pytest.raises(ValueError, match="no") as caught:
        fail(vm, ValueError("no"), lambda vm: vm.shutdown())
    it = the_bundle(failed)
    assert it.told["why"] == "ValueError: no"
    assert caught.value.__notes__ == [f"{vm.name}: bundle: {it.path}"]
    assert it.missing[LEFT_OUT] == "QEMU has ended"
    assert "ready" in it.text("console-console.log"), "from memory"
    assert recording.read(it.path / "recording.jsonl").snapshot()["state"] == "stopped"


def test_a_failure_that_is_noted_after_the_end(make: MakeGuest, failed: Path) -> None:
    """As a test runner does of a test that has shut its machine down itself, before its fixture does."""
    with make() as vm:
        vm.launch()
        until_guest_is_up(vm)
        vm.shutdown()
        assert bundles(failed) == []
        vm.note_failure("its disk is not as it should be")
        it = the_bundle(failed)
        vm.note_failure("another")
    assert vm.plugin("bundle").path == str(it.path)
    assert the_bundle(failed).told["why"] == "its disk is not as it should be"
    assert "ready" in it.text("console-console.log")


def test_a_bundle_a_launch(make: MakeGuest, failed: Path) -> None:
    vm = make()
    plugin = vm.plugin("bundle")
    for _ in range(2):
        vm.launch()
        vm.note_failure("no")
        vm.shutdown()
        assert plugin.path is not None
    assert len(bundles(failed)) == 2
    vm.launch()
    vm.shutdown()
    assert plugin.path is None
    assert len(bundles(failed)) == 2
    numbers = [recording.read(it.path / "recording.jsonl").header["launch"] for it in bundles(failed)]
    assert numbers == [1, 2]


def test_a_launch_while_the_last_ones_bundle_is_made(
    make: MakeGuest, failed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    def wait(bundle: str, seconds: float) -> int:
        go_on.wait(LIMIT)
        raise report.ReportFailed("enough")

    monkeypatch.setattr(report, "make", wait)
    vm = make(options={"bundle": {"directory": failed, "timeout": LONG}}).launch()
    vm.note_failure("first")
    first = InThread(vm.shutdown, timeout=LONG)
    until(lambda: vm.state is State.STOPPED)
    vm.launch()
    vm.note_failure("second")
    second = InThread(vm.shutdown, timeout=LONG)
    until(lambda: vm.state is State.STOPPED)
    go_on.set()
    first.result()
    second.result()
    assert len(bundles(failed)) == 2
    assert "second" in Seen(vm.plugin("bundle").path).told["why"]


def test_many_at_once(make: MakeGuest, failed: Path) -> None:
    machines = [make(name="same").launch() for _ in range(5)]
    for vm in machines:
        vm.note_failure("all of them")
    for ending in [InThread(vm.shutdown) for vm in machines]:
        ending.result()
    assert {str(it.path) for it in bundles(failed)} == {vm.plugin("bundle").path for vm in machines}
    assert len(bundles(failed)) == 5
    assert all(it.names >= LIVE for it in bundles(failed))


def test_secrets_are_hidden(make: MakeGuest, failed: Path) -> None:
    vm = make(more=["-object", "secret,id=s0,data=hunter2hunter2"])
    vm.secrets.add("xyzzy42")
    with pytest.raises(ValueError, match="xyzzy42"):
        fail(vm, ValueError("xyzzy42 hunter2hunter2"), lambda vm: vm.note("xyzzy42"))
    it = the_bundle(failed)
    everything = b"".join(file.read_bytes() for file in it.path.iterdir())
    assert b"xyzzy42" not in everything
    assert b"hunter2hunter2" not in everything


@pytest.mark.parametrize(
    ("option", "bad"),
    [
        ("directory", 5),
        ("directory", "a\0b"),
        ("memory", 1),
        ("report", "yes"),
        ("timeout", None),
        ("timeout", -1),
        ("timeout", 0),
        ("timeout", "soon"),
    ],
)
def test_bad_options(option: str, bad: object) -> None:
    with pytest.raises(ConfigError):
        Machine("qemu-system-x86_64", options={"bundle": {option: bad}})


def test_a_directory_that_cannot_be_made(make: MakeGuest, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    vm = make(options={"bundle": {"directory": tmp_path / "file" / "in", **QUICK}})
    with pytest.raises(LaunchError, match="option 'directory' of plugin 'bundle', or VMFSM_BUNDLE"):
        vm.launch()
    assert vm.state is State.FAILED


@pytest.mark.parametrize(
    ("binary", "arguments"),
    [
        ("qemu-system-aarch64", ["-machine", "virt", "-cpu", "cortex-a57"]),
        ("qemu-system-arm", ["-machine", "virt"]),
        ("qemu-system-riscv64", ["-machine", "virt", "-bios", "none"]),
    ],
)
def test_other_architectures(binary: str, arguments: list[str], failed: Path) -> None:
    if shutil.which(binary) is None:
        pytest.skip(f"{binary} is not in PATH (Debian: packages qemu-system-arm and qemu-system-misc)")
    vm = Machine(binary, [*arguments, "-nodefaults", "-S"], options={"bundle": QUICK})
    with vm.launch():
        it = Seen(vm.bundle(failed, timeout=LONG))
    assert it.names >= LIVE
    assert it.missing == {"picture of the screen": "there is no graphics device"}
    assert "CPU#0" in it.text("registers.txt")


def test_a_failure_after_the_end_is_in_the_recording(make: MakeGuest, failed: Path, tmp_path: Path) -> None:
    bundle = {"directory": failed, "timeout": LONG, "report": False}
    vm = make(options={"bundle": bundle, "recorder": {"directory": tmp_path / "records"}})
    with pytest.raises(ValueError, match="too late"):
        fail(vm, ValueError("too late"), lambda vm: vm.kill())
    history = recording.read(the_bundle(failed).path / "recording.jsonl")
    assert history.snapshot()["failure"] == vm.failure == "ValueError: too late"


# -- on request ---------------------------------------------------------------------------------------------


@pytest.fixture
def vm(qemu: str) -> Iterator[Machine]:
    """It leaves no bundles by itself."""
    with guests(qemu) as make:
        vm = make(options={"bundle": QUICK}).launch()
        until_guest_is_up(vm)
        yield vm


def test_on_request(vm: Machine, tmp_path: Path) -> None:
    it = Seen(vm.bundle(tmp_path / "asked", timeout=LONG))
    assert it.path.parent == tmp_path / "asked"
    assert it.told["why"] == "it was asked for"
    assert it.names >= LIVE
    assert it.missing == {"picture of the screen": "there is no graphics device"}
    assert "guest-memory.elf" not in it.names
    vm.console.sendline("ping")
    vm.console.expect("pong")
    assert vm.failure is None
    assert vm.plugin("bundle").path is None


def test_the_guests_memory(vm: Machine, tmp_path: Path) -> None:
    it = Seen(vm.bundle(tmp_path, memory=True, timeout=LONG))
    data = (it.path / "guest-memory.elf").read_bytes()
    assert data.startswith(b"\x7fELF")
    assert b"vmfsm guest ready" in data
    assert "crash vmlinux" in it.readme
    assert vm.qmp.execute("query-status")["running"] is True


def test_in_the_current_directory(vm: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Path(vm.bundle(timeout=LONG)).parent == tmp_path


def test_while_it_is_held(vm: Machine, tmp_path: Path) -> None:
    """Its clock stands still, and this is bounded all the same."""
    stop_process(vm.pid)
    with vm.hold():
        it = Seen(vm.bundle(tmp_path, timeout=10))
    assert "QEMU's monitor does not answer" in it.missing["QEMU's run state"]
    send(vm.pid, signal.SIGCONT)


def test_of_one_that_has_ended(vm: Machine, tmp_path: Path) -> None:
    vm.shutdown()
    it = Seen(vm.bundle(tmp_path, timeout=LONG))
    assert it.missing[LEFT_OUT] == "QEMU has ended"
    assert "ready" in it.text("console-console.log")
    it = Seen(asyncio.run(vm.abundle(tmp_path, timeout=LONG)))
    assert it.missing[LEFT_OUT] == "QEMU has ended"


def test_for_coroutines(vm: Machine, tmp_path: Path) -> None:
    async def both() -> list[str]:
        calls = (vm.abundle(tmp_path, timeout=LONG), vm.abundle(tmp_path, timeout=LONG))
        return list(await asyncio.gather(*calls))

    paths = asyncio.run(both())
    assert len(set(paths)) == 2
    assert all(Seen(path).names >= LIVE for path in paths)

    async def on_the_io_thread() -> str:
        with pytest.raises(TransitionError):
            vm.bundle(tmp_path)
        return await vm.abundle(tmp_path, timeout=LONG)

    assert Seen(vm.run(on_the_io_thread(), timeout=LONG, operation="bundle")).names >= LIVE


def test_before_the_first_launch(bare: Callable[..., Machine], tmp_path: Path) -> None:
    with pytest.raises(TransitionError):
        bare().bundle(tmp_path)


def test_in_a_forked_child(vm: Machine, tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            try:
                vm.bundle(tmp_path)
            except TransitionError:
                os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(("parameter", "bad"), [("memory", 1), ("timeout", 0), ("directory", 5)])
def test_bad_parameters(vm: Machine, parameter: str, bad: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        vm.bundle(**{parameter: bad})
    assert caught.value.field == parameter


def test_where_no_directory_can_be_made(vm: Machine, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        vm.bundle(tmp_path / "file" / "in")


def test_while_another_thread_ends_it(vm: Machine, tmp_path: Path) -> None:
    """It is whole, whatever is there still."""
    begun = threading.Event()

    def end() -> None:
        begun.wait(LIMIT)
        vm.shutdown()

    ending = InThread(end)

    def ask() -> str:
        begun.set()
        return vm.bundle(tmp_path, timeout=LONG)

    Seen(InThread(ask).result())
    ending.result()


def test_what_it_asks_is_not_the_tests(vm: Machine, tmp_path: Path) -> None:
    """A test that hangs: it is its own wait that is told, also after a second bundle."""
    hanging = InThread(lambda: vm.console.expect("never", timeout=LONG))
    until(lambda: "expect('never')" in str(vm.snapshot()["waits"]))
    for _ in range(2):
        it = Seen(vm.bundle(tmp_path, timeout=LONG))
        found = diagnosis.diagnose(recording.read(it.path / "recording.jsonl"))
        assert found.kind == "unfinished"
        assert "waited for expect('never')" in found.cause
        assert found.cause in it.readme
        assert not any("query-" in clue.text or "screendump" in clue.text for clue in found.clues)
    asked = {record.data.get("by") for record in vm.timeline if record.kind in {"qmp-command", "qmp-reply"}}
    assert "bundle" in asked
    vm.kill()
    with pytest.raises(VMError):
        hanging.result()


def test_a_monitor_that_does_not_answer_is_in_the_cause(vm: Machine, tmp_path: Path) -> None:
    """For as long as that is so."""
    stop_process(vm.pid)
    stuck = Seen(vm.bundle(tmp_path, timeout=5))
    assert "QEMU's monitor has not answered query-status (asked by bundle)" in stuck.readme
    send(vm.pid, signal.SIGCONT)
    vm.qmp.execute("query-name", timeout=LONG)
    well = Seen(vm.bundle(tmp_path, timeout=LONG))
    assert "nothing went wrong as far as is known: running" in well.readme
    assert "not answered" not in well.readme


def test_a_failure_names_no_question_of_its_bundle(make: MakeGuest, failed: Path) -> None:
    vm = make(options={"bundle": {"directory": failed, "timeout": LONG, **QUICK}})
    with pytest.raises(ValueError, match="no disk"):
        fail(vm, ValueError("no disk"))
    it = the_bundle(failed)
    found = diagnosis.diagnose(recording.read(it.path / "recording.jsonl"))
    assert found.kind == "test-failed"
    assert not any("screendump" in clue.text or "monitor" in clue.text for clue in found.clues)
    text = render(reports.data([str(it.path)]))
    assert "screendump" not in text
    assert "(bundle)" not in text


class Slow:
    """Looks at machines, and never has time enough."""

    name = "slow"
    looks_on = True

    def __init__(self) -> None:
        self.was_cut = 0

    @hookimpl
    async def early_cleanup(self) -> None:
        await self._wait()

    @hookimpl
    async def launch_ended(self) -> None:
        await self._wait()

    async def _wait(self) -> None:
        try:
            await asyncio.sleep(10 * LIMIT)
        except asyncio.CancelledError:
            self.was_cut += 1
            raise


def test_an_onlooker_without_time_makes_no_ending_bad(make: MakeGuest) -> None:
    """As bundles are: the clean-up of nothing is left undone."""
    slow = Slow()
    vm = make(plugins=[slow]).launch()
    until_guest_is_up(vm)
    vm.shutdown(timeout=2)
    assert vm.state is State.STOPPED
    assert slow.was_cut == 2


def test_a_wait_tells_how_it_ended_though_more_is_made_of_it(make: MakeGuest) -> None:
    class Late:
        name = "late"
        looks_on = True

        @hookimpl
        async def launch_ended(self) -> None:
            while not over.is_set():  # noqa: ASYNC110 - of a thread
                await asyncio.sleep(0.01)

    over = threading.Event()
    vm = make(plugins=[Late()]).launch()
    until_guest_is_up(vm)
    waiting = InThread(vm.wait, timeout=2)
    send(vm.pid, signal.SIGKILL)
    waiting.join(LIMIT)
    over.set()
    assert type(waiting.error).__name__ == "AbnormalExit"
    vm.kill()
