"""vmfsm: the life of QEMU virtual machines, for test harnesses."""

from .jsonable import jsonable  # at once: else the name would be the module's

TYPE_CHECKING = False  # for type checkers it is true; `typing` would take a while
if TYPE_CHECKING:
    from .capability import Capabilities, MachineType, capabilities
    from .companion import Companion
    from .deadline import Deadline
    from .descriptors import check_fd
    from .errors import (
        AbnormalExit,
        ConfigError,
        ConsoleClosed,
        Evidence,
        GuestPanicked,
        ImageError,
        LaunchError,
        MachineDied,
        MachineTimeout,
        PluginError,
        PluginLoadError,
        TransitionError,
        Verdict,
        VMError,
        printable,
    )
    from .holds import Hold
    from .hooks import hookimpl, hookspec
    from .judging import ACTIONS, Action
    from .lifecycle import TABLE, Event, Reason, State, Transition
    from .logpaths import open_for_log
    from .machine import Machine
    from .onlookers import looking_on, onlooker
    from .paths import check_path, socket_name
    from .peers import check_peer
    from .plan import LaunchPlan, escape
    from .plugins import PluginInfo
    from .redaction import Secrets
    from .timeline import Record, format_timeline

__all__ = (
    "ACTIONS",
    "TABLE",
    "AbnormalExit",
    "Action",
    "Capabilities",
    "Companion",
    "ConfigError",
    "ConsoleClosed",
    "Deadline",
    "Event",
    "Evidence",
    "GuestPanicked",
    "Hold",
    "ImageError",
    "LaunchError",
    "LaunchPlan",
    "Machine",
    "MachineDied",
    "MachineTimeout",
    "MachineType",
    "PluginError",
    "PluginInfo",
    "PluginLoadError",
    "Reason",
    "Record",
    "Secrets",
    "State",
    "Transition",
    "TransitionError",
    "VMError",
    "Verdict",
    "capabilities",
    "check_fd",
    "check_path",
    "check_peer",
    "escape",
    "format_timeline",
    "hookimpl",
    "hookspec",
    "jsonable",
    "looking_on",
    "onlooker",
    "open_for_log",
    "printable",
    "socket_name",
)

# Where each is. They are imported when first asked for: the command line looks at machines with a small part
# of all this, and should not take longer to start than to answer.
_MODULES = {
    "capability": ("Capabilities", "MachineType", "capabilities"),
    "companion": ("Companion",),
    "deadline": ("Deadline",),
    "descriptors": ("check_fd",),
    "errors": (
        "AbnormalExit",
        "ConfigError",
        "ConsoleClosed",
        "Evidence",
        "GuestPanicked",
        "ImageError",
        "LaunchError",
        "MachineDied",
        "MachineTimeout",
        "PluginError",
        "PluginLoadError",
        "TransitionError",
        "Verdict",
        "VMError",
        "printable",
        "socket_name",
    ),
    "holds": ("Hold",),
    "hooks": ("hookimpl", "hookspec"),
    "judging": ("ACTIONS", "Action"),
    "lifecycle": ("TABLE", "Event", "Reason", "State", "Transition"),
    "logpaths": ("open_for_log",),
    "machine": ("Machine",),
    "onlookers": ("looking_on", "onlooker"),
    "paths": ("check_path", "socket_name"),
    "peers": ("check_peer",),
    "plan": ("LaunchPlan", "escape"),
    "plugins": ("PluginInfo",),
    "redaction": ("Secrets",),
    "timeline": ("Record", "format_timeline"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

if not TYPE_CHECKING:  # which should find what there is not

    def __getattr__(name: str) -> object:
        try:
            module = _MODULE_OF[name]
        except KeyError:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
        from importlib import import_module

        value = globals()[name] = getattr(import_module(f".{module}", __name__), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
