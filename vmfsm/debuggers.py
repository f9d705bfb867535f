"""Holding machines as long as a thread of the harness is at a debugger's prompt, where that is wanted."""

import asyncio
import contextlib
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING

from . import holding
from .errors import TransitionError
from .exit_guard import ExitGuard
from .hold_modes import BREAKPOINT
from .holds import Hold
from .perprocess import per_process

if TYPE_CHECKING:
    from .machine import Machine

_LOOK = 0.05
"""Seconds between two looks."""


class DebuggerWatch:
    """Looks as long as there is a machine to be held. On the I/O thread only."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None
        self._holds: dict[Machine, Hold] = {}
        """One for each machine, until the prompt is gone: also one that its user has released."""

    @classmethod
    def get(cls) -> "DebuggerWatch":
        return per_process(cls)

    def begin(self) -> None:
        """There is a machine."""
        if self._timer is None:
            self._look()

    def _look(self) -> None:
        self._timer = None
        machines = [machine for machine in ExitGuard.get().machines if BREAKPOINT in machine._hold_modes]
        thread = at_prompt() if machines else None
        if thread is not None:
            for machine in machines:
                if machine not in self._holds:
                    with contextlib.suppress(TransitionError):  # the interpreter exits
                        self._holds[machine] = holding.begin(machine, "a debugger's prompt", by=thread)
        else:
            while self._holds:
                self._holds.popitem()[1].release()
        if machines:
            self._timer = asyncio.get_running_loop().call_later(_LOOK, self._look)


def at_prompt() -> str | None:
    """A thread that is at a debugger's prompt, by its name; `None` where there is none. From any thread.

    Found by its stack: a debugger on `bdb` (library/bdb) asks its user in `interaction`, or in what `bdb`
    calls for a line, call, return or exception. pydevd is the one of several editors.
    """
    if "bdb" not in sys.modules and "pydevd" not in sys.modules:
        return None
    for thread, frame in sys._current_frames().items():
        if thread != threading.get_ident() and _is_at_prompt(frame):
            names = {one.ident: one.name for one in threading.enumerate()}
            return names.get(thread) or f"thread {thread}"
    return None


def _is_at_prompt(frame: FrameType | None) -> bool:
    while frame is not None:
        code = frame.f_code
        if code.co_name in {"do_wait_suspend", "_do_wait_suspend"} and "pydevd" in code.co_filename:
            return True
        if code.co_name == "interaction" or code.co_name.startswith("user_"):
            bdb = sys.modules.get("bdb")
            if bdb is not None and issubclass(type(frame.f_locals.get("self")), bdb.Bdb):
                return True
        frame = frame.f_back
    return False
