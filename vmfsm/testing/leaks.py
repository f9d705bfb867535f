"""A check that nothing is left behind: no machine, process, descriptor, thread, task, directory or file."""

import asyncio
import contextlib
import gc
import os
import re
import secrets
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from types import TracebackType
from typing import Self

from vmfsm import config
from vmfsm.deadline import Deadline
from vmfsm.errors import ConfigError, printable
from vmfsm.iothread import IOThread
from vmfsm.paths import check_path
from vmfsm.perprocess import per_process

from . import inventory

MARK = "VMFSM_LEAKCHECK"
"""An environment variable by which processes are found that are nobody's children any more."""

_FIRST_PAUSE = 0.002
_LONGEST_PAUSE = 0.1


class Leak(AssertionError):
    """Something was left behind; the message says what.

    `leaks` has what that is, one by one.
    """

    def __init__(self, leaks: Sequence[str]) -> None:
        super().__init__(leaks)
        self.leaks = tuple(leaks)

    def __str__(self) -> str:
        lines = (f"  {printable(leak)}".replace("\n", "\n  ") for leak in self.leaks)
        return "\n".join(["left behind:", *lines])


class leakcheck:
    """Fails where a block of code leaves something behind that was not there before it.

        with leakcheck():
            with Machine("qemu-system-x86_64") as vm:
                vm.launch()

    :param patience: seconds to wait, scaled as all timeouts are, for what is about to end: the check is over
        as soon as nothing is left.
    :param directories: existing ones in which nothing new may be left (what is new in a directory in them is
        not looked at). They must be this process's alone while the block lasts.
    :param ignore: regular expressions: what is described by a text in which one of them is found is no leak.
    :raises ConfigError: for what is wrong with any of these.

    Looked for are: machines of this process that are not in a final state, and their private directories,
    wherever these are; processes that were started meanwhile by this process, by the environment variable
    `VMFSM_LEAKCHECK` also those whose parents have ended; descriptors and threads of this process; tasks of
    the I/O thread of vmfsm; what is new in `directories`. What other threads of this process make meanwhile
    counts; what other processes make does not, but in `directories`. Nothing is ended or removed.

    At the end it raises `Leak`; if the block raised, that exception gets a note instead, and if that is no
    `Exception` (Ctrl-C, say) nothing is looked for. In a coroutine use `async with`, which does not hold up
    the loop. Blocks may be nested, and in any thread but the I/O thread (`TransitionError`). In a child
    forked inside of the block it does nothing. Linux only.
    """

    def __init__(
        self,
        *,
        patience: float = 5.0,
        directories: Sequence["str | os.PathLike[str]"] = (),
        ignore: Sequence[str] = (),
    ) -> None:
        self._patience = patience
        _deadline(patience)
        self._directories = _paths(directories)
        self._ignore = _patterns(ignore)
        self._mark: str | None = None

    def __enter__(self) -> Self:
        """:raises OSError: for a directory that is none.
        :raises MachineTimeout: where something holds up the I/O thread for half a minute.
        """
        if self._mark is not None:
            raise RuntimeError("this leakcheck is in use; another block takes one of its own")
        IOThread.get().refuse_inside("leakcheck", None)
        for directory in self._directories:
            os.listdir(directory)
        inventory.bring_up()
        self._pid = os.getpid()
        self._since = inventory.ticks() - 1  # they are counted by a clock that may be read earlier
        self._known = inventory.take(self._directories)
        self._mark = per_process(_Marks).set()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        __tracebackhide__ = True
        with contextlib.closing(self._check(error)) as looks:
            for pause in looks:
                time.sleep(pause)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        __tracebackhide__ = True
        with contextlib.closing(self._check(error)) as looks:
            for pause in looks:
                await asyncio.sleep(pause)

    def _check(self, error: BaseException | None) -> Generator[float, None, None]:
        """Yields the seconds to wait before it looks again.

        :raises Leak: when something is left.
        """
        __tracebackhide__ = True
        mark, self._mark = self._mark, None
        if os.getpid() != self._pid or mark is None:
            return
        try:
            if error is None or isinstance(error, Exception):
                yield from self._look_until_clean(mark, error)
        finally:
            per_process(_Marks).unset(mark)
            self._known = {}

    def _look_until_clean(self, mark: str, error: BaseException | None) -> Iterator[float]:
        __tracebackhide__ = True
        deadline = _deadline(self._patience)
        pause = _FIRST_PAUSE
        leaks = self._look(mark)
        if leaks:
            gc.collect()  # what nobody can reach any more is on its way
            leaks = self._look(mark)
        while leaks and not deadline.expired:
            yield min(pause, deadline.remaining() or 0.0)
            pause = min(2 * pause, _LONGEST_PAUSE)
            leaks = self._look(mark)
        if leaks and error is None:
            raise Leak(leaks)
        if leaks and error is not None:
            error.add_note(str(Leak(leaks)))

    def _look(self, mark: str) -> list[str]:
        """What is left just now."""
        now = inventory.take(self._directories, mark.encode(), self._since, self._known)
        texts = [describe() for key, describe in now.items() if key not in self._known]
        return [text for text in texts if not any(pattern.search(text) for pattern in self._ignore)]


class _Marks:
    """The value of the variable in this process's environment: the marks of all blocks that it is in."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inherited = os.environ.get(MARK)
        self._present: list[str] = []

    def set(self) -> str:
        """Mark the processes that are started from now on."""
        mark = secrets.token_hex(8)
        with self._lock:
            self._present.append(mark)
            self._write()
        return mark

    def unset(self, mark: str) -> None:
        with self._lock:
            self._present.remove(mark)
            self._write()

    def _write(self) -> None:
        inherited = [] if self._inherited is None else [self._inherited]
        if value := ":".join([*inherited, *self._present]):
            os.environ[MARK] = value
        else:
            os.environ.pop(MARK, None)


# -- what it is given ---------------------------------------------------------------------------------------


def _deadline(patience: float) -> Deadline:
    if patience is None:
        raise ConfigError(
            "patience must be a number of seconds, not None: a leak would never be told", field="patience"
        )
    try:
        return Deadline(patience)
    except ConfigError as error:
        if error.field != "timeout":
            raise
        raise ConfigError(str(error).replace("timeout", "patience"), field="patience") from None


def _paths(values: object) -> tuple[str, ...]:
    if isinstance(values, str | bytes | os.PathLike) or not isinstance(values, Sequence):
        raise ConfigError(f"directories must be a sequence of paths, not {values!r}", field="directories")
    return tuple(os.path.abspath(check_path(value, field="directories")) for value in values)


def _patterns(values: object) -> tuple[re.Pattern[str], ...]:
    patterns = []
    for value in config.check_strings("ignore", values):
        try:
            patterns.append(re.compile(value))
        except re.error as error:
            raise ConfigError(
                f"ignore: not a regular expression: {value!r}: {error}", field="ignore"
            ) from None
    return tuple(patterns)
