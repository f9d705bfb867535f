"""`docs/waiting.md` has every public call that can wait; each is hung there, and ends by its deadline."""

import asyncio
import inspect
import re
import threading
from collections.abc import Callable, Iterator
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

TIMEOUT = 0.2
SLACK = 20.0
"""Seconds beside the bound: on a machine that is busy, too, it is far from never."""
PAGE = (Path(__file__).parents[2] / "docs" / "waiting.md").read_text(encoding="utf-8")
MODULES = {"qemu_img": qemu_img, "registry": registry, "testing": testing}
NO_WAIT = {"Deadline": "it is what bounds others"}
"""Has a `timeout`, and never waits."""


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


def public_callables() -> Iterator[tuple[str, Callable[..., Any]]]:
    owners: list[tuple[str, type | ModuleType]] = [(name, kind) for name, two in offered() for kind in two]
    owners += [("", vmfsm), *MODULES.items()]
    owners += [
        (name, member)
        for module in (vmfsm, *MODULES.values())
        for name, member in inspect.getmembers(module, inspect.isclass)
        if name in getattr(module, "__all__", ())
    ]
    for owner, kind in owners:
        public = getattr(kind, "__all__", None)
        for name, member in inspect.getmembers(kind, callable):
            if (name in public) if public is not None else not name.startswith("_"):
                yield f"{owner}.{name}".lstrip("."), member


def has_timeout(function: Callable[..., Any]) -> bool:
    try:
        return "timeout" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # what is written in C
        return False


def test_every_call_with_a_timeout_has_a_row_and_every_row_such_a_call() -> None:
    found = {name for name, function in public_callables() if has_timeout(function)} - set(NO_WAIT)
    listed = [name for row in WITH_TIMEOUT for name in row.calls]
    assert len(found) > 50
    assert sorted(listed) == sorted(found)


def test_every_row_is_hung() -> None:
    assert {row.calls[0] for row in WITH_TIMEOUT} == set(HANGS)


def test_what_waits_without_a_timeout_is_there() -> None:
    vm = Machine("qemu-system-x86_64")
    places: dict[str, object] = {"Machine": Machine, **MODULES}
    assert WITHOUT
    for row in WITHOUT:
        for call in row.calls:
            first, *names = call.split(".")
            found = places.get(first) or getattr(vm, first, None) or getattr(testing, first)
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
