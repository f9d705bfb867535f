"""The flight recorder: one file of JSON lines for each launch. See `docs/recorder.md`."""

from .plugin import Recorder

__all__ = ("Recorder",)
