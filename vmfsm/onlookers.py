"""Who looks at a machine from outside, beside its test: what they do takes nothing from that."""

import contextvars

_looks_on: contextvars.ContextVar[bool] = contextvars.ContextVar("vmfsm-looks-on", default=False)


def look_on() -> None:
    """What this task or thread does is an onlooker's from now on, and so is what it starts in its context.

    A verdict is left to the test: an onlooker is no one of those who "have been told". And a hold is for
    the test's time: that of an onlooker goes on, so that who holds a machine is answered all the same.
    """
    _looks_on.set(True)


def is_onlooker() -> bool:
    """Whether that is so of the running task or thread."""
    return _looks_on.get()
