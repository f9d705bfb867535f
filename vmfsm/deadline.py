"""One total deadline for everything that a public call does."""

import math
import os
import threading
import time

from .errors import ConfigError

SCALE_VARIABLE = "VMFSM_TIMEOUT_SCALE"

# What the system's clocks can wait for; more, a century or two, is no limit.
_LONGEST = threading.TIMEOUT_MAX / 2


def _scale() -> float:
    text = os.environ.get(SCALE_VARIABLE)
    if not text:
        return 1.0
    try:
        scale = float(text)
    except ValueError:
        scale = math.nan
    if not (0 < scale < math.inf):
        raise ConfigError(f"{SCALE_VARIABLE} must be a positive number, not {text!r}", field=SCALE_VARIABLE)
    return scale


class Deadline:
    """A point on the monotonic clock by which something must be over.

    `timeout` is in seconds, multiplied by the environment's `VMFSM_TIMEOUT_SCALE`; int and float mean the
    same, `None` is no limit. While paused, no time passes for it. Safe to use from any thread.

    :raises ConfigError: for a timeout that is not a number, is negative, or is not a time.
    """

    __slots__ = ("_end", "_left", "timeout")

    def __init__(self, timeout: float | None) -> None:
        if timeout is not None:
            if isinstance(timeout, bool) or not isinstance(timeout, int | float):
                raise ConfigError(
                    f"timeout must be a number of seconds or None, not {timeout!r}", field="timeout"
                )
            if timeout < 0 or timeout != timeout:  # noqa: PLR0124 - not a number is not itself; a huge int is
                raise ConfigError(f"timeout must not be negative, but is {timeout!r}", field="timeout")
            try:
                timeout = float(timeout) * _scale()
            except OverflowError:
                timeout = math.inf
            if timeout > _LONGEST:
                timeout = None
        self.timeout = timeout
        self._end = math.inf if timeout is None else time.monotonic() + timeout
        self._left: float | None = None

    def __repr__(self) -> str:
        paused = " paused" if self._left is not None else ""
        return f"<Deadline timeout={self.timeout} remaining={self.remaining()}{paused}>"

    def remaining(self) -> float | None:
        """Seconds left, never below 0; `None` without a limit."""
        left = self._left
        if left is None:
            left = self._end - time.monotonic()
        return None if left == math.inf else max(0.0, left)

    def as_timeout(self, most: float = math.inf) -> float | None:
        """What is left as a `timeout` for another call, which will scale it again.

        :param most: a timeout that it is not to be more than.
        """
        remaining = self.remaining()
        timeout = most if remaining is None else min(most, remaining / _scale())
        return None if timeout == math.inf else timeout

    def leaving(self, least: float) -> "Deadline":
        """This deadline, or one `least` seconds from now if that is later."""
        remaining = self.remaining()
        if remaining is None or remaining >= least:
            return self
        later = Deadline(None)
        later.timeout, later._end = self.timeout, time.monotonic() + least
        return later

    @property
    def expired(self) -> bool:
        return self.remaining() == 0.0

    def pause(self) -> None:
        """Stop the clock for this deadline. Pausing twice is pausing once."""
        if self._left is None:
            self._left = max(0.0, self._end - time.monotonic())

    def resume(self) -> None:
        """Let the clock go on with what was left."""
        left, self._left = self._left, None
        if left is not None:
            self._end = time.monotonic() + left
