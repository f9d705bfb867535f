"""What guest or QEMU say is harmless wherever it is shown, whatever it is."""

import contextlib
import logging
import time
import traceback
import unicodedata
from collections.abc import Callable, Iterator

import pytest
from qemu.qmp import ExecuteError
from vmfsm_plugins.qmp import QMPCommandError, QMPConnectionError

from vmfsm import (
    Evidence,
    GuestPanicked,
    LaunchError,
    Machine,
    MachineDied,
    MachineTimeout,
    Record,
    VMError,
    errors,
    format_timeline,
)
from vmfsm.compat.errors import VMLaunchFailure
from vmfsm.compat.machine import QEMUMachine
from vmfsm.testing import GUEST_ARGS, FakeQEMU, Leak, actions

HOSTILE = [
    "\x1b[2J\x1b[1;1H",  # clears the screen
    "\x1b]0;title\x07\x1b]52;c;Y3VybCBldmlsIHwgc2g=\x1b\\",  # title, clipboard
    '\x1bP$q"p\x1b\\\x1b[6n',  # has the terminal answer
    "\x9b31mred\x9d0;title\x9c",  # C1
    "fine\rowned\x08\x08\x7f",
    "\u202egnp.exe\u2066\u2069\u200f",  # bidi
    "zero\u200bwidth\ufeff\u00ad\U000e0041",
    "lines\x0b\x0c\x85\u2028\u2029",
    "nul\x00\ud800\udcff\ue000",
]
ALL = "|".join(HOSTILE)
ENCODABLE = ALL.replace("\ud800\udcff", "")
_PLAIN = {"\n", "\t"}
_ACTS = ("C", "Zl", "Zp")


def is_harmless(text: str) -> bool:
    """No control, format, surrogate, private or unassigned character, nor another end of a line."""
    return all(char in _PLAIN or not unicodedata.category(char).startswith(_ACTS) for char in text)


def shown_of(error: BaseException) -> str:
    """As Python and pytest show it."""
    return "".join(traceback.format_exception(error)) + str(error) + repr(error)


@pytest.fixture(autouse=True)
def nothing_on_the_terminal(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    assert is_harmless("".join(capfd.readouterr()))
    assert is_harmless(caplog.text)


def test_this_test_would_notice() -> None:
    assert not any(is_harmless(text) for text in HOSTILE)
    assert is_harmless("Grüße,\t€ 😀\n")


KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, VMError)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error(kind: type[VMError]) -> None:
    error = kind(f"vm: {ALL}")
    companions = {f"swtpm{ALL}": ALL}
    error.attach(Evidence(ALL, ALL, ({"event": ALL},), {"companions": companions}))
    error.add_errors([ValueError(ALL), VMError(ALL)])
    error.add_note(ALL)
    assert is_harmless(shown_of(error))
    assert error.evidence.console == ALL, "raw for who asks for it"


def test_a_flood_in_an_error_is_bounded() -> None:
    error = VMError("x" * 50_000_000)
    error.attach(Evidence("y" * 1_000_000, "z" * 1_000_000, ({"event": "e" * 1_000_000},)))
    error.add_errors([ValueError("x" * 1_000_000)])
    assert len(shown_of(error)) < 40_000


def test_long_lines_cost_no_time() -> None:
    """Of evidence nothing is made visible but what is shown: character by character takes long."""
    text = "\x1b" * 20_000_000
    before = time.thread_time()
    error = VMError("lost").attach(Evidence(text, text))
    assert time.thread_time() - before < 2
    assert is_harmless(shown_of(error))


def test_errors_of_the_drop_in() -> None:
    error = VMLaunchFailure(1, f"qemu {ALL}", ALL)
    error.__cause__ = VMError(ALL)
    assert is_harmless(str(error))


def test_a_refusal_in_the_drop_in() -> None:
    refusing = FakeQEMU(on={"stop": [actions.refuse(ENCODABLE)]})
    with refusing, QEMUMachine(refusing.binary) as vm:
        vm.launch()
        with pytest.raises(ExecuteError) as caught:
            vm.command("stop")
        assert vm.qmp("stop")["error"]["desc"] == ENCODABLE, "raw for who asks for it"
    assert is_harmless(shown_of(caught.value))


def test_the_report_of_what_was_left() -> None:
    assert is_harmless(str(Leak([f"process 1: {ALL}"])))


@pytest.mark.parametrize(
    "kind",
    ["console", "output", "qmp-event", "qmp-reply", "qmp-command", "hook", "verdict", "spawn", "exit", ALL],
)
@pytest.mark.parametrize("colour", [False, True])
def test_the_timeline(kind: str, colour: bool) -> None:
    data = dict.fromkeys(
        ("text", "console", "event", "command", "arguments", "error", "hook", "plugin", "what", ALL), ALL
    )
    shown = format_timeline([Record(kind, 1.0, data)], colour=colour)
    for paint in ("\x1b[31m", "\x1b[1m", "\x1b[2m", "\x1b[0m"):
        shown = shown.replace(paint, "")
    assert is_harmless(shown)
    assert is_harmless(repr(Record(kind, 1.0, data)))


MakeFake = Callable[..., Machine]


@pytest.fixture
def fake() -> Iterator[MakeFake]:
    """Launches a QEMU that has been taken over."""
    with contextlib.ExitStack() as stack:

        def make(*, launch: bool = True, **behaviour: object) -> Machine:
            binary = stack.enter_context(FakeQEMU(**behaviour)).binary  # type: ignore[arg-type]
            vm = stack.enter_context(Machine(binary, ["-serial", "null"]))
            return vm.launch() if launch else vm

        yield make


def test_a_refusal(fake: MakeFake) -> None:
    vm = fake(on={"stop": [actions.refuse(ENCODABLE, error_class=ALL[:20])]})
    with pytest.raises(QMPCommandError) as caught:
        vm.qmp.execute("stop")
    assert is_harmless(shown_of(caught.value) + format_timeline(vm.timeline) + repr(vm.timeline))
    assert "\x1b" in caught.value.description, "raw for who asks for it"


@pytest.mark.parametrize(
    "message",
    ["\x1b[2Jno JSON\n", '"\\u001b[2J"\n', '{"event": ["\\u001b[2J"]}\n', '{"return": {}, "\\u001b": 1}\n'],
)
def test_what_is_no_message(fake: MakeFake, message: str) -> None:
    vm = fake(on={"stop": [actions.send(message), actions.hang_up(for_good=True)]})
    with pytest.raises(QMPConnectionError) as caught:
        vm.qmp.execute("stop")
    assert is_harmless(shown_of(caught.value) + format_timeline(vm.timeline))


def test_a_greeting(fake: MakeFake) -> None:
    vm = fake(launch=False, greeting=[actions.send('{"QMP": "\\u001b[2J\\u202e"}\n')])
    with pytest.raises(LaunchError) as caught:
        vm.launch()
    assert is_harmless(shown_of(caught.value))


def test_events_and_the_run_state(fake: MakeFake) -> None:
    text = ENCODABLE
    vm = fake(
        on={
            "query-status": [actions.reply({"status": text, "running": True})],
            "stop": [
                actions.emit(text, {text: text}),
                actions.emit("GUEST_PANICKED", {"info": text, "action": text}),
                actions.reply(),
            ],
        }
    )
    vm.qmp.execute("stop")
    with pytest.raises(GuestPanicked) as caught:
        vm.qmp.wait_event("NEVER")
    assert is_harmless(shown_of(caught.value))
    assert is_harmless(repr(vm.qmp) + str(vm.run_state))
    with pytest.raises(MachineTimeout) as late:
        vm.qmp.wait_event("NEVER", timeout=0.01)
    assert is_harmless(shown_of(late.value))
    assert is_harmless(format_timeline(vm.timeline))


def test_output_and_death(fake: MakeFake) -> None:
    said = ALL.encode("utf-8", "surrogatepass") + b"\xff\xe2\x82\n"
    vm = fake(launch=False, start=[actions.output(said), actions.exit_with(1)])
    with pytest.raises(LaunchError) as caught:
        vm.launch()
    assert is_harmless(shown_of(caught.value) + format_timeline(vm.timeline))
    assert "\x1b" in vm.log.text, "raw for who asks for it"


def test_a_guest_that_prints(qemu: str) -> None:
    """The tiny guest prints what it is sent."""
    with Machine(qemu, GUEST_ARGS) as vm:
        vm.launch()
        vm.console.expect("ready")
        vm.console.sendline("ping " + ENCODABLE)
        with pytest.raises(MachineTimeout) as late:
            vm.console.expect("never", timeout=0.3)
        vm.console.sendline("poweroff")
        with pytest.raises(MachineDied) as died:
            vm.console.expect("never")
    assert is_harmless(shown_of(late.value) + shown_of(died.value) + format_timeline(vm.timeline))
