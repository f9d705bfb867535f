"""What a test says of itself on the timeline: steps, and notes."""

import contextlib
import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from .errors import ConfigError, describe
from .iothread import IOThread
from .jsonable import jsonable
from .redaction import Secrets
from .timeline import Record

_RESERVED = {"step": {"step", "seconds", "error", "thread"}, "note": {"text", "thread"}}
"""What plain words of data would be taken for, by kind."""


class Marks:
    """The marks of one machine, on their way to its timeline. From any thread; nothing here waits.

    :param add: adds a record, of about so many bytes; on the I/O thread.
    """

    def __init__(self, secrets: Secrets, add: Callable[[Record, int], object]) -> None:
        self._secrets = secrets
        self._add = add
        self._on_their_way: deque[tuple[Record, int]] = deque()

    def mark(self, kind: str, data: Mapping[str, object]) -> None:
        """Something is so now.

        :raises OSError: when the I/O thread is to be started, and there are no descriptors for it.
        :raises RuntimeError: when it is to be started, and there can be no thread.
        """
        at = time.monotonic()
        plain = self._secrets.redact_all(jsonable({**data, "thread": threading.current_thread().name}))
        size = 200 + 2 * len(json.dumps(plain))
        io = IOThread.get()
        self._on_their_way.append((Record(kind, at, plain), size))
        if io.inside():
            self._take()
        else:
            io.post(self._take)

    def _take(self) -> None:
        while self._on_their_way:
            self._add(*self._on_their_way[0])
            self._on_their_way.popleft()  # not before the timeline has it

    def on_their_way(self) -> tuple[Record, ...]:
        """Those that the timeline may not have yet."""
        while True:
            # The garbage collector may run meanwhile, and let another thread add one.
            with contextlib.suppress(RuntimeError):
                return tuple(record for record, _ in tuple(self._on_their_way))


def check_data(kind: str, data: Mapping[str, object], said: object, field: str) -> None:
    """:raises ConfigError: for what is no text, and for data that would hide it."""
    if not isinstance(said, str):
        raise ConfigError(f"{field} must be a str, not {said!r}", field=field)
    for name in data.keys() & _RESERVED[kind]:
        raise ConfigError(f"data of a {kind} can't be named {name!r}: its record has that", field=name)


class Step:
    """A piece of a test, as a context manager: see `Machine.trace`."""

    def __init__(self, marks: Marks, step: str, data: Mapping[str, object]) -> None:
        self._marks = marks
        self._step = step
        self._data = dict(data)
        self._began = 0.0
        self._process = os.getpid()

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._marks.mark("step-begin", {"step": self._step, **self._data})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if os.getpid() == self._process:  # else a forked child leaves the block
            seconds = time.monotonic() - self._began
            self._marks.mark(
                "step", {"step": self._step, "seconds": seconds, "error": error and describe(error)}
            )
