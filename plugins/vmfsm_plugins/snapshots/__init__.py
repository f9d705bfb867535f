"""Snapshots of a running machine: its disks with its memory, or its disks alone."""

from .aio import AsyncSnapshots
from .disks import Snapshot
from .errors import SnapshotError
from .plugin import Snapshots

__all__ = ["AsyncSnapshots", "Snapshot", "SnapshotError", "Snapshots"]
