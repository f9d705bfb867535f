"""The machines of this process, in any state, for as long as somebody holds them."""

import contextlib
import itertools
import os
import weakref
from typing import TYPE_CHECKING

from .errors import ConfigError

if TYPE_CHECKING:
    from .machine import Machine

CONTROL_VARIABLE = "VMFSM_CONTROL"

_machines: "weakref.WeakValueDictionary[int, Machine]" = weakref.WeakValueDictionary()
_numbers = itertools.count(1)


def enter(machine: "Machine") -> None:
    """It has been made, by this process. From any thread."""
    _machines[next(_numbers)] = machine


def is_shown() -> bool:
    """Whether this process answers those who ask for its machines: unless `VMFSM_CONTROL` is 0.

    :raises ConfigError: where that is neither 0 nor 1: somebody may have meant it to be "off".
    """
    said = os.environ.get(CONTROL_VARIABLE) or "1"
    if said not in {"0", "1"}:
        raise ConfigError(f"{CONTROL_VARIABLE} must be 0 or 1, not {said!r}", field=CONTROL_VARIABLE)
    return said == "1"


def present() -> "list[tuple[int, Machine]]":
    """Those that there are, oldest first, each with its number, which no other one gets. From any thread.

    Not those that a forked child has of its parent.
    """
    while True:
        # One may be made, or collected, in the middle of this.
        with contextlib.suppress(RuntimeError):
            return sorted(_machines.items(), key=lambda item: item[0])


os.register_at_fork(after_in_child=_machines.clear)
