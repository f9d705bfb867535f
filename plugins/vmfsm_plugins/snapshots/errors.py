"""What snapshots raise beside the exceptions of vmfsm itself."""

from vmfsm import VMError


class SnapshotError(VMError):
    """QEMU could not do with a snapshot what it was asked."""

    operation: str = ""
    """`save`, `load`, `delete` or `external`."""
    description: str = ""
    """What QEMU says to people, or what was found out in its place; not meant to be parsed."""
