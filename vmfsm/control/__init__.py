"""Ask the machines of other programs of this user, wherever those stand: from Python.

    from vmfsm import control

    for listing in control.machines():
        print(listing.status, listing.name, listing.state)
    with control.find("my-machine") as machine:
        print(machine.snapshot()["state"], machine.qmp("query-status"))

Each program that launches machines answers at a socket in the registry's directory (`vmfsm.registry`), unless
its environment has `VMFSM_CONTROL=0`. `docs/control.md` has the protocol.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .channel import ControlError, Disconnected, NoAnswer, NoSuchMachine
    from .client import Client, Output, Stream
    from .finding import Harness, Listing, find, harnesses, machines

__all__ = [
    "Client",
    "ControlError",
    "Disconnected",
    "Harness",
    "Listing",
    "NoAnswer",
    "NoSuchMachine",
    "Output",
    "Stream",
    "find",
    "harnesses",
    "machines",
]

_WHERE = {
    **dict.fromkeys(("ControlError", "Disconnected", "NoAnswer", "NoSuchMachine"), "channel"),
    **dict.fromkeys(("Client", "Output", "Stream"), "client"),
    **dict.fromkeys(("Harness", "Listing", "NoSuchMachine", "find", "harnesses", "machines"), "finding"),
}


def __getattr__(name: str) -> object:
    """A harness that is asked needs none of this."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_WHERE[name]}", __name__), name)
