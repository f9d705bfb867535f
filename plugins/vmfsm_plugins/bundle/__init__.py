"""All that can be had of a machine in one directory: when it has failed, or somebody asks."""

from .plugin import Bundles

__all__ = ("Bundles",)
