"""Names for log files under which nothing is lost that this process has written."""

import os
import threading

_used: dict[str, int] = {}
"""The paths that were given out, and how many of each name, where it counts on."""
_lock = threading.Lock()


def unused(path: str) -> str:
    """`path`, or the next of `vm.2.log`, `vm.3.log`, … where this process has written to it already.

    So nothing is overwritten that an earlier launch wrote, or another machine of the same name. Where `path`
    is no ordinary file, but a device, say, it is always that.
    """
    with _lock:
        first = os.path.realpath(path)
        if first not in _used or not os.path.isfile(path):
            _used.setdefault(first, 1)
            return path
        root, extension = os.path.splitext(path)
        while True:
            _used[first] += 1
            path = f"{root}.{_used[first]}{extension}"
            if os.path.realpath(path) not in _used:
                _used[os.path.realpath(path)] = 1
                return path
