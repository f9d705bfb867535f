"""The guest's consoles."""

from .api import AsyncConsole, Console
from .expect import Expected
from .plugin import Consoles

__all__ = ["AsyncConsole", "Console", "Consoles", "Expected"]
