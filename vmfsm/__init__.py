"""vmfsm: the life of QEMU virtual machines, for test harnesses."""

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
from .hooks import hookimpl, hookspec
from .jsonable import jsonable
from .judging import ACTIONS, Action
from .lifecycle import TABLE, Event, Reason, State, Transition
from .logpaths import open_for_log
from .machine import Machine
from .paths import check_path
from .peers import check_peer
from .plan import LaunchPlan, escape
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
    "ImageError",
    "LaunchError",
    "LaunchPlan",
    "Machine",
    "MachineDied",
    "MachineTimeout",
    "MachineType",
    "PluginError",
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
    "open_for_log",
    "printable",
)
