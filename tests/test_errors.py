"""The exceptions: one tree, everything on the exception, harmless to show, fit to travel."""

import asyncio
import inspect
import pickle
import traceback
from collections.abc import Callable

import pytest

import vmfsm
from tests.conftest import MakeMachine
from vmfsm import (
    AbnormalExit,
    ConfigError,
    ConsoleClosed,
    Evidence,
    GuestPanicked,
    ImageError,
    LaunchError,
    LaunchPlan,
    Machine,
    MachineDied,
    MachineTimeout,
    PluginError,
    PluginLoadError,
    Reason,
    State,
    TransitionError,
    Verdict,
    VMError,
    errors,
    hookimpl,
)
from vmfsm.testing import GUEST_ARGS

TREE = {
    VMError: Exception,
    ConfigError: VMError,
    TransitionError: VMError,
    LaunchError: VMError,
    MachineDied: VMError,
    GuestPanicked: VMError,
    AbnormalExit: VMError,
    MachineTimeout: VMError,
    ConsoleClosed: VMError,
    ImageError: VMError,
    PluginError: VMError,
    PluginLoadError: PluginError,
}


def test_the_tree() -> None:
    defined = {value for value in vars(errors).values() if inspect.isclass(value)}
    assert {value for value in defined if issubclass(value, BaseException)} == set(TREE)
    for error, parent in TREE.items():
        assert error.__bases__[0] is parent
        assert getattr(vmfsm, error.__name__) is error
    assert issubclass(MachineTimeout, TimeoutError)
    assert errors.__doc__ is not None
    for error in TREE:
        assert error.__name__ in errors.__doc__, "the tree is drawn"
        assert error.__doc__


def test_a_timeout_is_caught_as_one(bare: MakeMachine) -> None:
    machine = bare().launch()
    with pytest.raises(TimeoutError) as caught:
        machine.wait(timeout=0)
    assert isinstance(caught.value, MachineTimeout)
    assert (caught.value.operation, caught.value.timeout) == ("wait", 0)
    assert (caught.value.machine, caught.value.state) == (machine.name, State.RUNNING)


# -- pickling -----------------------------------------------------------------------------------------------

FIELDS: dict[type[VMError], dict[str, object]] = {
    VMError: {},
    ConfigError: {"field": "args"},
    TransitionError: {"event": "launch", "allowed": ("quit",)},
    LaunchError: {"command": ("qemu", "-m"), "output": "what it said", "exit_status": 1},
    MachineDied: {"exit_status": -9, "reason": Reason.QEMU_SIGNAL},
    GuestPanicked: {"verdict": Verdict("guest-panicked", "qmp", {"event": "GUEST_PANICKED"})},
    AbnormalExit: {"exit_status": 3, "reason": Reason.QEMU_EXIT},
    MachineTimeout: {"operation": "wait", "timeout": 1.5},
    ConsoleClosed: {},
    ImageError: {"command": ("qemu-img", "info"), "output": "said", "exit_status": 1},
    PluginError: {"plugin": "mine", "hook": "pre_launch"},
    PluginLoadError: {"plugin": "mine", "hook": "", "entry_point": "mine = a:B", "distribution": "dist 1"},
}
EVIDENCE = Evidence("login: ", "warning: x", ({"event": "STOP"}, {"event": "RESUME"}), {"mine": 5})


def test_all_kinds_have_known_fields() -> None:
    assert FIELDS.keys() == TREE.keys()


@pytest.mark.parametrize("kind", TREE)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_with_all_fields(kind: type[VMError], protocol: int) -> None:
    error = kind("demo: it broke", machine="demo")
    error.state = State.FAILED
    error.attach(EVIDENCE)
    error.add_errors([PluginError("another")])
    for name, value in FIELDS[kind].items():
        assert hasattr(error, name), "it has a default"
        setattr(error, name, value)
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is kind
    assert str(again) == "demo: it broke"
    assert (again.machine, again.state, again.evidence) == ("demo", State.FAILED, EVIDENCE)
    assert [str(other) for other in again.errors] == ["another"]
    assert again.__notes__ == error.__notes__
    for name, value in FIELDS[kind].items():
        assert getattr(again, name) == value


@pytest.mark.parametrize("kind", TREE)
def test_made_of_nothing(kind: type[VMError]) -> None:
    error = kind()
    assert str(error) == ""
    assert (error.machine, error.state, error.errors, error.evidence) == (None, None, (), Evidence())
    assert not hasattr(error, "__notes__")
    assert isinstance(pickle.loads(pickle.dumps(error)), kind)


# -- evidence -----------------------------------------------------------------------------------------------

HOSTILE = "\x1b[2J\x1b]0;owned\x07\r\nnext\x00\u202ereversed\ttab\x9b31m\nend\n"


class Witness:
    """Has seen what a hostile guest writes."""

    name = "witness"

    def __init__(self) -> None:
        self.broken = False

    @hookimpl
    def pre_launch(self, plan: LaunchPlan) -> None:
        plan.on_evidence(self.evidence)
        plan.on_evidence(lambda: {"more": 42})

    def evidence(self) -> dict[str, object]:
        if self.broken:
            raise ValueError("\x1bnothing to see")
        return {"console": HOSTILE, "output": "qemu: " + HOSTILE, "events": [{"event": "STOP\x1b"}]}


def test_errors_carry_and_show_what_was_seen(bare: MakeMachine) -> None:
    machine = bare(Witness()).launch()
    with pytest.raises(MachineTimeout) as caught:
        machine.wait(timeout=0)
    evidence = caught.value.evidence
    assert evidence.console == HOSTILE, "as it was, for programs"
    assert evidence.output == "qemu: " + HOSTILE
    assert evidence.events == ({"event": "STOP\x1b"},)
    assert (evidence.more, evidence.more["more"]) == ({"more": 42}, 42)
    notes = "\n".join(caught.value.__notes__)
    assert r"  | \x1b[2J\x1b]0;owned\x07" in notes, "for people, made visible"
    assert r"  | next\x00\u202ereversed" + "\ttab" + r"\x9b31m" in notes
    assert r"STOP\x1b" in notes
    assert all(char.isprintable() or char in "\n\t" for char in notes)


def test_evidence_that_cannot_be_had_hides_no_error(bare: MakeMachine) -> None:
    witness = Witness()
    machine = bare(witness).launch()
    witness.broken = True
    with pytest.raises(MachineTimeout) as caught:
        machine.wait(timeout=0)
    more = caught.value.evidence.more
    assert more["more"] == 42
    assert more["evidence-error"] == r"ValueError: \x1bnothing to see"


def test_an_interrupt_while_evidence_is_looked_for_is_the_callers(bare: MakeMachine) -> None:
    interrupt = KeyboardInterrupt()

    class Interrupted:
        name = "interrupted"

        @hookimpl
        def pre_launch(self, plan: LaunchPlan) -> None:
            def evidence() -> dict[str, object]:
                raise interrupt

            plan.on_evidence(evidence)

    machine = bare(Interrupted()).launch()
    with pytest.raises(KeyboardInterrupt) as caught:
        machine.wait(timeout=0)
    assert caught.value is interrupt
    assert machine.state is State.RUNNING


def test_long_evidence_is_shown_by_its_end() -> None:
    error = VMError("x", evidence=Evidence(console="\n".join(f"line {number}" for number in range(100))))
    (note,) = error.__notes__
    lines = note.splitlines()
    assert len(lines) == 13
    assert lines[1:3] == ["  | line 88", "  | line 89"]
    assert lines[-1] == "  | line 99"


def test_what_plugins_add_can_be_had_by_name() -> None:
    assert EVIDENCE.mine == 5
    with pytest.raises(AttributeError, match="yours"):
        _ = EVIDENCE.yours


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\tb\nc", "a\tb\nc"),
        ("a\r\nb", "a\nb"),
        ("over\rwritten", r"over\rwritten"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\x9b31m", r"\x9b31m"),
        ("\u202eabc\u2066", r"\u202eabc\u2066"),
        ("\U000e0041", r"\U000e0041"),
        ("\x7f\x08", r"\x7f\x08"),
        ("\udc80", r"\udc80"),
        ("grüße 猫", "grüße 猫"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert errors.printable(text) == shown
    shown.encode()


@pytest.mark.parametrize(
    ("error", "described"),
    [
        (ValueError("no good"), "ValueError: no good"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (RuntimeError("first\nsecond"), "RuntimeError: first"),
        (OSError("\x1b[31m"), r"OSError: \x1b[31m"),
    ],
)
def test_described_in_one_line(error: BaseException, described: str) -> None:
    assert errors.describe(error) == described


def test_further_errors_are_noted() -> None:
    error = VMError("one", errors=[ValueError("two")]).add_errors([OSError("three\x1b")])
    assert [type(other) for other in error.errors] == [ValueError, OSError]
    assert error.__notes__ == ["also: ValueError: two", r"also: OSError: three\x1b"]


class HostileHook:
    name = "hostile"

    @hookimpl
    def post_launch(self) -> None:
        raise ValueError(HOSTILE)


def test_messages_are_harmless_whatever_a_plugin_raised(bare: MakeMachine) -> None:
    with pytest.raises(LaunchError) as caught:
        bare(HostileHook()).launch()
    assert str(caught.value).isprintable()
    assert str(caught.value.__cause__).isprintable()


@pytest.mark.parametrize(
    "call",
    [
        lambda vm: vm.run(asyncio.sleep(9), timeout=0, operation="mine"),
        lambda vm: vm.wait(timeout=0),
        lambda vm: vm.console.expect("never", timeout=0),
        lambda vm: vm.qmp.execute("no-such-command"),
        lambda vm: vm.qmp.execute_oob("query-status"),
        lambda vm: vm.qmp.wait_event("NEVER", timeout=0),
        lambda vm: vm.qmp.wait_any([("NEVER", None)], timeout=0),
    ],
    ids=["run", "wait", "expect", "execute", "execute_oob", "wait_event", "wait_any"],
)
def test_pytest_shows_the_line_of_the_test(qemu: str, call: Callable[[Machine], object]) -> None:
    """And not our sources behind it: pytest leaves out what has `__tracebackhide__`."""
    with Machine(qemu, GUEST_ARGS) as vm:
        vm.launch()
        with pytest.raises(VMError) as caught:
            call(vm)
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
    shown = [frame.f_code.co_name for frame in frames if not frame.f_locals.get("__tracebackhide__")]
    assert shown == ["test_pytest_shows_the_line_of_the_test", "<lambda>"]
