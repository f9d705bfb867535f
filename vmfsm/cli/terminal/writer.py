"""A thread that writes to a file descriptor, so that nobody else ever waits for who reads there."""

import threading
import time
from collections.abc import Callable
from typing import Protocol

from .backlog import Backlog, Message

_TICK = 0.25
"""Seconds between two looks at what the status is."""
_QUIET = 0.05
"""Seconds without output before a status is drawn between two pieces of it."""


class Sink(Protocol):
    """Where it goes to. What it raises, an `OSError`, is the end of it."""

    def data(self, data: bytes) -> None: ...
    def message(self, text: str) -> None: ...
    def status(self, text: str) -> None: ...
    def finish(self) -> None: ...


class Writer:
    """Writes bytes, messages and a status line to a sink, in a thread of its own.

    :param status: asked again and again for the line that is shown below; without it there is none. It is
        called in that thread, and must not wait.
    :param failed: called once, in that thread, when the sink can't be written to any more.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        status: Callable[[], str] | None = None,
        failed: Callable[[OSError], object] = lambda error: None,
    ) -> None:
        self._sink = sink
        self._status = status
        self._failed = failed
        self._backlog = Backlog()
        self._news = threading.Event()
        self._over = False
        self._broken = False
        self._thread = threading.Thread(target=self._run, name="vmfsm-writer", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Bytes that could not be kept for a reader that is too slow, since the disk was full."""
        return self._backlog.lost

    def data(self, data: bytes) -> None:
        """Bytes as they are. From any thread; never waits."""
        if not self._broken:
            self._backlog.add(data)
            self._news.set()

    def message(self, text: str) -> None:
        """A line, or several, of ours. From any thread; never waits."""
        if not self._broken:
            self._backlog.add(Message(text))
            self._news.set()

    def close(self, timeout: float | None = None) -> bool:
        """Write what is left, however slowly that is read, and end; whether that is done."""
        self._over = True
        self._news.set()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._write_all()
            self._sink.finish()
        except OSError as error:  # who read there is gone
            self._broken = True
            self._failed(error)
        finally:
            self._backlog.close()

    def _write_all(self) -> None:
        last = 0.0
        while True:
            over = self._over
            self._news.clear()
            while (item := self._backlog.take()) is not None:
                if isinstance(item, Message):
                    self._sink.message(item)
                else:
                    self._sink.data(item)
            if over:
                return
            if self._status is None:
                self._news.wait()
            elif not self._news.wait(_QUIET) and time.monotonic() - last >= _TICK:
                last = time.monotonic()
                self._sink.status(self._status())
                self._news.wait(_TICK)
