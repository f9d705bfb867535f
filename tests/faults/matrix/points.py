"""The points: where a call of the lifecycle waits, and how it is brought there. As data.

Those while the machine runs are those of `hanging.py`, all of them.
"""

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any, NamedTuple

import pytest

from tests.endings import spoiler, until_guest_is_up
from tests.faults.hanging import HANGS
from tests.faults.matrix.faults import By, Effect, Fault
from tests.faults.matrix.scene import HERE, UP, Hook, MatrixLab, Scene
from tests.faults.test_waiting_points import CASES
from tests.waiting import InThread
from vmfsm import LaunchPlan, Machine, State
from vmfsm.testing import FakeQEMU
from vmfsm.testing import actions as do
from vmfsm.testing.actions import Action


class Kind(Enum):
    """What kind of call waits, and for whom."""

    LAUNCH = "launch, for QEMU"
    LAUNCH_HOOK = "launch, for a hook or a companion"
    CALL = "a call of a machine that runs"
    TOOL = "a call without a machine"
    STOP = "shutdown, for QEMU"
    STOP_HOOK = "shutdown or kill, for a hook"


Stage = Callable[["Point", MatrixLab], contextlib.AbstractContextManager[Scene]]


class Point(NamedTuple):
    """:param prepare: gets everything ready, up to the call."""

    name: str
    kind: Kind
    prepare: Stage
    at: str = ""
    """Where a `FakeQEMU` gets its orders: one of its points, or a command."""
    hook: str = ""
    is_async: bool = False
    with_qemu: bool = True
    """QEMU is alive there."""


PLACES = {"start", "greeting", "sigterm"}
"""Points of a `FakeQEMU` that are no commands."""


def _orders(point: Point, fault: Fault) -> dict[str, Any]:
    """What a `FakeQEMU` is told; without a fault of its own it says nothing there, and so waits."""
    planned = fault.orders if fault.by is By.FAKE else ()
    if fault.by is not By.FAKE and fault.effect is Effect.GOES_ON:
        planned = (do.wait(0.2), do.as_qemu())
    if point.at == "start" and not planned:
        planned = (do.hold(),)  # else it goes on
    actions = [do.output(f"{HERE}\n")]
    for action in planned:
        actions += ANSWERS.get(point.at, [action]) if action.name == "as_qemu" else [action]
    orders: dict[str, Any] = {"ready": [do.say(UP)], **fault.settings}
    on = {**ANSWERS, **orders.get("on", {})}
    if point.at in PLACES:
        orders[point.at] = actions
    else:
        on[point.at] = actions
    if point.at == "sigterm":
        on["quit"] = []
    return {**orders, "on": on}


@contextlib.contextmanager
def _faking(lab: MatrixLab, orders: Mapping[str, Any]) -> Iterator[None]:
    with FakeQEMU(**orders) as fake:
        lab.run_as_qemu(fake.binary)
        lab.fake = fake
        yield


def _is_real(fault: Fault) -> bool:
    """It needs a real QEMU, and nobody who does something when the point is reached."""
    return fault.by in {By.WRAPPER, By.HOST}


def _is_there(vm: Machine) -> Callable[[], bool]:
    return lambda: HERE in vm.log.text


# -- launch -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _launching(point: Point, lab: MatrixLab) -> Iterator[Scene]:
    vm = lab.machine(base_dir=lab.full_disk() if lab.fault.full_disk else None)
    if _is_real(lab.fault):
        yield Scene(lab, vm.launch, vm, lambda: True)
        return
    with _faking(lab, _orders(point, lab.fault)):
        yield Scene(lab, vm.launch, vm, _is_there(vm))


@contextlib.contextmanager
def _launching_with_hook(point: Point, lab: MatrixLab) -> Iterator[Scene]:
    hook = Hook(is_async=point.is_async)
    vm = lab.machine(plugins=[hook.plugin(point.hook)])
    yield Scene(lab, vm.launch, vm, hook.begun.is_set, hook)


@contextlib.contextmanager
def _launching_with_companion(point: Point, lab: MatrixLab) -> Iterator[Scene]:
    vm = lab.machine()
    never = str(lab.directory / "never")

    def planning(plan: LaunchPlan) -> None:
        lab.companions.append(plan.companion(["sleep", "1000"], name="helper", ready=never))

    spoiler(vm).planning = planning
    yield Scene(lab, vm.launch, vm, lambda: lab.companions and lab.companions[-1].pid)


# -- a machine that runs ------------------------------------------------------------------------------------

COMMANDS: dict[str, str] = {
    **dict.fromkeys(("qmp.execute", "qmp.execute_raw", "qmp.execute_oob"), "query-version"),
    **dict.fromkeys(("qmp.execute_with_fd", "fds.send"), "getfd"),
    "fds.add": "add-fd",
    **{f"snapshots.{call}": "query-block" for call in ("save", "load", "delete", "list", "external")},
    "migration.progress": "query-migrate",
    "qmp.gdbstub": "query-chardev",
}
"""By call, the first command that it has QEMU execute, where no launch has that executed as well."""
ANSWERS: dict[str, tuple[Action, ...]] = {
    "getfd": (do.reply(),),
    "add-fd": (do.reply({"fdset-id": 0, "fd": 9}),),
    "query-block": (do.reply([]),),
    "query-named-block-nodes": (do.reply([]),),
    "query-migrate": (do.reply({}),),
    "query-chardev": (do.reply([{"label": "gdb", "filename": "unix:/there/already,server=on"}]),),
}
"""What a real QEMU answers, where a `FakeQEMU` does not know the command."""
BEFOREHAND = "x-fault"
"""A command that is in QEMU's socket already when the call's comes there."""


def base(call: str) -> str:
    """Without the mark of the twin."""
    return call.replace(".aio.", ".")


async def _await(awaitable: Any) -> Any:
    return await awaitable


def _performing(call: Callable[[Any, float], Any], offer: Any) -> Callable[[float], Any]:
    def perform(timeout: float) -> Any:
        result = call(offer, timeout)
        return asyncio.run(_await(result)) if inspect.isawaitable(result) else result

    return perform


@contextlib.contextmanager
def _hanging(point: Point, lab: MatrixLab) -> Iterator[Scene]:
    """Its QEMU is stopped; what is to come of it waits in its sockets."""
    with contextlib.ExitStack() as stack:
        fault = lab.fault
        if fault.by is By.FAKE:
            at = COMMANDS.get(base(point.name), "") if fault.of_reply else BEFOREHAND
            orders = _orders(point._replace(at=at), fault)
            stack.enter_context(_faking(lab, orders))
        vm, call = stack.enter_context(HANGS[base(point.name)](lab))
        offer: Any = vm
        if vm is not None and not point.name.startswith("Machine."):
            for part in point.name.split(".")[:-1]:
                offer = getattr(offer, part)
        busy = _is_busy(vm) if vm is not None and fault.effect is not Effect.LACKS else lambda: True
        scene = Scene(lab, _performing(call, offer), vm, busy, hung=vm is not None)
        if vm is None:
            scene.reached = scene.victims
        elif fault.by is By.FAKE and not fault.of_reply:
            assert lab.victim is not None
            scene.beside.append(InThread(lab.victim.qmp.execute_raw, BEFOREHAND, timeout=600))
            _until_asked(lab.victim, BEFOREHAND)
        elif fault.by is By.GUEST:
            assert lab.victim is not None
            lab.victim.console.sendline(fault.line or "")
        yield scene


def _until_asked(vm: Machine, command: str) -> None:
    from tests.waiting import until

    until(lambda: any(record.data.get("command") == command for record in vm.timeline))


def _is_busy(vm: Machine) -> Callable[[], bool]:
    def is_busy() -> bool:
        assert vm._launch is not None
        return any(BEFOREHAND not in call.operation for call in tuple(vm._launch.calls.in_progress))

    return is_busy


# -- the end ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _ending(point: Point, lab: MatrixLab) -> Iterator[Scene]:
    with contextlib.ExitStack() as stack:
        is_real = _is_real(lab.fault)
        if not is_real:
            stack.enter_context(_faking(lab, _orders(point, lab.fault)))
        vm = lab.running()
        guest = point.at == "system_powerdown"

        def shut_down(timeout: float) -> None:
            if point.name.startswith("with"):
                with pytest.MonkeyPatch.context() as patch:
                    patch.setenv("VMFSM_TIMEOUT_SCALE", str(timeout / 30))
                    vm.__exit__(None, None, None)
            else:
                vm.shutdown(guest=guest, timeout=timeout)

        yield Scene(lab, shut_down, vm, (lambda: True) if is_real else _is_there(vm))


@contextlib.contextmanager
def _ending_with_hook(point: Point, lab: MatrixLab) -> Iterator[Scene]:
    hook = Hook(is_async=point.is_async)
    vm = lab.machine(plugins=[hook.plugin(point.hook)]).launch()
    until_guest_is_up(vm)
    call = vm.kill if point.name.startswith("kill") else lambda timeout: vm.shutdown(timeout=timeout)
    yield Scene(lab, call, vm, hook.begun.is_set, hook)


# -- all of them --------------------------------------------------------------------------------------------


def _hooks() -> Iterator[Point]:
    for call, kind, prepare, hooks in (
        ("launch", Kind.LAUNCH_HOOK, _launching_with_hook, ("pre_launch", "post_launch")),
        ("shutdown", Kind.STOP_HOOK, _ending_with_hook, ("early_cleanup", "post_shutdown", "defer")),
        ("kill", Kind.STOP_HOOK, _ending_with_hook, ("early_cleanup", "post_shutdown")),
    ):
        for hook in hooks:
            with_qemu = hook in {"post_launch", "early_cleanup"} and call != "kill"
            for is_async in (False, True) if hook != "defer" else (False,):
                name = f"{call}: {hook}" + (" (async)" if is_async else "")
                yield Point(name, kind, prepare, hook=hook, is_async=is_async, with_qemu=with_qemu)


WITHOUT_MACHINE = {name for name in HANGS if name.startswith("qemu_img.") or name == "capabilities"}
ELSEWHERE = {"Machine.launch": "launch: …", "Machine.shutdown": "shutdown: …", "Machine.kill": "kill: …"}
"""Calls of `hanging.py` whose points are those of their stages."""
FOR_PEOPLE = {"Machine.wait_released"}
"""Those that wait for nothing that a fault could hit."""
NEVER_FAIL = {"Machine.bundle", "Machine.abundle"}
"""Those that a fault only leaves less to tell: `tests/faults/test_bundle_trouble.py`."""

_ALL = [
    Point("launch: spawn", Kind.LAUNCH, _launching, at="start"),
    Point("launch: greeting", Kind.LAUNCH, _launching, at="greeting"),
    Point("launch: negotiation", Kind.LAUNCH, _launching, at="qmp_capabilities"),
    Point("launch: run state", Kind.LAUNCH, _launching, at="query-status"),
    Point("launch: companion", Kind.LAUNCH_HOOK, _launching_with_companion, with_qemu=False),
    *_hooks(),
    *(
        Point(name, Kind.TOOL if name in WITHOUT_MACHINE else Kind.CALL, _hanging)
        for _, name in CASES
        if name not in {*ELSEWHERE, *FOR_PEOPLE, *NEVER_FAIL}
    ),
    Point("shutdown: guest", Kind.STOP, _ending, at="system_powerdown"),
    Point("shutdown: quit", Kind.STOP, _ending, at="quit"),
    Point("shutdown: SIGTERM", Kind.STOP, _ending, at="sigterm"),
    Point("with: quit", Kind.STOP, _ending, at="quit"),
]
POINTS = {point.name: point for point in _ALL}

FINAL = {State.STOPPED, State.FAILED}
