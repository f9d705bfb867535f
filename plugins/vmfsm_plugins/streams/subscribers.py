"""Those who get the bytes of a stream as they come."""

import contextlib
import logging
from collections.abc import Callable
from inspect import iscoroutinefunction

from vmfsm import ConfigError

Subscriber = Callable[[bytes], object]


class Subscribers:
    """Of one stream, in all launches."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._callbacks: list[Subscriber] = []

    def add(self, callback: Subscriber) -> Callable[[], None]:
        """A function that ends it; from any thread, any number of times.

        :raises ConfigError: for what is no plain function.
        """
        if not callable(callback) or iscoroutinefunction(callback):
            raise ConfigError(f"callback must be a plain function, not {callback!r}", field="callback")

        def call(data: bytes) -> object:  # an object of its own for each subscription
            return callback(data)

        def unsubscribe() -> None:
            with contextlib.suppress(ValueError):  # twice is once; or it had raised
                self._callbacks.remove(call)

        self._callbacks.append(call)
        return unsubscribe

    def tell(self, data: bytes) -> None:
        """On the I/O thread only. Whoever raises is not called again."""
        for callback in tuple(self._callbacks):
            try:
                callback(data)
            except BaseException:  # whatever it is: nobody else may miss anything for it
                self._logger.exception("a subscriber raised and is not called again")
                with contextlib.suppress(ValueError):  # it may have unsubscribed itself
                    self._callbacks.remove(callback)
