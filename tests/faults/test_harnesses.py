"""Harnesses of other kinds: with an event loop, with threads, spread over processes.

Those that fork are in `test_fork.py`, those that die in `test_ownership.py`; what they do to children is
in `test_exit_status.py`.
"""

import asyncio
import sys

import pytest

from tests.endings import MakeGuest, assert_ended, until_guest_is_up
from tests.waiting import InThread, until
from vmfsm import MachineDied, Reason, State, registry


async def status_of(*command: str) -> int | None:
    process = await asyncio.create_subprocess_exec(*command)
    return await process.wait()


def test_calls_that_wait_inside_a_coroutine(guest: MakeGuest) -> None:
    """They stop the harness's loop, as anything that waits does, and nothing else."""

    async def harness() -> None:
        with guest() as vm:
            vm.launch()
            vm.console.expect("ready")
            assert await vm.qmp.aio.execute("query-name") == vm.qmp.execute("query-name")
        assert_ended(vm, State.STOPPED, Reason.REQUESTED, 0)

    asyncio.run(harness())


def test_threads_beside_a_loop_with_children_of_its_own(guest: MakeGuest) -> None:
    """Nobody takes the other's statuses."""
    machines = [guest() for _ in range(2)]

    async def live(number: int) -> None:
        vm = machines[number]
        await asyncio.to_thread(vm.launch)
        await vm.console.aio.expect("ready")
        await vm.console.aio.sendline(f"exit {number + 1}")
        with pytest.raises(MachineDied):
            await vm.qmp.aio.wait_event("STOP", timeout=600)

    async def harness() -> list[int | None]:
        *_, first, second = await asyncio.gather(
            live(0),
            live(1),
            status_of(sys.executable, "-c", "raise SystemExit(11)"),
            status_of("sh", "-c", "kill -9 $$"),
        )
        return [first, second]

    assert asyncio.run(harness()) == [11, -9]
    for number, vm in enumerate(machines):
        assert_ended(vm, State.FAILED, Reason.QEMU_EXIT, 2 * (number + 1) + 1)


def test_a_cancelled_task_leaves_its_machine_alone(guest: MakeGuest) -> None:
    vm = guest().launch()

    async def harness() -> None:
        waiting = asyncio.create_task(vm.console.aio.expect("never", timeout=600))
        await vm.console.aio.expect("ready")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(harness())
    vm.shutdown()
    assert_ended(vm, State.STOPPED, Reason.REQUESTED, 0)


def test_each_call_in_a_thread_of_its_own(guest: MakeGuest) -> None:
    """All of these have ended when the next one begins, and so has the one that launched it."""
    vm = guest()
    InThread(vm.launch).result()
    InThread(until_guest_is_up, vm).result()
    pid = vm.pid
    assert InThread(vm.qmp.execute, "query-status").result()["status"] == "running"
    InThread(vm.shutdown).result()
    InThread(vm.launch).result()
    assert vm.pid not in {pid, None}
    InThread(vm.kill).result()
    assert_ended(vm, State.STOPPED, Reason.KILLED, -9)


XDIST = """
import os
import pytest
from vmfsm import Machine, Reason, State, registry
from vmfsm.testing import GUEST_ARGS

@pytest.fixture
def vm():
    with Machine("qemu-system-x86_64", GUEST_ARGS, name=f"xdist-{os.getpid()}") as machine:
        machine.launch()
        machine.console.expect("ready")
        yield machine

@pytest.mark.parametrize("number", range(4))
def test_a_conversation(vm, number):
    for n in range(5):
        vm.console.sendline(f"{number}-{n}")
        vm.console.expect(f"echo: {number}-{n}")
    assert vm.qmp.execute("query-status")["status"] == "running"
    mine = [entry for entry in registry.machines() if entry.harness.pid == os.getpid()]
    assert vm.pid in [entry.pid for entry in mine]

def test_a_crash(vm):
    os.kill(vm.pid, 9)
    with pytest.raises(Exception) as caught:
        vm.console.expect("never", timeout=600)
    assert caught.value.reason is Reason.QEMU_SIGNAL
    with pytest.raises(Exception):
        vm.wait()

left = []

@pytest.mark.parametrize("number", range(2))
def test_one_that_is_left(number):
    left.append(Machine("qemu-system-x86_64", GUEST_ARGS, name=f"left-{number}").launch())

def test_one_that_kills_its_worker():
    left.append(Machine("qemu-system-x86_64", GUEST_ARGS, name="left-2").launch())
    if os.environ.get("PYTEST_XDIST_WORKER"):
        os.kill(os.getpid(), 9)
"""


def test_under_xdist(qemu: str, pytester: pytest.Pytester) -> None:
    """Workers do not get in each other's way, and leave nothing, not even one that is killed."""
    pytester.makepyfile(XDIST)
    before = {entry.mark for entry in registry.machines()}
    ran = pytester.runpytest_subprocess("-n", "2", "-p", "no:cacheprovider", timeout=120)
    ran.assert_outcomes(passed=7, failed=1)
    ran.stdout.fnmatch_lines(["*worker*crashed while running*test_one_that_kills_its_worker*"])
    until(lambda: {entry.mark for entry in registry.machines()} <= before)
