"""Live migration: a running machine moves to another QEMU, or into a file and out of it."""

from .aio import AsyncMigration
from .errors import MigrationError
from .plugin import Migration
from .progress import Progress

__all__ = ["AsyncMigration", "Migration", "MigrationError", "Progress"]
