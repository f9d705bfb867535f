"""The drop-in: code written for QEMU's own `QEMUMachine` runs on vmfsm unchanged."""

from .console_socket import ConsoleSocket
from .errors import (
    AbnormalShutdown,
    QEMUMachineAddDeviceError,
    QEMUMachineError,
    QMPTimeoutError,
    VMLaunchFailure,
)
from .machine import QEMUMachine

__all__ = (
    "AbnormalShutdown",
    "ConsoleSocket",
    "QEMUMachine",
    "QEMUMachineAddDeviceError",
    "QEMUMachineError",
    "QMPTimeoutError",
    "VMLaunchFailure",
)
