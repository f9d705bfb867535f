"""The end of a process in which nothing of Python's runs any more, since one call in C does not return."""

import contextlib
import faulthandler
import signal
import threading
from collections.abc import Iterator

MOST = 10.0
"""Seconds of CPU that one such call may take."""
_TURN = 0.2
_STDERR = 2


@contextlib.contextmanager
def ended_when_stuck() -> Iterator[None]:
    """Inside of it SIGVTALRM ends the process when no thread has had a turn for `MOST` seconds of CPU.

    A regular expression keeps all threads waiting while it is searched for, and one that backtracks may be
    searched for until the end of time: no signal would be handled and no deadline met. Where that was is
    told on stderr, as a traceback. A process that is stopped, or gets no CPU, is not stuck.
    """
    over = threading.Event()

    def take_turns() -> None:
        while True:
            signal.setitimer(signal.ITIMER_VIRTUAL, MOST)
            if over.wait(_TURN):
                return

    faulthandler.register(signal.SIGVTALRM, file=_STDERR, chain=True)
    thread = threading.Thread(target=take_turns, name="vmfsm-turns", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        faulthandler.unregister(signal.SIGVTALRM)
