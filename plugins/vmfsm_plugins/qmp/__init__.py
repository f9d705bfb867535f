"""QEMU's monitor: commands and events over the QEMU Machine Protocol."""

from .aio import AsyncQMP
from .errors import QMPCommandError, QMPConnectionError
from .events import Mark
from .plugin import QMP

__all__ = ["QMP", "AsyncQMP", "Mark", "QMPCommandError", "QMPConnectionError"]
