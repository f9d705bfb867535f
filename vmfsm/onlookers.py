"""Who looks at a machine from outside, beside its test: what they do takes nothing from that."""

import contextlib
import contextvars
from collections.abc import Iterator

_onlooker: contextvars.ContextVar[str | None] = contextvars.ContextVar("vmfsm-onlooker", default=None)


def look_on(name: str) -> None:
    """What this task or thread does is an onlooker's from now on, and so is what it starts in its context.

    A verdict is left to the test: an onlooker is no one of those who "have been told". A hold is for the
    test's time: that of an onlooker goes on, so that who holds a machine is answered all the same. And the
    records of what it asks and waits for say whose they are.
    """
    _onlooker.set(name)


@contextlib.contextmanager
def looking_on(name: str) -> Iterator[None]:
    """The same for what is done in the block: for plugins that look at a machine by themselves.

    :param name: of the onlooker, which records have as `by`.
    """
    before = _onlooker.set(name)
    try:
        yield
    finally:
        _onlooker.reset(before)


def onlooker() -> str | None:
    """The name of the onlooker whose the running task or thread is; `None` where that is of the test."""
    return _onlooker.get()


def is_onlooker() -> bool:
    """Whether it is one's."""
    return _onlooker.get() is not None
