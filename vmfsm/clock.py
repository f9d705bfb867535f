"""The clock of a machine's deadlines, which stands still while the machine is held."""

import time


class Clock:
    """Seconds that go on as those of `time.monotonic()` do, but for those that it stood still.

    It may be read in any thread, and never waits. `stop` and `start` are for one thread at a time.
    """

    __slots__ = ("_state",)

    def __init__(self) -> None:
        # How long it has stood still so far, and since when it does. Always changed as one.
        self._state: tuple[float, float | None] = (0.0, None)

    @property
    def stands_still(self) -> bool:
        return self._state[1] is not None

    def now(self) -> float:
        while True:
            state = lost, stopped = self._state
            now = time.monotonic() if stopped is None else stopped
            if state is self._state:  # else the time may be one at which it stood still already
                return now - lost

    def stop(self) -> None:
        """Stand still from now on. Twice is once."""
        lost, stopped = self._state
        if stopped is None:
            self._state = lost, time.monotonic()

    def start(self) -> None:
        """Go on from where it stands."""
        lost, stopped = self._state
        if stopped is not None:
            self._state = lost + time.monotonic() - stopped, None
