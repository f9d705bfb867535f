"""The threads that write recordings, one for each directory: a file system that hangs holds up that alone."""

import atexit
import collections
import contextlib
import logging
import os
import threading
import time
import weakref
from collections.abc import Sequence

from vmfsm import Record

from .lines import line_of
from .pieces import Pieces

PATIENCE = 0.5
"""Seconds that a change of state waits for its line to be written."""
AT_EXIT = 2.0
"""Seconds that the exit of the interpreter waits for what is not written yet."""
MOST_PENDING = 8 * 1024 * 1024
"""Bytes of lines that wait for a file system."""
TOO_SLOW = "the file system is too slow"
_LOGGER = logging.getLogger("vmfsm.recorder")


class Recording:
    """What is to be written of one launch. From any thread."""

    def __init__(self, name: str, pieces: Pieces) -> None:
        self.name = name
        self.pieces = pieces
        self.pending: collections.deque[bytes] = collections.deque()
        self.bytes = 0
        self.lost = 0
        """Lines that are not in the file, and of which it does not say so yet."""
        self.dropped = 0
        """Lines that are not in the file."""
        self.error: str | None = None
        """Why lines were lost last."""
        self.closing = False
        self.queued = False
        """The writer's thread has it, or will."""


class Writer:
    """Writes the recordings of one directory, in a thread that is there while one is open.

    Where there can be none, as when the interpreter exits, whoever adds lines writes them.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.is_prepared = False
        """The directory was there."""
        self._changed = threading.Condition()
        self._queue: collections.deque[Recording] = collections.deque()
        self._open: set[Recording] = set()
        self._thread: threading.Thread | None = None
        self._busy_since: float | None = None

    @property
    def hangs(self) -> bool:
        """The file system takes its time."""
        since = self._busy_since
        return since is not None and time.monotonic() - since > PATIENCE

    def add(self, recording: Recording, lines: Sequence[bytes], *, close: bool = False) -> None:
        """Have lines written. Does not wait for a file; the oldest are dropped where it is too slow.

        :param close: nothing more is expected.
        """
        had_dropped = recording.dropped
        with self._changed:
            recording.pending.extend(lines)
            recording.bytes += sum(map(len, lines))
            while recording.bytes > MOST_PENDING:
                recording.bytes -= len(recording.pending.popleft())
                recording.lost += 1
                recording.dropped += 1
                recording.error = TOO_SLOW
            recording.closing = close
            self._open.add(recording)
            if not recording.queued:
                recording.queued = True
                self._queue.append(recording)
            has_thread = self._thread is not None or self._start()
            self._changed.notify_all()
        if recording.dropped and not had_dropped:
            _warn(recording, TOO_SLOW)
        while not has_thread and self._write_next():
            pass

    def flush(self, recording: Recording) -> None:
        """Wait until all that was added is written, or was tried to: `PATIENCE` seconds, once."""
        if not self.hangs:
            with self._changed:
                self._changed.wait_for(lambda: not recording.queued, PATIENCE)

    def flush_all(self) -> None:
        """The same for all recordings together, and for `AT_EXIT` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not any(one.queued for one in self._open), AT_EXIT)

    def _start(self) -> bool:
        """Whether there is a thread now."""
        thread = threading.Thread(target=self._work, name="vmfsm-recorder", daemon=True)
        with contextlib.suppress(RuntimeError):
            thread.start()
            self._thread = thread
        return self._thread is not None

    # -- in its thread --------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue:
                    if not self._open:
                        self._thread = None
                        return
                    self._changed.wait()
            self._write_next()

    def _write_next(self) -> bool:
        """Whether there was something to write."""
        with self._changed:
            if not self._queue:
                return False
            recording = self._queue.popleft()
            lines, closing, lost = list(recording.pending), recording.closing, recording.lost
            recording.pending.clear()
            recording.bytes = recording.lost = 0
            self._busy_since = time.monotonic()
        unwritten, unsaid = _write(recording, lines, lost)
        if closing:
            recording.pieces.close()
        with self._changed:
            self._busy_since = None
            recording.dropped += unwritten
            recording.lost += unsaid
            if recording.pending or recording.closing != closing:
                self._queue.append(recording)
            else:
                recording.queued = False
                if closing:
                    self._open.discard(recording)
            self._changed.notify_all()
        return True


def _write(recording: Recording, lines: list[bytes], lost: int) -> tuple[int, int]:
    """Write lines, and before them how many were lost: how many were not, and of how many it does not say."""
    pieces = recording.pieces
    note = []
    if lost:
        data = {"records": lost, "error": recording.error}
        note = [line_of(Record("dropped", time.monotonic(), data))]
    before = pieces.lines
    try:
        pieces.write([*note, *lines])
    except Exception as error:  # noqa: BLE001 - the thread is there for others, too
        why = (isinstance(error, OSError) and error.strerror) or repr(error)
        if not recording.dropped:
            _warn(recording, why)
        recording.error = why
    written = pieces.lines - before
    unwritten = len(lines) - max(0, written - len(note))
    return unwritten, unwritten if written else lost + unwritten


def _warn(recording: Recording, why: str) -> None:
    _LOGGER.warning("%s: records are lost: %s: %s", recording.name, why, recording.pieces.base)


# -- of this process ----------------------------------------------------------------------------------------

_writers: "weakref.WeakValueDictionary[str, Writer]" = weakref.WeakValueDictionary()
_locks = [threading.Lock()]


def writer_for(directory: str) -> Writer:
    """The writer for a directory, the same for all machines that record there."""
    with _locks[0]:
        writer = _writers.get(directory)
        if writer is None:
            writer = _writers[directory] = Writer(directory)
        return writer


def _flush_all() -> None:
    for writer in tuple(_writers.values()):
        writer.flush_all()


def _forget_in_child() -> None:
    _writers.clear()
    _locks[0] = threading.Lock()


atexit.register(_flush_all)
os.register_at_fork(after_in_child=_forget_in_child)
