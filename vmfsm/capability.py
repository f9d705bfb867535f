"""What a QEMU binary can do here."""

import functools
import os
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, TypeVar, cast

from . import accelerators
from .answers import Answers
from .asking import Asking
from .deadline import Deadline
from .errors import ConfigError, Evidence, LaunchError, TransitionError, VMError, printable
from .iothread import IOThread
from .paths import check_path
from .process import find_binary
from .reports import own_words

T = TypeVar("T")

KVM = "/dev/kvm"
_DEVICE = re.compile(
    r'name "(?P<name>[^"]+)"(?:, bus [^,]+)?(?:, alias "(?P<alias>[^"]+)")?'
    r'(?:, desc ".*")?(?P<no_user>, no-user)?'
)


class MachineType(NamedTuple):
    """A machine type, for `-M` (QMP reference, `MachineInfo`)."""

    name: str
    alias: str | None
    """Its other name, such as `q35`."""
    is_default: bool
    """It is what runs without `-M`."""
    deprecated: bool
    max_cpus: int


class Capabilities(NamedTuple):
    """What a QEMU binary can do here: on this system, for this user."""

    binary: str
    """The file that was asked."""
    version: tuple[int, int, int]
    """Major, minor, micro."""
    target: str
    """The architecture that it emulates, such as `x86_64` (QMP reference, `SysEmuTarget`)."""
    machines: Mapping[str, MachineType]
    """The machine types, by their names and their aliases."""
    devices: frozenset[str]
    """What `-device` takes, aliases (`virtio-blk`) among them."""
    accelerators: tuple[str, ...]
    """Those that were seen working, best first."""
    refused: Mapping[str, str]
    """Those that QEMU was built with and that do not work here, and why not: in its words, if it said any."""

    @property
    def best(self) -> str | None:
        """The best accelerator that works: one of the hardware's if there is any; `None` where none works."""
        return self.accelerators[0] if self.accelerators else None


def capabilities(binary: "str | os.PathLike[str]", *, timeout: float | None = 60) -> Capabilities:
    """What a QEMU can do here, found out by running it.

    Waits; from any thread but the I/O thread. Asked once in a process and then known, as long as the binary
    and what decides about accelerators stay the same: the file (its real path, device, inode, size and
    time of modification), who may open `/dev/kvm`, and this process's user and groups. Several threads ask
    once. A failure is not remembered.

    :param binary: a path, or a name to look for in `PATH`.
    :raises ConfigError: for what is no path or no timeout.
    :raises LaunchError: when it cannot be run, is no QEMU, or does not answer in time; it says which.
    :raises TransitionError: on the I/O thread, which it would stop.
    """
    path = check_path(binary, field="binary")
    deadline = Deadline(timeout)
    IOThread.get().refuse_inside("capabilities", path)
    return Question(path, {}, deadline).capabilities()


class _Basics(NamedTuple):
    version: tuple[int, int, int]
    target: str
    machines: Mapping[str, MachineType]
    has_debug_exit: bool


class _Acceleration(NamedTuple):
    basics: _Basics
    working: tuple[str, ...]
    refused: Mapping[str, str]


class Question:
    """One binary being asked, by one thread and one deadline; any other may `cancel` that."""

    def __init__(self, binary: str, env: Mapping[str, str | None], deadline: Deadline) -> None:
        self._binary = binary
        self._env = env
        self._deadline = deadline
        self._given_up = False
        self._asking: Asking | None = None

    def cancel(self) -> None:
        """Have it end soon, by an error. Does not wait for that."""
        self._given_up = True
        if self._asking is not None:
            self._asking.cancel()
        Answers.get().wake()

    def best_accelerator(self) -> str:
        """The best accelerator that works.

        :raises LaunchError: when there is none, or it cannot be found out.
        """
        found = self._answer(self._ask_accelerators)
        if not found.working:
            reasons = "; ".join(f"{name}: {why}" for name, why in found.refused.items())
            raise LaunchError(f"no accelerator of {self._binary} works here ({reasons or 'it has none'})")
        return found.working[0]

    def capabilities(self) -> Capabilities:
        """All of it.

        :raises LaunchError: when it cannot be found out.
        """
        return self._answer(self._ask_all)

    def _answer(self, ask: Callable[[Asking, Hashable], T]) -> T:
        """What `ask` finds out, or has found out before. Every failure is a `LaunchError`."""
        try:
            path = find_binary(self._binary, self._env.get("PATH", os.environ.get("PATH")))
            self._asking = Asking(path, self._env, self._deadline)
            if self._given_up:
                self._asking.cancel()
            return self._once(ask, _identity(path, self._env))
        except (ConfigError, TransitionError):
            raise
        except (VMError, OSError) as error:
            output = getattr(error, "evidence", Evidence()).output
            words = printable(own_words(output, (self._binary, "")))
            said = f": {words}" if words and words not in str(error) else ""
            failure = LaunchError(f"cannot tell what {self._binary} can do: {error}{said}")
            failure.output = output
            if isinstance(error, LaunchError):
                failure.command, failure.output = error.command, error.output
                failure.exit_status = error.exit_status
            raise failure from error

    def _once(self, ask: Callable[[Asking, Hashable], T], identity: Hashable) -> T:
        asking = self._asking
        assert asking is not None

        def ask_now() -> T:
            try:
                return ask(asking, identity)
            except VMError:
                if self._given_up or self._deadline.expired:
                    asking.check()  # so that it counts as ours: it says nothing about the binary
                raise

        answer = Answers.get().answer(
            (ask.__name__, identity), ask_now, self._deadline, lambda: self._given_up
        )
        return cast(T, answer)

    def _ask_accelerators(self, asking: Asking, _: Hashable) -> _Acceleration:
        names = accelerators.compiled_in(asking)
        basics = _ask_basics(asking, names)
        guest = accelerators.guest_for(basics.target, basics.machines, basics.has_debug_exit)
        probes = {name: functools.partial(accelerators.refusal, asking, name, guest) for name in names}
        refusals = _at_once(asking, probes)
        working = tuple(name for name, why in refusals.items() if why is None)
        refused = {name: why for name, why in refusals.items() if why is not None}
        return _Acceleration(basics, working, MappingProxyType(refused))

    def _ask_all(self, asking: Asking, identity: Hashable) -> Capabilities:
        found = self._once(self._ask_accelerators, identity)
        devices = _ask_devices(asking, (*found.refused, *found.working))
        basics = found.basics
        return Capabilities(
            asking.binary,
            basics.version,
            basics.target,
            basics.machines,
            devices,
            found.working,
            found.refused,
        )


def _at_once(asking: Asking, functions: Mapping[str, Callable[[], T]]) -> dict[str, T]:
    """Call all of them at the same time, each in a thread of its own; what they return.

    When one raises, that is raised, and the others are cancelled.
    """
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max(1, len(functions)), "vmfsm-probe") as threads:
        calls = {name: threads.submit(function) for name, function in functions.items()}
        try:
            return {name: call.result() for name, call in calls.items()}
        except BaseException:
            asking.cancel()
            raise


def _identity(path: str, env: Mapping[str, str | None]) -> Hashable:
    """All that the answers depend on, as far as it can be seen from outside."""
    file = os.stat(path)
    try:
        kvm = os.stat(KVM)
        access = (kvm.st_rdev, kvm.st_mode, kvm.st_uid, kvm.st_gid, kvm.st_ctime_ns)
    except OSError:
        access = None
    user = (os.geteuid(), os.getegid(), frozenset(os.getgroups()))
    place = (os.path.realpath(path), file.st_dev, file.st_ino)
    return place, (file.st_size, file.st_mtime_ns), access, user, frozenset(env.items())


def _no_processor(names: Sequence[str]) -> list[str]:
    """Arguments for a QEMU that is only to be talked to: with the first accelerator that can be had."""
    fallbacks = [word for name in (*names, accelerators.NO_ACCELERATOR) for word in ("-accel", name)]
    return ["-M", "none", "-nodefaults", "-no-user-config", *fallbacks]


def _ask_basics(asking: Asking, names: Sequence[str]) -> _Basics:
    # tcg, which is the last of them, needs nothing from the system.
    with asking.monitored("basics", _no_processor(names[::-1]), asking.deadline) as machine:
        timeout = asking.deadline.as_timeout()
        version = machine.qmp.version
        target = machine.qmp.execute("query-target", timeout=timeout)["arch"]
        types = machine.qmp.execute("query-machines", timeout=timeout)
        # Not by a list of devices: for that QEMU loads all of its modules.
        properties = machine.qmp.execute_raw(
            "device-list-properties", typename="isa-debug-exit", timeout=timeout
        )
    machines = {}
    for info in types:
        machine_type = MachineType(
            info["name"],
            info.get("alias"),
            info.get("is-default", False),
            info.get("deprecated", False),
            info["cpu-max"],
        )
        machines[machine_type.name] = machine_type
        if machine_type.alias:
            machines[machine_type.alias] = machine_type
    return _Basics(version, target, MappingProxyType(machines), "return" in properties)


def _ask_devices(asking: Asking, names: Sequence[str]) -> frozenset[str]:
    with asking.monitored("devices", _no_processor(names[::-1]), asking.deadline) as machine:
        timeout = asking.deadline.as_timeout()
        types = machine.qmp.execute(
            "qom-list-types", {"implements": "device", "abstract": False}, timeout=timeout
        )
        # What a user cannot create, and aliases, are told on the human monitor only.
        lines = machine.qmp.execute(
            "human-monitor-command", {"command-line": "info qdm"}, timeout=timeout
        ).splitlines()
    devices = {info["name"] for info in types}
    for found in filter(None, map(_DEVICE.fullmatch, lines)):
        if found["no_user"]:
            devices.discard(found["name"])
        elif found["alias"]:
            devices.add(found["alias"])
    return frozenset(devices)
