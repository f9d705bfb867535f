"""The plugin: it hands on what observers are told, and nothing that it does holds up a machine."""

import asyncio
import collections
import contextlib
import errno
import functools
import itertools
import os
import time
from collections.abc import Sequence

from vmfsm import Event, Machine, Record, State, Transition, hookimpl
from vmfsm_plugins.blocking import in_thread

from .header import header_of
from .lines import line_of
from .options import FILES, MAX_BYTES, check_directory, check_limits
from .pieces import Pieces
from .writer import Recording, Writer, writer_for

_OVER = frozenset({State.CONFIGURED, State.STOPPED, State.FAILED})
_MOST_BEFORE = 100
"""Records from before the first launch that are kept for it."""
_PATIENCE = 2.0
"""Seconds that a launch waits for the file system of the directory."""
_serials = itertools.count(1)


class Recorder:
    """Writes all records of a machine into a directory: a file for each launch, in JSON lines.

    :param directory: made where it is missing; without it the one that the environment names in
        `VMFSM_RECORD`; where that names none nothing is recorded.
    :param max_bytes: how much is kept of one launch, in bytes. Beginning and end are.
    :param files: in how many files that is.
    :raises ConfigError: for what is wrong with any of these.
    """

    name = "recorder"

    def __init__(
        self,
        *,
        directory: "str | os.PathLike[str] | None" = None,
        max_bytes: int = MAX_BYTES,
        files: int = FILES,
    ) -> None:
        where = check_directory(directory)
        self._limits = check_limits(max_bytes, files)
        self._writer = None if where is None else writer_for(where)
        self._recording: Recording | None = None
        self._launches = 0
        self._begun: collections.deque[float] = collections.deque()
        self._before: collections.deque[bytes] = collections.deque(maxlen=_MOST_BEFORE)

    @property
    def enabled(self) -> bool:
        """There is somewhere to record to. Else it has no hooks, since who observes is told by a thread."""
        return self._writer is not None

    @property
    def path(self) -> str | None:
        """The first file of the last launch, as soon as there is one."""
        return self._recording.pieces.path if self._recording else None

    @property
    def dropped(self) -> int:
        """Records of the last launch that could not be written."""
        return self._recording.dropped if self._recording else 0

    @hookimpl
    async def pre_launch(self) -> None:
        writer = self._writer_there
        if not writer.is_prepared and not writer.hangs:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    await in_thread(functools.partial(_prepare, writer.directory))
                    writer.is_prepared = True

    @hookimpl
    def snapshot(self) -> dict[str, object]:
        return {"path": self.path, "dropped": self.dropped}

    @hookimpl
    def state_changed(self, transition: Transition) -> None:
        if transition.event is Event.LAUNCH:
            self._begun.append(transition.at)  # its records come with this batch, or after it

    @hookimpl
    def records(self, machine: Machine, batch: Sequence[Record]) -> None:
        lines: list[bytes] = []
        has_changed = False
        for record in batch:
            if self._begun and record.at >= self._begun[0]:
                self._hand_on(lines, close=True)
                lines = []
                self._begin(machine, self._begun.popleft())
            lines.append(line_of(record))
            has_changed |= record.kind in {"transition", "failure"}
        self._hand_on(lines, close=machine.state in _OVER)
        if has_changed and self._recording is not None:
            # So it is there when `launch`, `shutdown` and so on return, and for who collects it.
            self._writer_there.flush(self._recording)

    @property
    def _writer_there(self) -> Writer:
        assert self._writer is not None, "hooks are called where it is enabled only"
        return self._writer

    def _begin(self, machine: Machine, at: float) -> None:
        self._launches += 1
        began = time.gmtime(time.time() - (time.monotonic() - at))
        name = f"{machine.name}-{time.strftime('%Y%m%dT%H%M%SZ', began)}-{os.getpid()}-{next(_serials):04}"
        base = os.path.join(self._writer_there.directory, name)
        pieces = Pieces(base, header_of(machine, self._launches), self._limits)
        self._recording = Recording(machine.name, pieces)
        self._hand_on([*self._before], close=False)
        self._before.clear()

    def _hand_on(self, lines: list[bytes], *, close: bool) -> None:
        if self._recording is None:
            self._before.extend(lines)
        elif lines or close:
            self._writer_there.add(self._recording, lines, close=close)


def _prepare(directory: str) -> None:
    """:raises OSError: where nothing can be recorded there."""
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        whose = "option 'directory' of plugin 'recorder', or VMFSM_RECORD"
        raise OSError(error.errno, f"{whose}: {error.strerror}", directory) from error
