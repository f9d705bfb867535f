"""Those who get the bytes of a stream, or the events of a monitor, as they come."""

import contextlib
import logging
from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Generic, TypeVar

from vmfsm import ConfigError

T = TypeVar("T")


class Subscribers(Generic[T]):
    """Of one stream, in all launches.

    :param decode: makes of the bytes what each of them gets, an object of its own where it can be changed.
    """

    def __init__(self, logger: logging.Logger, decode: Callable[[bytes], T]) -> None:
        self._logger = logger
        self._decode = decode
        self._callbacks: list[Callable[[T], object]] = []
        self.machine: str | None = None
        """Whose they are, for messages; nobody's before that is configured."""

    def add(self, callback: Callable[[T], object]) -> Callable[[], None]:
        """A function that ends it; from any thread, any number of times.

        :raises ConfigError: for what is no plain function.
        """
        if not callable(callback) or iscoroutinefunction(callback):
            raise ConfigError(f"callback must be a plain function, not {callback!r}", field="callback")

        def call(item: T) -> object:  # an object of its own for each subscription
            return callback(item)

        def unsubscribe() -> None:
            with contextlib.suppress(ValueError):  # twice is once; or it had raised
                self._callbacks.remove(call)

        self._callbacks.append(call)
        return unsubscribe

    def tell(self, data: bytes) -> None:
        """On the I/O thread only. Whoever raises is not called again."""
        for callback in tuple(self._callbacks):
            try:
                callback(self._decode(data))
            except BaseException:  # whatever it is: nobody else may miss anything for it
                self._logger.exception("%s: a subscriber raised and is not called again", self.machine)
                with contextlib.suppress(ValueError):  # it may have unsubscribed itself
                    self._callbacks.remove(callback)
