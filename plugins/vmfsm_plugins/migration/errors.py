"""What a migration raises beside the exceptions of vmfsm itself."""

from vmfsm import VMError


class MigrationError(VMError):
    """A migration failed or was cancelled. The guest has not moved.

    The message has QEMU's own words, of each end that has some.
    """

    source: str | None = None
    """Its status (QMP reference, `MigrationStatus`); `None` where there is no source: `from_file`."""
    destination: str | None = None
    """Its status; `None` where there is no destination: `to_file`."""
    source_error: str = ""
    """What QEMU says on the source; not meant to be parsed."""
    destination_error: str = ""
    """What QEMU says on the destination; not meant to be parsed."""
    source_runs: bool = False
    """Whether the guest runs on, on the source."""
