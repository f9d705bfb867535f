"""`docs/waiting.md` has every public call that can wait; each is hung there, and ends by its deadline."""

import asyncio
import inspect
import re
import threading
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

import vmfsm
from tests.endings import guests, spoiler, stop_process
from tests.faults.hanging import HANGS, Call, Lab
from tests.hooked import Async, Endless, Journal
from tests.waiting import InThread
from vmfsm import (
    AbnormalExit,
    LaunchError,
    Machine,
    MachineTimeout,
    State,
    offers,
    qemu_img,
    registry,
    testing,
)
from vmfsm.caller import GRACE
from vmfsm.hooks import ALL_HOOKS
from vmfsm.iothread import IOThread

TIMEOUT = 0.2
SLACK = 20.0
"""Seconds beside the bound: on a machine that is busy, too, it is far from never."""
PAGE = (Path(__file__).parents[2] / "docs" / "waiting.md").read_text(encoding="utf-8")
MODULES = {"qemu_img": qemu_img, "registry": registry, "testing": testing}
NEVER_WAIT = {
    "Machine": "__enter__ command console consoles deadline diagram evidence exit_status failure fds"
    " held history hold log migration name note note_failure pid plugin plugins qmp reason release run_state"
    " secrets since snapshot snapshots state timeline trace verdicts",
    "console": "aio closed data lines lost mark path read since text",
    "fds": "aio",
    "log": "path tail text",
    "migration": "aio",
    "qmp": "address aio client events greeting mark resets run_state version",
    "snapshots": "aio",
    "verdicts": "allowed counts seen",
    "registry": "machines",
}
"""By owner, what is over at once, whatever is held up."""
NEITHER = {
    "Machine": "record report",
    "": "check_fd check_path check_peer escape format_timeline jsonable looking_on onlooker open_for_log"
    " printable socket_name",
    "Companion": "output pid",
    "Deadline": "after as_timeout expired leaving limit nap remaining stands_still",
    "Hold": "__enter__ __exit__ release released",
    "FakeQEMU": "__enter__ binary pids",
    "Secrets": "add",
    "LaunchPlan": "adopt companion defer give log_path on_evidence on_exit on_quit pass_fd",
}
"""The same; of what is made before there is a machine, or for plugins."""
INTERNAL = {
    "Companion": "awaited close_given end has_ended spawn title until_ready",
    "LaunchPlan": "close_given",
    "Secrets": "filter learn_command learn_message redact redact_all redact_message",
    "console": "last_lines open",
}
"""For the framework and the plugin itself."""


def names(*groups: Mapping[str, str]) -> list[str]:
    pairs = [pair for group in groups for pair in group.items()]
    return [f"{owner}.{name}".lstrip(".") for owner, all_names in pairs for name in all_names.split()]


class Row(NamedTuple):
    calls: tuple[str, ...]
    cells: tuple[str, ...]

    @property
    def raises(self) -> set[str]:
        return set(re.findall(r"`(\w+)`", self.cells[2]))


def rows(section: str) -> list[Row]:
    text = PAGE.partition(f"## {section}\n")[2].partition("\n## ")[0]
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line[:1] == "|"
    ]
    return [Row(tuple(re.findall(r"`([\w.]+)`", line[0])), tuple(line[1:])) for line in lines[2:]]


WITH_TIMEOUT = rows("With a timeout")
WITHOUT = rows("Without one")


# -- the inventory ------------------------------------------------------------------------------------------


def offered() -> Iterator[tuple[str, tuple[type, ...]]]:
    """What machines offer, by its name: the protocol, and the plugin's own class; the twins, too."""
    vm = Machine("qemu-system-x86_64")
    for name, member in inspect.getmembers(Machine, lambda member: isinstance(member, property)):
        protocol = getattr(offers, str(inspect.signature(member.fget).return_annotation).strip("'\""), None)
        if inspect.isclass(protocol):
            plugin = getattr(vm, name)
            yield name, (protocol, type(plugin))
            if hasattr(plugin, "aio"):
                yield f"{name}.aio", (getattr(offers, f"Async{protocol.__name__}"), type(plugin.aio))


ENTRANCES = {"__enter__", "__exit__", "__aenter__", "__aexit__"}


def public_members() -> Iterator[tuple[str, Any]]:
    """Functions and properties, by name. Not hooks, which the framework calls, nor plain records."""
    owners: list[tuple[str, type | ModuleType]] = [(name, kind) for name, two in offered() for kind in two]
    owners += [("", vmfsm), *MODULES.items()]
    owners += [
        (name, member)
        for module in (vmfsm, *MODULES.values())
        for name, member in inspect.getmembers(module, inspect.isclass)
        if name in public_names(module) and not issubclass(member, BaseException | tuple | Enum)
    ]
    for owner, kind in owners:
        for name, member in inspect.getmembers(
            kind, lambda m: inspect.isfunction(m) or isinstance(m, property)
        ):
            if name in public_names(kind) - (set() if kind is Machine else {*ALL_HOOKS}):
                yield f"{owner}.{name}".lstrip("."), member


def public_names(kind: type | ModuleType) -> set[str]:
    plain = {name for name in dir(kind) if not name.startswith("_") or name in ENTRANCES}
    return set(getattr(kind, "__all__", plain))


def has_timeout(member: Any) -> bool:
    makes_one = member is Machine.deadline
    return inspect.isfunction(member) and not makes_one and "timeout" in inspect.signature(member).parameters


def listed(rows: list[Row]) -> list[str]:
    return [call for row in rows for call in row.calls]


def test_every_call_with_a_timeout_has_a_row_and_every_row_such_a_call() -> None:
    found = {name for name, member in public_members() if has_timeout(member)}
    assert len(found) > 50
    assert sorted(listed(WITH_TIMEOUT)) == sorted(found)


def test_every_other_one_has_a_row_or_never_waits() -> None:
    found = {name for name, member in public_members() if not has_timeout(member)}
    assert sorted(found) == sorted([*listed(WITHOUT), *names(NEVER_WAIT, NEITHER, INTERNAL)])


def test_every_row_is_hung() -> None:
    assert {row.calls[0] for row in WITH_TIMEOUT} == set(HANGS)


def test_what_waits_without_a_timeout_is_there() -> None:
    vm = Machine("qemu-system-x86_64")
    places: dict[str, object] = {"Machine": Machine, **MODULES}
    assert WITHOUT
    for row in WITHOUT:
        for call in row.calls:
            first, *names = call.split(".")
            found = (
                places.get(first)
                or getattr(vm, first, None)
                or vars(testing).get(first)
                or getattr(vmfsm, first)
            )
            for name in names:
                found = getattr(found, name)
            assert callable(found), call
        assert re.search(r"`[\w/]+\.py::test_\w+`", row.cells[-1]), row


@pytest.mark.parametrize("where", sorted(set(re.findall(r"`([\w/]+\.py::test_\w+)`", PAGE))))
def test_it_names_tests_that_there_are(where: str) -> None:
    file, _, name = where.partition("::")
    assert f"def {name}(" in (Path(__file__).parents[1] / file).read_text(encoding="utf-8")


# -- each of them hangs -------------------------------------------------------------------------------------


@pytest.fixture
def lab(qemu: str, tmp_path: Path) -> Iterator[Lab]:
    with guests(qemu) as make:
        yield Lab(make, tmp_path)


async def _await(awaitable: Any) -> Any:
    return await awaitable


def perform(call: Call, offer: object, timeout: float) -> object:
    result = call(offer, timeout)
    return asyncio.run(_await(result)) if inspect.isawaitable(result) else result


CASES = [(row, name) for row in WITH_TIMEOUT for name in row.calls]


@pytest.mark.parametrize(("row", "name"), CASES, ids=[name for _, name in CASES])
def test_it_ends_by_its_deadline(lab: Lab, row: Row, name: str) -> None:
    with HANGS[row.calls[0]](lab) as (vm, call):
        offer: Any = vm
        if vm is not None and not name.startswith("Machine."):
            for part in name.split(".")[:-1]:
                offer = getattr(offer, part)
        ended = InThread(perform, call, offer, TIMEOUT).join(600)
        assert type(ended.error).__name__ in row.raises
        if not isinstance(ended.error, AbnormalExit):
            late = ended.error.__cause__ if isinstance(ended.error, LaunchError) else ended.error
            assert isinstance(late, MachineTimeout)
            assert late.timeout == TIMEOUT
            assert ended.seconds >= TIMEOUT
        assert ended.seconds <= TIMEOUT + GRACE + SLACK
    if vm is not None:
        vm.kill()
        assert vm.state in {State.STOPPED, State.FAILED}
        assert vm.pid is None


# -- those without a timeout --------------------------------------------------------------------------------


def test_leaving_the_block_ends_by_the_deadline_of_shutdown(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = lab.running()
    stop_process(vm.pid)
    monkeypatch.setenv("VMFSM_TIMEOUT_SCALE", "0.02")
    leaving = InThread(vm.__exit__, None, None, None).join(600)
    assert isinstance(leaving.error, AbnormalExit)
    assert leaving.seconds <= 30 * 0.02 + GRACE + SLACK


@pytest.mark.parametrize("hook", ["pre_launch", "post_launch"])
def test_an_async_hook_ends_by_the_deadline_of_the_launch(lab: Lab, hook: str) -> None:
    endless = Endless()
    vm = lab.machine(plugins=(Async("endless", Journal(), **{hook: endless}),))
    timeout = TIMEOUT
    while True:
        launching = InThread(vm.launch, timeout).join(600)
        assert isinstance(launching.error, LaunchError)
        assert launching.seconds <= timeout + GRACE + SLACK
        if endless.begun.is_set():
            break
        timeout *= 2  # the machine is so busy that it was over before the hook had its turn
        assert timeout < 100
    assert endless.cancelled.is_set()


def test_a_companion_that_is_never_ready_ends_by_the_deadline_of_the_launch(lab: Lab) -> None:
    vm = lab.machine()
    never = lab.directory / "never"
    spoiler(vm).planning = lambda plan: plan.companion(["sleep", "1000"], ready=str(never))
    launching = InThread(vm.launch, TIMEOUT).join(600)
    assert isinstance(launching.error, LaunchError)
    assert launching.seconds <= TIMEOUT + GRACE + SLACK


def test_a_reader_of_a_console_ends_with_its_machine(lab: Lab) -> None:
    """It waits for the guest as a socket does; a timeout is its own to set."""
    vm = lab.stopped()
    with vm.console.file("r") as file, vm.console.socket() as end:
        end.settimeout(TIMEOUT)
        assert isinstance(InThread(all, iter(lambda: end.recv(1000), b"")).join(600).error, TimeoutError)
        reading = InThread(file.read)
        vm.kill()
        assert "ready" in reading.result()


@pytest.fixture
def stuck(lab: Lab) -> Iterator[Machine]:
    """A machine whose QEMU is stopped, with an I/O thread that is held up."""
    vm, over = lab.stopped(), threading.Event()
    IOThread.get().post(over.wait, 600)
    try:
        yield vm
    finally:
        over.set()


def test_what_never_waits_is_over_whatever_is_held_up(stuck: Machine) -> None:
    arguments: dict[str, list[Any]] = {
        "Machine.deadline": [1],
        "Machine.note": ["a word"],
        "Machine.note_failure": ["a word"],
        "Machine.plugin": ["qmp"],
        "Machine.trace": ["a step"],
        "console.since": [stuck.console.mark()],
        "verdicts.allowed": ["any"],
    }

    def use_all() -> list[str]:
        used = []
        for name in names(NEVER_WAIT):
            owner, _, member = name.rpartition(".")
            place = {"Machine": stuck, "registry": registry}.get(owner) or getattr(stuck, owner)
            found = getattr(place, member)
            if inspect.isroutine(found):
                found(*arguments.get(name, []))
            used.append(name)
        return used

    assert InThread(use_all).result() == names(NEVER_WAIT)


def test_a_callback_that_holds_up_the_io_thread(lab: Lab) -> None:
    """Nothing can be done on that thread then; calls end all the same."""
    vm, go, began = lab.running(), threading.Event(), threading.Event()

    def block(event: object) -> None:
        began.set()
        assert go.wait(600)

    vm.qmp.subscribe(block)
    stopping = InThread(vm.qmp.execute, "stop", timeout=TIMEOUT)
    try:
        assert began.wait(600)
        call = InThread(vm.qmp.execute, "query-status", timeout=TIMEOUT).join(600)
        assert isinstance(call.error, MachineTimeout)
        assert call.seconds <= TIMEOUT + GRACE + SLACK
        stopping.join(600)
    finally:
        go.set()
