"""What follows when something says that the guest is lost: plugins are asked."""

import logging
from typing import Literal, cast, get_args

from .errors import Verdict
from .plugins import PluginSet

Action = Literal["none", "record", "expected", "wake", "fail"]
ACTIONS: tuple[str, ...] = get_args(Action)
"""What may follow a verdict, from nothing at all to the end of the machine:

`none`      nothing, not even a record
`record`    a record in the timeline
`expected`  the same; somebody said that it would come
`wake`      and who waits for the guest, or will next, gets `GuestPanicked`
`fail`      and QEMU is ended at once, so that the machine is `failed`
"""
_LOGGER = logging.getLogger("vmfsm.verdicts")


def judge(machine: object, name: str, plugins: PluginSet, verdict: Verdict) -> Action:
    """What the first plugin with an opinion says; `"wake"` where none has one. On the I/O thread only."""
    arguments = {"machine": machine, "verdict": verdict}
    for implementation in plugins.implementations("judge"):
        who = implementation.plugin
        try:
            action = implementation.function(*(arguments[name] for name in implementation.arguments))
        except BaseException:  # whatever it is: it must not end the reading of what the verdict was found in
            _LOGGER.exception("%s: judge of plugin %r raised", name, who)
            continue
        if action in ACTIONS:
            return cast(Action, action)
        if action is not None:
            _LOGGER.error("%s: judge of plugin %r returned %r, not one of %s", name, who, action, ACTIONS)
    return "wake"
