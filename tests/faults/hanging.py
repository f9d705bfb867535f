"""Public calls that wait, and what keeps each of them waiting: a real process that does not go on."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.endings import be_silent, send, spoiler, stop_process, until_guest_is_up
from tests.hooked import Blocked, Journal, Plain, released
from tests.posing import HANG, Posing
from tests.waiting import until
from vmfsm import Machine, capabilities, qemu_img
from vmfsm.iothread import IOThread

MUCH = 5_000_000
"""More bytes than any socket takes."""

Call = Callable[[Any, float], Any]
Make = Callable[..., Machine]


class Lab:
    """Where the calls hang: makes what is needed for one."""

    def __init__(self, make: Make, directory: Path) -> None:
        self._make = make
        self.directory = directory

    def machine(self, name: str = "vm", *more: str, **parameters: Any) -> Machine:
        """Not launched. Its monitor can be connected to again."""
        options = {"qmp": {"address": str(self.directory / f"{name}.qmp")}}
        return self._make(name=name, more=more, options=options, **parameters)

    def running(self, name: str = "vm") -> Machine:
        vm = self.machine(name).launch()
        until_guest_is_up(vm)
        return vm

    def stopped(self) -> Machine:
        """Its QEMU answers nothing, and reads nothing."""
        vm = self.running()
        self.stop(vm)
        return vm

    def stop(self, vm: Machine) -> None:
        """Its QEMU does not go on."""
        stop_process(vm.pid)

    def destination(self) -> Machine:
        return self.machine("destination", "-incoming", "defer", expected_exits=(0, 1)).launch()

    def stopped_destination(self) -> Machine:
        vm = self.destination()
        self.stop(vm)
        return vm

    def migrating(self) -> Machine:
        """A source that is stopped in the middle of it."""
        vm, other = self.running(), self.destination()
        hold = {"capability": "pause-before-switchover", "state": True}
        vm.qmp.execute("migrate-set-capabilities", capabilities=[hold])
        vm.migration.start(other)
        until(lambda: vm.migration.progress().status == "pre-switchover")
        self.stop(vm)
        return vm

    def file(self, name: str, text: str = "", mode: int = 0o600) -> Path:
        path = self.directory / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def slow_tool(self) -> Path:
        return self.file("tool", "#!/bin/sh\nsleep 1000 & wait\n", 0o700)


Hang = Callable[[Lab], contextlib.AbstractContextManager[tuple[Machine | None, Call]]]
"""Makes ready what hangs: the machine, and what to call, with an offer (or the machine) and seconds."""


def _on(prepare: Callable[[Lab], Machine], call: Callable[[Lab, Any, float], Any]) -> Hang:
    @contextlib.contextmanager
    def hang(lab: Lab) -> Iterator[tuple[Machine | None, Call]]:
        yield prepare(lab), lambda offer, timeout: call(lab, offer, timeout)

    return hang


def _stopped(call: Callable[[Any, float], Any]) -> Hang:
    return _on(Lab.stopped, lambda lab, offer, timeout: call(offer, timeout))


def _without_machine(call: Callable[[Lab, float], Any]) -> Hang:
    @contextlib.contextmanager
    def hang(lab: Lab) -> Iterator[tuple[Machine | None, Call]]:
        yield None, lambda offer, timeout: call(lab, timeout)

    return hang


def _held(lab: Lab) -> Machine:
    vm = lab.running()
    vm.hold()
    return vm


def _silent(lab: Lab) -> Machine:
    vm = lab.machine()
    spoiler(vm).planning = be_silent
    return vm


@contextlib.contextmanager
def _in_a_hook_elsewhere(lab: Lab) -> Iterator[tuple[Machine | None, Call]]:
    """A plain hook that blocks in a thread of the framework's: no thread can be ended from outside."""
    blocked = Blocked()
    vm = lab.machine(plugins=[Plain("blocking", Journal(), post_shutdown=blocked)])
    vm.launch()
    with released(blocked):
        send(vm.pid, signal.SIGKILL)
        assert blocked.began.wait(600)
        yield vm, lambda machine, timeout: machine.kill(timeout)


async def _never() -> None:
    await asyncio.get_running_loop().create_future()


def _held_up(call: Callable[[Machine, Lab, float], Any]) -> Hang:
    """The I/O thread, by what somebody has it do."""

    @contextlib.contextmanager
    def hang(lab: Lab) -> Iterator[tuple[Machine | None, Call]]:
        vm, over = lab.running(), threading.Event()
        IOThread.get().post(over.wait, 600)
        try:
            yield vm, lambda machine, timeout: call(machine, lab, timeout)
        finally:
            over.set()

    return hang


def _to_other(call: Callable[[Any, Machine, float], Any]) -> Hang:
    @contextlib.contextmanager
    def hang(lab: Lab) -> Iterator[tuple[Machine | None, Call]]:
        other = lab.stopped_destination()
        yield lab.running(), lambda migration, timeout: call(migration, other, timeout)

    return hang


EVENT = "RTC_CHANGE"
ANY = [(EVENT, None), ("WATCHDOG", None)]


def _expect_a_verdict(verdicts: Any, timeout: float) -> None:
    with verdicts.expected("kernel-panic", timeout=timeout):
        pass


HANGS: dict[str, Hang] = {
    "Machine.launch": _on(_silent, lambda lab, vm, t: vm.launch(t)),
    "Machine.shutdown": _stopped(lambda vm, t: vm.shutdown(timeout=t)),
    "Machine.kill": _in_a_hook_elsewhere,
    "Machine.wait": _stopped(lambda vm, t: vm.wait(t)),
    "Machine.run": _stopped(lambda vm, t: vm.run(_never(), timeout=t, operation="nothing")),
    "Machine.arun": _stopped(lambda vm, t: vm.arun(_never(), timeout=t, operation="nothing")),
    "Machine.bundle": _held_up(lambda vm, lab, t: vm.bundle(lab.directory, timeout=t)),
    "Machine.wait_released": _on(_held, lambda lab, vm, t: vm.wait_released(t)),
    "qmp.execute": _stopped(lambda qmp, t: qmp.execute("query-version", timeout=t)),
    "qmp.execute_raw": _stopped(lambda qmp, t: qmp.execute_raw("query-version", timeout=t)),
    "qmp.execute_oob": _stopped(lambda qmp, t: qmp.execute_oob("query-version", timeout=t)),
    "qmp.execute_with_fd": _stopped(
        lambda qmp, t: qmp.execute_with_fd(0, "getfd", fdname="theirs", timeout=t)
    ),
    "qmp.wait_event": _stopped(lambda qmp, t: qmp.wait_event(EVENT, timeout=t)),
    "qmp.wait_any": _stopped(lambda qmp, t: qmp.wait_any(ANY, timeout=t)),
    "qmp.reconnect": _stopped(lambda qmp, t: qmp.reconnect(t)),
    "qmp.gdbstub": _stopped(lambda qmp, t: qmp.gdbstub(t)),
    "console.expect": _stopped(lambda console, t: console.expect("pong", timeout=t)),
    "console.send": _stopped(lambda console, t: console.send(b"x" * MUCH, timeout=t)),
    "console.sendline": _stopped(lambda console, t: console.sendline("x" * MUCH, timeout=t)),
    "fds.add": _stopped(lambda fds, t: fds.add("/dev/null", timeout=t)),
    "fds.send": _stopped(lambda fds, t: fds.send("/dev/null", "null", timeout=t)),
    "log.follow": _stopped(lambda log, t: list(log.follow(timeout=t))),
    "snapshots.save": _stopped(lambda snapshots, t: snapshots.save("one", timeout=t)),
    "snapshots.load": _stopped(lambda snapshots, t: snapshots.load("one", timeout=t)),
    "snapshots.delete": _stopped(lambda snapshots, t: snapshots.delete("one", timeout=t)),
    "verdicts.expected": _stopped(_expect_a_verdict),
    "snapshots.list": _stopped(lambda snapshots, t: snapshots.list(timeout=t)),
    "snapshots.external": _on(
        Lab.stopped,
        lambda lab, snapshots, t: snapshots.external({"disk": lab.directory / "upper"}, timeout=t),
    ),
    "migration.to": _to_other(lambda migration, other, t: migration.to(other, timeout=t)),
    "migration.start": _to_other(lambda migration, other, t: migration.start(other, timeout=t)),
    "migration.wait": _on(Lab.migrating, lambda lab, migration, t: migration.wait(timeout=t)),
    "migration.cancel": _on(Lab.migrating, lambda lab, migration, t: migration.cancel(timeout=t)),
    "migration.progress": _stopped(lambda migration, t: migration.progress(timeout=t)),
    "migration.to_file": _on(
        Lab.stopped, lambda lab, migration, t: migration.to_file(lab.directory / "saved", timeout=t)
    ),
    "migration.from_file": _on(
        Lab.stopped_destination,
        lambda lab, migration, t: migration.from_file(lab.file("saved", "no state"), timeout=t),
    ),
    "qemu_img.create": _without_machine(
        lambda lab, t: qemu_img.create(lab.directory / "disk", "1M", binary=lab.slow_tool(), timeout=t)
    ),
    "qemu_img.overlay": _without_machine(
        lambda lab, t: qemu_img.overlay(
            lab.directory / "disk", lab.file("base"), binary=lab.slow_tool(), timeout=t
        )
    ),
    "qemu_img.info": _without_machine(
        lambda lab, t: qemu_img.info(lab.file("disk"), binary=lab.slow_tool(), timeout=t)
    ),
    "capabilities": _without_machine(
        lambda lab, t: capabilities(Posing(lab.directory, ["tcg"], on_help=HANG).path, timeout=t)
    ),
}
"""By call; of a plugin also for its twin under `aio`, which is called with the same."""
