"""Answers that are asked for once in a process, however many threads want them at the same time."""

import copy
import threading
from collections.abc import Callable, Hashable

from .deadline import Deadline
from .errors import LaunchError
from .perprocess import per_process


class _Pending:
    """An answer that some thread is asking for."""

    def __init__(self) -> None:
        self.over = False
        self.answer: object = None
        self.refusal: LaunchError | None = None
        """What everybody who waits for it is told; `None` after a failure that was the asker's own."""


class Answers:
    """The answers of this process, by what they depend on. From any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._pending: dict[Hashable, _Pending] = {}

    @classmethod
    def get(cls) -> "Answers":
        """Those of this process; a forked child begins with none."""
        return per_process(cls)

    def wake(self) -> None:
        """Have the threads that wait look whether they still want to. Never waits long."""
        with self._changed:
            self._changed.notify_all()

    def answer(
        self,
        key: Hashable,
        ask: Callable[[], object],
        deadline: Deadline,
        given_up: Callable[[], bool],
    ) -> object:
        """What `ask` returns: for each key it is called once, and again only as long as it fails.

        :param given_up: whether a thread that waits for another one's answer does not want it any more.
        :raises TimeoutError: when another thread has no answer by the deadline, or was given up waiting for.
        """
        while True:
            with self._changed:
                pending = self._pending.get(key)
                if pending is None:
                    pending = self._pending[key] = _Pending()
                    break
                while not pending.over:
                    if deadline.expired or given_up():
                        raise TimeoutError("another thread has not got the answer yet")
                    self._changed.wait(deadline.nap())
                if pending.refusal is not None:
                    raise copy.copy(pending.refusal) from pending.refusal
                if self._pending.get(key) is pending:
                    return pending.answer
        return self._ask(key, pending, ask)

    def _ask(self, key: Hashable, pending: _Pending, ask: Callable[[], object]) -> object:
        answered = False
        try:
            pending.answer = ask()
            answered = True
        except LaunchError as error:
            pending.refusal = error
            raise
        finally:
            with self._changed:
                pending.over = True
                if not answered:
                    del self._pending[key]
                self._changed.notify_all()
        return pending.answer
