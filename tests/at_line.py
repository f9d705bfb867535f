"""An exception at any line, as a signal handler's: what is left then?"""

import linecache
import os
import sys
from types import FrameType
from typing import Any


class AtLine:
    """Raises at the n-th line that this thread executes in the package, which is where handlers run, too."""

    def __init__(self, number: int, exception: BaseException) -> None:
        self._left = number
        self._exception = exception
        self.raised = False

    def __enter__(self) -> None:
        self._before = sys.gettrace()
        sys.settrace(self._trace)

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if f"{os.sep}vmfsm{os.sep}" not in frame.f_code.co_filename:
            return None
        # Unlike tracing, no signal comes between the last line of a block and the release of its lock.
        with_line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith("with ")
        if event == "line" and not with_line:
            self._left -= 1
            if self._left < 0 and not self.raised:
                self.raised = True
                raise self._exception
        return self._trace
