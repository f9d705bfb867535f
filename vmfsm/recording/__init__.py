"""Reading the recordings that the plugin `recorder` writes: `from vmfsm import recording`.

    it = recording.read("vm-20261121T214647Z-30321-0001.jsonl")
    print(format_timeline(it.records()))

Whatever is in a file, reading it does not fail: a recording ends where its harness was killed, and what is
damaged is left out. `Recording.problems` says so.
"""

from .reading import FORMAT, VERSION, Recording, read
from .schema import schema

__all__ = ("FORMAT", "VERSION", "Recording", "read", "schema")
