"""A QEMU that the kernel kills for memory, in a control group with a limit."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.endings import TIMEOUT, MakeGuest, assert_ended, guests, send, until_guest_is_up
from tests.waiting import until
from vmfsm import AbnormalExit, MachineDied, Reason, State


@pytest.fixture
def guest(qemu: str) -> Iterator[MakeGuest]:
    """Makes machines with the tiny guest."""
    with guests(qemu) as make:
        yield make


class MemoryGroup:
    """A control group with a limit on memory, of either version of `cgroups(7)`."""

    LIMIT = 192 << 20

    def __init__(self) -> None:
        self.path = self._make()

    def _make(self) -> Path:
        tried = []
        for parent, limit, others in self._places():
            path = parent / f"vmfsm-test-{os.getpid()}"
            try:
                path.mkdir()
            except OSError as error:
                tried.append(str(error))
                continue
            try:
                (path / limit).write_text(str(self.LIMIT))
                for other, value in others.items():
                    with contextlib.suppress(OSError):  # there is no accounting of swap
                        (path / other).write_text(value)
            except OSError as error:
                path.rmdir()
                tried.append(str(error))
            else:
                return path
        pytest.skip(
            f"no control group with a limit on memory can be made: {'; '.join(tried) or 'no cgroups'}"
        )

    @classmethod
    def _places(cls) -> Iterator[tuple[Path, str, dict[str, str]]]:
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            number, controllers, own = line.split(":", 2)
            if "memory" in controllers.split(","):
                root = Path("/sys/fs/cgroup/memory")
                for parent in (root / own.lstrip("/"), root):
                    yield parent, "memory.limit_in_bytes", {"memory.memsw.limit_in_bytes": str(cls.LIMIT)}
            elif number == "0":
                # A group with processes in it has no groups with controllers below it: try beside it, too.
                place = Path("/sys/fs/cgroup", own.lstrip("/"))
                for parent in dict.fromkeys((place, place.parent, Path("/sys/fs/cgroup"))):
                    if parent.is_relative_to("/sys/fs/cgroup"):
                        yield parent, "memory.max", {"memory.swap.max": "0"}

    @property
    def wrapper(self) -> list[str]:
        return ["sh", "-c", 'echo $$ > "$0/cgroup.procs"; exec "$@"', str(self.path)]

    def remove(self) -> None:
        def removed() -> bool:
            try:
                self.path.rmdir()
            except OSError:
                return False
            return True

        until(removed)


@pytest.fixture
def memory_group() -> Iterator[MemoryGroup]:
    group = MemoryGroup()
    yield group
    group.remove()


def test_out_of_memory(memory_group: MemoryGroup, guest: MakeGuest) -> None:
    vm = guest(wrapper=memory_group.wrapper).launch()
    try:
        until_guest_is_up(vm)
        size = 4 * memory_group.LIMIT
        with pytest.raises(MachineDied) as died:
            vm.qmp.execute("object-add", qom_type="memory-backend-ram", id="big", size=size, prealloc=True)
        assert died.value.reason is Reason.OOM_KILLED
        with pytest.raises(AbnormalExit, match="oom-killed") as caught:
            vm.wait(TIMEOUT)
        assert (caught.value.exit_status, caught.value.reason) == (-signal.SIGKILL, Reason.OOM_KILLED)
        assert_ended(vm, State.FAILED, Reason.OOM_KILLED, -signal.SIGKILL)
    finally:
        vm.kill()


def test_a_kill_in_a_limited_group_is_not_for_memory(memory_group: MemoryGroup, guest: MakeGuest) -> None:
    vm = guest(wrapper=memory_group.wrapper).launch()
    send(vm.pid, signal.SIGKILL)
    with pytest.raises(AbnormalExit, match="SIGKILL"):
        vm.wait(TIMEOUT)
    assert_ended(vm, State.FAILED, Reason.QEMU_SIGNAL, -signal.SIGKILL)
