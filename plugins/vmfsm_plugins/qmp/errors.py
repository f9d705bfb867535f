"""What the monitor raises beside the exceptions of vmfsm itself."""

from vmfsm import VMError


class QMPCommandError(VMError):
    """QEMU answered a command with an error. The monitor works on."""

    error_class: str = ""
    """`GenericError`, `CommandNotFound`, `DeviceNotFound`, … (QMP reference, `QapiErrorClass`)."""
    description: str = ""
    """What QEMU says to people; not meant to be parsed."""
    command: str = ""


class QMPConnectionError(VMError):
    """The connection to the monitor could not be made, or was lost while QEMU lives.

    Whether QEMU has executed what was sent and not answered is not known.
    """
