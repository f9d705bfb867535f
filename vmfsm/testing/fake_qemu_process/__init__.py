"""The process that `vmfsm.testing.FakeQEMU` runs in QEMU's place.

It is started by an interpreter without site-packages, many times in a run of tests, so it imports next to
nothing: not vmfsm, and of the standard library only what the interpreter has at hand. What is needed later
(`json`, `socket`) is imported when QEMU would have greeted already.
"""
