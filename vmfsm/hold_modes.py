"""When machines are held without being told to: the environment variable `VMFSM_HOLD`."""

import os

from .errors import ConfigError

VARIABLE = "VMFSM_HOLD"
ON_FAILURE = "on-failure"
BREAKPOINT = "breakpoint"
_MODES = (ON_FAILURE, BREAKPOINT)

# By their names, since they are of modules that need not be there; also for what is derived from them.
_NO_FAILURES = frozenset(
    {"KeyboardInterrupt", "SystemExit", "GeneratorExit", "CancelledError", "BdbQuit"}
    | {"SkipTest", "Skipped", "XFailed", "Exit"}
)


def hold_modes() -> frozenset[str]:
    """What the variable asks for.

    :raises ConfigError: for a word that it may not hold.
    """
    words = [word.strip() for word in os.environ.get(VARIABLE, "").split(",")]
    for word in words:
        if word and word not in _MODES:
            raise ConfigError(
                f"{VARIABLE} must be some of {', '.join(_MODES)}, with commas, but has {word!r}",
                field=VARIABLE,
            )
    return frozenset(filter(None, words))


def is_failure(error: BaseException) -> bool:
    """Whether an exception says that something failed, rather than that it was skipped or interrupted."""
    return _NO_FAILURES.isdisjoint(base.__name__ for base in type(error).__mro__)
