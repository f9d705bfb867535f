"""The threads that make the calls of a walk, and what interrupts the main one."""

import queue
import signal
import threading
from types import FrameType

from tests.waiting import LIMIT
from tests.walks import meddling
from tests.walks.oracle import Interrupt
from tests.walks.subject import Call

MAIN = "main"


class Hand:
    """A thread that makes the calls it is handed, one after the other."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._inbox: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def start(self, call: Call) -> None:
        self._inbox.put(call)

    def stop(self) -> None:
        self._inbox.put(None)
        self._thread.join(LIMIT)
        assert not self._thread.is_alive(), "a call never ended"

    def _work(self) -> None:
        while (call := self._inbox.get()) is not None:
            call.make()


class Interrupter:
    """Makes calls in the main thread that a signal handler's exception hits some time after their begin."""

    def __init__(self) -> None:
        self._call: Call | None = None
        self._before = signal.signal(signal.SIGUSR1, self._handle)

    def close(self) -> None:
        signal.signal(signal.SIGUSR1, self._before)

    def make(self, call: Call, seconds: float) -> None:
        over = threading.Event()

        def send() -> None:
            over.wait(seconds)
            while not over.is_set():  # again, since Python may not see one that comes as it falls asleep
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
                over.wait(0.02)

        thread = threading.Thread(target=send, daemon=True)
        self._call = call
        thread.start()
        try:
            call.make()
        finally:
            self._call = None
            over.set()
            thread.join()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._call is not None and self._call.may_be_hit and not _is_in_a_hook(frame):
            self._call = None
            raise Interrupt("by a signal handler")


def _is_in_a_hook(frame: FrameType | None) -> bool:
    """Those of the walk count how often they run."""
    while frame is not None:
        if frame.f_code.co_filename == meddling.__file__:
            return True
        frame = frame.f_back
    return False
