"""Many machines in one process: they neither disturb each other nor cost threads."""

import os
import signal
import threading

from vmfsm_plugins.qmp import QMP

from tests.conftest import MakeMachine
from tests.endings import assert_ended, assert_path, guests, send, until_guest_is_up
from tests.waiting import InThread, until
from vmfsm import AbnormalExit, Machine, MachineDied, Reason, State

HUNDRED = 100


def threads() -> int:
    """As the kernel counts them."""
    return len(os.listdir("/proc/self/task"))


def descriptors() -> dict[str, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # that of this very listing
            continue
    return found


class Waiting:
    """A wait for an event in a thread, which stays, to be counted."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._counted = threading.Event()
        self._thread = InThread(self._wait)

    def _wait(self) -> None:
        try:
            self._machine.qmp.wait_event("DEVICE_DELETED", timeout=120)
        finally:
            assert self._counted.wait(120)

    def end(self) -> BaseException | None:
        """What it raised."""
        self._counted.set()
        return self._thread.join().error


def test_eight_from_eight_threads(qemu: str) -> None:
    """Each thread has a machine with a guest of its own, from launch to shutdown."""
    with guests(qemu) as make:
        barrier = threading.Barrier(8)

        def live(vm: Machine) -> int | None:
            barrier.wait(30)
            for word in ("one", "two"):
                vm.launch(120)
                until_guest_is_up(vm)
                vm.console.sendline(f"{vm.name} {word}")
                vm.console.expect(f"echo: {vm.name} {word}")
                assert vm.qmp.execute("query-name")["name"] == vm.name
                vm.shutdown()
            return vm.exit_status

        machines = [make(name=f"m{number}", more=["-name", f"m{number}"]) for number in range(8)]
        living = [InThread(live, vm) for vm in machines]
        assert [thread.result(200) for thread in living] == [0] * 8
        for vm in machines:
            assert_ended(vm, State.STOPPED, Reason.REQUESTED, 0)
            assert [t.reason for t in vm.history if t.dest is State.STOPPED] == [Reason.REQUESTED] * 2
            assert set(vm.console.text.split()) & {other.name for other in machines} <= {vm.name}


def test_a_hundred_that_die_at_once(bare: MakeMachine) -> None:
    """All are cleaned up after, without a thread more; who waits for one of them is told."""
    with bare(QMP()).launch() as first:  # what stands for as long as the process comes into being
        first.qmp.execute("query-status")
    threads_before, descriptors_before = threads(), descriptors()
    machines = [bare(QMP()).launch(120) for _ in range(HUNDRED)]
    assert len({vm.pid for vm in machines}) == HUNDRED
    watched = machines[0], machines[-1]
    waits = [Waiting(vm) for vm in watched]
    until(lambda: all(vm._launch and vm._launch.calls.in_progress for vm in watched))
    most_threads = threads()

    for vm in machines:
        send(vm.pid, signal.SIGKILL)

    def over() -> bool:
        nonlocal most_threads
        most_threads = max(most_threads, threads())
        return all(vm.state is State.FAILED for vm in machines)

    until(over, 120)
    assert most_threads == threads_before + len(waits)
    for vm in machines:
        assert_ended(vm, State.FAILED, Reason.QEMU_SIGNAL, -signal.SIGKILL)
        assert_path(vm)
    for wait in waits:
        assert isinstance(wait.end(), MachineDied)
    until(lambda: (threads(), descriptors()) == (threads_before, descriptors_before))
    for vm in machines:
        error = InThread(vm.shutdown).join().error
        assert isinstance(error, AbnormalExit)
        assert error.machine == vm.name
