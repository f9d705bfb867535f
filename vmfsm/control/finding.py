"""Which machines there are, in all programs of this user on this host, and the way to one of them."""

import select
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from vmfsm import registry
from vmfsm.deadline import Deadline

from .channel import Channel, ControlError, NoAnswer, NoSuchMachine, result_of
from .client import Client

_PAUSE = 0.01
"""Seconds until a harness is tried again whose queue of connections is full."""
_OVER = frozenset({"configured", "stopped", "failed"})
_THERE = frozenset({"live", "silent"})


class Harness(NamedTuple):
    """A program of this user that lives and has used machines."""

    pid: int
    start_time: int
    """As of `proc(5)`: clock ticks since the boot."""
    path: str
    """Its control socket, which may not be there: `VMFSM_CONTROL=0`."""


_Answers = dict[Harness, Mapping[str, Any] | str]
"""What each says, or why it says nothing."""


class Listing(NamedTuple):
    """A machine, as far as it is known."""

    status: str
    """`live`: its harness has told of it. `silent`: that lives, and does not answer. `orphaned`, `stale`,
    `foreign`: as of `registry.Status`; the harness of the first two has died."""
    name: str
    harness: int
    """The process that launched it."""
    pid: int | None = None
    """QEMU's."""
    state: str | None = None
    reason: str | None = None
    seconds: float | None = None
    """Since when it is in this state; of one that is not live: since it was launched."""
    launches: int | None = None
    exit_status: int | None = None
    held: str | None = None
    """Why, or by whom."""
    test: str | None = None
    """`PYTEST_CURRENT_TEST` of its harness."""
    command: tuple[str, ...] = ()
    """The harness's."""
    number: int | None = None
    """Its own, in its harness."""
    path: str | None = None
    """The control socket of its harness."""
    problem: str | None = None
    """Why a silent one is."""

    def client(self) -> Client:
        """:raises NoAnswer: for a silent one. :raises NoSuchMachine: for one whose harness has died."""
        if self.status == "live" and self.path is not None and self.number is not None:
            return Client(self.path, self.number, name=self.name)
        if self.status == "silent":
            raise NoAnswer(f"{self.name}: {self.problem} (process {self.harness})")
        what = "is of another host or pid namespace" if self.status == "foreign" else "has died"
        error = NoSuchMachine(f"{self.name}: the program that launched it {what} (process {self.harness})")
        if self.status != "foreign":
            error.add_note("vmfsm gc kills and removes what it has left")
        raise error


def harnesses() -> list[Harness]:
    """The programs of this user that have used machines and live here. Never waits.

    :raises OSError: as of `registry.machines`.
    """
    return [Harness(*program, path) for program, path in registry.sockets()]


def machines(timeout: float | None = 1.0) -> list[Listing]:
    """All machines of this user, by name: those that their harnesses tell of, which are all asked at once,
    and those that are only registered.

    :param timeout: seconds until a harness that has not answered counts as silent.
    :raises OSError: as of `registry.machines`.
    """
    entries = registry.machines()
    asking = _Round()
    asking.run(harnesses(), Deadline(timeout))
    return _listings(asking.answers, entries)


def find(name: str, *, timeout: float | None = 1.0) -> Client:
    """The machine of this name, or of `PID/NAME`, with the process id of its harness.

    Of several the one that is not over is meant, and whose harness lives. Waits for no harness that has none
    of this name, as far as that is known.

    :param timeout: as of `machines`.
    :raises NoSuchMachine: where there is none, or which one is meant can't be told.
    :raises NoAnswer: where its harness does not answer.
    :raises OSError: as of `registry.machines`.
    """
    deadline = Deadline(timeout)
    entries = registry.machines()
    having = {
        entry.harness.pid
        for entry in entries
        if entry.status is registry.Status.LIVE and _is_named(name, entry.harness.pid, entry.name)
    }

    def enough(answers: _Answers) -> bool:
        told = [listing for harness, answer in answers.items() for listing in _told(harness, answer)]
        has_answered = {harness.pid for harness in answers}
        return having <= has_answered and any(_is_named(name, one.harness, one.name) for one in told)

    asking = _Round()
    asking.run(harnesses(), deadline, enough)
    listings = _listings(asking.answers, entries)
    found = [one for one in listings if one.name == name] or [
        one for one in listings if _is_named(name, one.harness, one.name)
    ]
    if len(found) > 1:
        there = [one for one in found if one.status in _THERE]
        found = [one for one in there if one.state not in _OVER] or there[-1:] or found[-1:]
    if not found:
        names = ", ".join(sorted({listing.name for listing in listings})) or "none"
        raise NoSuchMachine(f"no machine {name!r} (there are: {names})")
    if len(found) > 1:
        several = ", ".join(f"{one.harness}/{one.name}" for one in found)
        raise NoSuchMachine(f"{len(found)} machines are named {name!r}: {several}")
    return found[0].client()


def _is_named(name: str, harness: int, machine: str) -> bool:
    return name in {machine, f"{harness}/{machine}"}


def _listings(answers: _Answers, entries: Iterable[registry.Entry]) -> list[Listing]:
    """What was told, and what is only registered.

    :param entries: those that there were before that; some may have ended.
    """
    listings = [listing for harness, answer in answers.items() for listing in _told(harness, answer)]
    told = {harness.pid for harness, answer in answers.items() if isinstance(answer, Mapping)}
    problems = {harness.pid: answer for harness, answer in answers.items() if isinstance(answer, str)}
    now = time.time()
    marks = {entry.mark for entry in entries}
    for entry in registry.machines():
        is_live = entry.status is registry.Status.LIVE
        if entry.mark not in marks or (is_live and entry.harness.pid in told):
            continue
        listings.append(
            Listing(
                status="silent" if is_live else entry.status.value,
                name=entry.name,
                harness=entry.harness.pid,
                pid=entry.pid,
                seconds=max(0.0, now - entry.since),
                command=entry.harness.command,
                problem=problems.get(entry.harness.pid) if is_live else None,
            )
        )
    return sorted(listings, key=lambda one: (one.name, one.harness, one.number or 0))


def _checked(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """As far as listings rely on it: other versions may tell more. :raises ControlError: for what is none."""
    harness, rows = answer.get("harness"), answer.get("machines")
    if (
        isinstance(harness, dict)
        and isinstance(harness.get("command", []), list)
        and isinstance(rows, list)
        and all(isinstance(row, dict) and _is_row(row) for row in rows)
    ):
        return answer
    raise ControlError("that is not a harness's answer")


def _is_row(row: Mapping[str, Any]) -> bool:
    return (
        isinstance(row.get("name"), str)
        and all(isinstance(row.get(name), str | None) for name in ("state", "reason", "held"))
        and all(
            isinstance(row.get(name), int | None) for name in ("pid", "exit_status", "number", "launches")
        )
        and isinstance(row.get("seconds"), int | float | None)
    )


def _told(harness: Harness, answer: Mapping[str, Any] | str) -> Iterator[Listing]:
    if isinstance(answer, str):
        return
    about = answer["harness"]
    for row in answer["machines"]:
        yield Listing(
            status="live",
            harness=harness.pid,
            test=about.get("test"),
            command=tuple(about.get("command", ())),
            path=harness.path,
            **{name: row.get(name) for name in _OF_ROW},
        )


_OF_ROW = ("name", "pid", "state", "reason", "seconds", "launches", "exit_status", "held", "number")


class _Round:
    """All harnesses, asked at once for their machines."""

    def __init__(self) -> None:
        self.answers: _Answers = {}
        self._asked: dict[int, tuple[Harness, Channel]] = {}
        self._poll = select.poll()

    def run(
        self,
        harnesses: Iterable[Harness],
        deadline: Deadline,
        enough: Callable[[_Answers], bool] = lambda answers: False,
    ) -> None:
        """Until all have answered, or `enough`, or the deadline is over: those left do not answer."""
        waiting = list(harnesses)
        try:
            while True:
                waiting = [harness for harness in waiting if not self._ask(harness)]
                if deadline.expired or not (waiting or self._asked) or enough(self.answers):
                    break
                remaining = _PAUSE if waiting else deadline.remaining()
                for fd, _ in self._poll.poll(None if remaining is None else remaining * 1000):
                    self._hear(fd)
            for harness in [*waiting, *(harness for harness, _ in self._asked.values())]:
                self.answers[harness] = "the harness does not answer"
        finally:
            for _, channel in self._asked.values():
                channel.close()

    def _ask(self, harness: Harness) -> bool:
        """Whether it was asked, or can't be."""
        try:
            channel = Channel(harness.path, Deadline(0))
        except NoAnswer:
            return False  # as many as it lets wait to be connected
        except (ControlError, OSError) as error:
            self.answers[harness] = str(error)
            return True
        try:
            channel.send({"id": 1, "op": "machines"}, Deadline(0))
        except ControlError as error:
            channel.close()
            self.answers[harness] = str(error)
            return True
        self._asked[channel.fileno()] = harness, channel
        self._poll.register(channel, select.POLLIN)
        return True

    def _hear(self, fd: int) -> None:
        harness, channel = self._asked[fd]
        try:
            answer = channel.take()
            if answer is None:
                return
            self.answers[harness] = _checked(result_of(answer))
        except ControlError as error:
            self.answers[harness] = str(error)
        self._poll.unregister(fd)
        del self._asked[fd]
        channel.close()
