"""QEMU's monitor: commands and events over the QEMU Machine Protocol."""

from .aio import AsyncQMP
from .errors import QMPCommandError, QMPConnectionError
from .events import Mark
from .handed import HandedQMP
from .plugin import QMP

__all__ = ["QMP", "AsyncQMP", "HandedQMP", "Mark", "QMPCommandError", "QMPConnectionError"]
