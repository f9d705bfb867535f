"""The drop-in: code written for QEMU's own `QEMUMachine` runs on vmfsm unchanged."""

from .console_socket import ConsoleSocket
from .errors import (
    AbnormalShutdown,
    QEMUMachineAddDeviceError,
    QEMUMachineError,
    QMPTimeoutError,
    VMLaunchFailure,
)
from .installing import install
from .machine import QEMUMachine
from .qtest import QEMUQtestMachine, QEMUQtestProtocol

__all__ = (
    "AbnormalShutdown",
    "ConsoleSocket",
    "QEMUMachine",
    "QEMUMachineAddDeviceError",
    "QEMUMachineError",
    "QEMUQtestMachine",
    "QEMUQtestProtocol",
    "QMPTimeoutError",
    "VMLaunchFailure",
    "install",
)
