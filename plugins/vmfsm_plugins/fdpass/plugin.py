"""Descriptors for QEMU: given at launch, or sent to a running one."""

import contextlib
import functools
import itertools
import threading
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple, TypeVar

from vmfsm import (
    ConfigError,
    Deadline,
    LaunchPlan,
    Machine,
    State,
    TransitionError,
    escape,
    hookimpl,
)

from .given import Descriptor, FDOrPath, Given, check_given, open_given
from .sending import Passed, Sending, to_add, to_send

T = TypeVar("T")

_LARGEST = 2**63 - 1
"""The largest number of a set (QMP reference, `add-fd`: an `int`)."""


_TOO_LATE = "too late for its command line, too early for its monitor"


class _Added(NamedTuple):
    """What is given to QEMU when it is started."""

    given: Given
    fdset: int
    opaque: str | None

    @property
    def name(self) -> str:
        return f"/dev/fdset/{self.fdset}"

    def put(self, plan: LaunchPlan, descriptor: Descriptor) -> None:
        """Have it inherited, or close it."""
        try:
            fd = plan.give(descriptor)
        except BaseException:
            descriptor.close()
            raise
        note = "" if self.opaque is None else f",opaque={escape(self.opaque)}"
        plan.args += ["-add-fd", f"fd={fd},set={self.fdset}{note}"]


class _Putting(NamedTuple):
    """What is to be given to the QEMU that is being launched."""

    given: Given
    put: Callable[[Descriptor], str]
    """What is done when it is open; the set's name."""


class FDPass:
    """`machine.fds`: descriptors for QEMU, those that were named and no others.

    From any thread. The calls wait only where QEMU is there: `timeout` is in seconds then, `None` for no
    limit, and they raise what `qmp.execute_with_fd` does, `MachineTimeout` and `MachineDied` among it. Each
    has a twin for coroutines under `aio`.

    QEMU's side of it: its manual, option `-add-fd`, and its QMP reference, `add-fd` and `getfd`.
    """

    name = "fdpass"
    before: ClassVar = ("*",)
    after: ClassVar = ("logs",)

    def __init__(self) -> None:
        self._machine: Machine | None = None
        self._lock = threading.Lock()
        """For what follows."""
        self._users_sets: set[int] = set()
        """The numbers of sets in the user's own arguments."""
        self._kept: list[_Added] = []
        """For every launch."""
        self._of_launch: list[_Added] = []
        """For the launch that is in progress."""
        self._plan: LaunchPlan | None = None
        """Of the launch that is in progress, since our hook was called."""
        self._passed = Passed()
        self.aio = AsyncFDs(self)
        """The twins of the calls, for coroutines on the I/O thread or in any other asyncio loop."""

    def __repr__(self) -> str:
        return f"<FDPass of {self._machine.name}>" if self._machine else "<FDPass>"

    def add(
        self,
        fd_or_path: FDOrPath,
        *,
        fdset: int | None = None,
        opaque: str | None = None,
        flags: int | None = None,
        timeout: float | None = 30,
    ) -> str:
        """Put a descriptor in a set; the set's name, `/dev/fdset/N`, for QEMU to open instead of a file.

        :param fd_or_path: an open descriptor, or what is to be opened.
        :param fdset: the number of the set; by default the lowest that is not in use. QEMU chooses from a set
            by access mode, so it may hold one descriptor for reading and one for reading and writing.
        :param opaque: a note that `query-fdsets` shows.
        :param flags: how to open a path, as of `os.open`; by default for reading and writing.
        :raises ConfigError: for what is wrong with any of these.
        :raises TransitionError: when it comes too late for the launch that is in progress and too early for
            its monitor.
        :raises OSError: where QEMU is there, and the path can't be opened.

        Where no launch is in progress it is for all later ones. A path is opened then at each launch, and a
        descriptor must still be open: it stays yours, and must not be closed before `launch` has returned. A
        launch fails when the path can't be opened, or the descriptor is open no more or on something else.
        In `pre_launch` it is for that launch. Where QEMU is there it is sent, and is for that QEMU.
        """
        Deadline(timeout)
        match self._add(fd_or_path, fdset, opaque, flags):
            case str() as name:
                return name
            case _Putting(given, put):
                return put(given.open())
            case sending:
                return self._run(sending, timeout)

    def send(self, fd_or_path: FDOrPath, name: str, *, timeout: float | None = 30) -> None:
        """Send a descriptor to the running QEMU, which knows it by `name` then (QMP `getfd`).

        A `name` that is in use gets the new descriptor, and QEMU closes the old one. A path is opened for
        reading and writing.

        :raises ConfigError: for what is neither an open descriptor nor a path, and for names that QEMU does
            not take: empty ones, and those that begin with a digit.
        :raises TransitionError: where there is no QEMU.
        :raises OSError: where the path can't be opened.
        """
        self._run(self._send(fd_or_path, name), timeout)

    # -- hooks ----------------------------------------------------------------------------------------------

    @hookimpl
    def configured(self, machine: Machine) -> None:
        self._machine = machine
        self._users_sets = _sets_in(machine.command)

    @hookimpl
    async def pre_launch(self, plan: LaunchPlan) -> None:
        with self._lock:
            self._passed.clear()
            self._plan = plan  # those that come from now on put themselves
            wanted = (*self._kept, *self._of_launch)
        for added in wanted:
            added.put(plan, await open_given(added.given))

    @hookimpl
    async def post_launch(self, machine: Machine) -> None:
        for added in (*self._kept, *self._of_launch):
            self._passed.add(machine, added.given, fdset=added.fdset)

    @hookimpl
    async def post_shutdown(self) -> None:
        with self._lock:
            self._plan = None
            self._of_launch.clear()

    @hookimpl
    def snapshot(self) -> dict[str, object]:
        return {"passed": self._passed.last()}

    # -- what the calls and their twins do ------------------------------------------------------------------

    def _add(
        self, fd_or_path: FDOrPath, fdset: int | None, opaque: str | None, flags: int | None
    ) -> str | _Putting | Sending[str]:
        """The set's name, or what is to be done for that."""
        given = check_given(fd_or_path, flags)
        _check_fdset(fdset)
        _check_text("opaque", opaque)
        with self._lock:  # so that the state is the same until our hook looks
            machine, plan = self._machine, self._plan
            state = State.CONFIGURED if machine is None else machine.state
            if state in {State.CONFIGURED, State.STOPPED, State.FAILED}:
                added = _Added(given, self._number(fdset, ()), opaque)
                self._kept.append(added)
                return added.name
            if state is State.LAUNCHING and (plan is None or not plan.spent):
                if plan is not None:
                    return _Putting(given, functools.partial(self._put, plan, given, fdset, opaque))
                added = _Added(given, self._number(fdset, ()), opaque)
                self._of_launch.append(added)
                return added.name
            if state is State.LAUNCHING and (machine is None or machine.pid is None):
                raise self._refused("fds.add", _TOO_LATE)
        assert machine is not None
        return to_add(machine, self._passed, given, fdset, opaque)

    def _put(
        self, plan: LaunchPlan, given: Given, fdset: int | None, opaque: str | None, descriptor: Descriptor
    ) -> str:
        """:raises TransitionError: where it took too long to open it."""
        with self._lock:
            if plan.spent:
                descriptor.close()
                raise self._refused("fds.add", _TOO_LATE)
            added = _Added(given, self._number(fdset, plan.args), opaque)
            added.put(plan, descriptor)
            if plan.spent:  # by another thread meanwhile: whether it was seen is not known
                raise self._refused("fds.add", _TOO_LATE)
            self._of_launch.append(added)
            return added.name

    def _number(self, fdset: int | None, args: Sequence[str]) -> int:
        if fdset is not None:
            return fdset
        used = {added.fdset for added in (*self._kept, *self._of_launch)} | self._users_sets | _sets_in(args)
        return next(number for number in itertools.count() if number not in used)

    def _send(self, fd_or_path: FDOrPath, name: str) -> Sending[None]:
        _check_text("name", name)
        if not name or name[0] in "0123456789":
            raise ConfigError(
                f"QEMU takes no name that is empty or begins with a digit: {name!r}", field="name"
            )
        given = check_given(fd_or_path)
        if self._machine is None or self._machine.pid is None:
            raise self._refused("fds.send", "there is no QEMU; fds.add is for what it is to be started with")
        return to_send(self._machine, self._passed, given, name)

    def _run(self, sending: Sending[T], timeout: float | None) -> T:
        assert self._machine is not None
        return self._machine.run(sending.carry_out(), timeout=timeout, operation=sending.operation)

    def _refused(self, call: str, why: str) -> TransitionError:
        machine = self._machine
        if machine is None:
            return TransitionError(f"{call}: {why}", event=call)
        return TransitionError(
            f"{machine.name}: {call} in state {machine.state.value}: {why}",
            event=call,
            machine=machine.name,
            state=machine.state,
        )


class AsyncFDs:
    """`machine.fds.aio`: the twins, with the contracts of `FDPass`."""

    def __init__(self, fds: FDPass) -> None:
        self._fds = fds

    async def add(
        self,
        fd_or_path: FDOrPath,
        *,
        fdset: int | None = None,
        opaque: str | None = None,
        flags: int | None = None,
        timeout: float | None = 30,
    ) -> str:
        """See `FDPass.add`."""
        Deadline(timeout)
        match self._fds._add(fd_or_path, fdset, opaque, flags):
            case str() as name:
                return name
            case _Putting(given, put):
                return put(await open_given(given))
            case sending:
                return await self._run(sending, timeout)

    async def send(self, fd_or_path: FDOrPath, name: str, *, timeout: float | None = 30) -> None:
        """See `FDPass.send`."""
        await self._run(self._fds._send(fd_or_path, name), timeout)

    async def _run(self, sending: Sending[T], timeout: float | None) -> T:
        assert self._fds._machine is not None
        return await self._fds._machine.arun(
            sending.carry_out(), timeout=timeout, operation=sending.operation
        )


def _check_fdset(fdset: object) -> None:
    if fdset is None or (isinstance(fdset, int) and not isinstance(fdset, bool) and 0 <= fdset <= _LARGEST):
        return
    raise ConfigError(f"fdset must be the number of a set, 0 or more, not {fdset!r}", field="fdset")


def _check_text(field: str, value: object) -> None:
    if (value is None and field == "opaque") or (isinstance(value, str) and "\0" not in value):
        return
    raise ConfigError(f"{field} must be a str without NUL, not {value!r}", field=field)


def _sets_in(args: Sequence[str]) -> set[int]:
    """The numbers of the sets of all `-add-fd` in a command line."""
    found = set()
    for option, value in itertools.pairwise(args):
        if option in {"-add-fd", "--add-fd"}:
            for pair in value.replace(",,", "").split(","):  # a doubled comma is one in a value
                key, _, number = pair.partition("=")
                with contextlib.suppress(ValueError):  # it is for QEMU to say so
                    found |= {int(number, 0)} if key == "set" else set()
    return found
