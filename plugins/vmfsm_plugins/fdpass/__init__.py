"""The `fdpass` plugin: see `FDPass`."""

from .plugin import FDPass

__all__ = ("FDPass",)
