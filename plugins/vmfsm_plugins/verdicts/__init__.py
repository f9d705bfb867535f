"""The built-in plugin for verdicts: what goes wrong in the guest, or in QEMU, is noticed as it happens."""

from .expecting import Expectation
from .plugin import Verdicts

__all__ = ("Expectation", "Verdicts")
