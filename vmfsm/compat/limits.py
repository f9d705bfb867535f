"""Seconds, as old code gives them."""

from vmfsm import ConfigError, Deadline

from .errors import MisuseError


def seconds(timeout: object, name: str = "timeout") -> float | None:
    """Those of a timeout; `None`: no limit; less than none: it is over already.

    :param name: the parameter's, for the message.
    :raises MisuseError: for what is no time.
    """
    if isinstance(timeout, int | float) and timeout < 0:
        return 0.0
    try:
        Deadline(timeout)  # type: ignore[arg-type]  # that is checked there
    except ConfigError as wrong:
        message = str(wrong)
        if wrong.field == "timeout":
            message = name + message.removeprefix("timeout")
        raise MisuseError(message) from wrong
    return timeout  # type: ignore[return-value]
