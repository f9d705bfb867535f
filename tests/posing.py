"""Programs that pose as QEMU: they say which accelerators they have, and run a real one otherwise.

binary = Posing(directory, accelerators=["tcg", "odd"], odd=HANG)
"""

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# What such a program does with a command line that asks for an accelerator, with its `args` changed in place.
HANG = "time.sleep(1000)"
SPIN = "while True: pass"
DIE = "sys.exit('qemu-system-x86_64: it breaks')"
# For x86: a guest that halts at once, and stays so.
HALT = """
if "-bios" in args:
    image = sys.argv[0] + ".image"
    with open(image, "wb") as file:
        file.write(b"\\xf4" * 65536)
    args[args.index("-bios") + 1] = image
"""
# For x86: without its device the guest ends by a reset.
WITHOUT_DEVICE = """
at = args.index("-device") if "-device" in args else len(args)
del args[at:at + 2]
"""
STOP = WITHOUT_DEVICE + "args.append('-no-shutdown')"

_PROGRAM = """\
#!{python} -IS
import os, signal, sys, time
args = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(" ".join(args) + "\\n")
if args == ["-accel", "help"]:
    {on_help}
    print("Accelerators supported in QEMU binary:\\n" + "\\n".join({accelerators!r}), flush=True)
    sys.exit(0)
behaviours = {behaviours!r}
for name in [args[i + 1] for i, arg in enumerate(args) if arg == "-accel"][:1]:
    if name in behaviours:
        args[args.index(name)] = "tcg"
        exec(behaviours[name])
os.execvp({qemu!r}, [{qemu!r}, *args])
"""


class Posing:
    """Such a program: `behaviours` is what it does for which accelerator, which becomes tcg otherwise."""

    def __init__(self, directory: Path, accelerators: list[str], **how: str) -> None:
        """:param how: as in `write`."""
        self.path = directory / "posing"
        self._log = directory / "posing.log"
        self.write(accelerators, **how)

    def write(
        self,
        accelerators: list[str],
        *,
        qemu: str = "qemu-system-x86_64",
        on_help: str = "pass",
        **behaviours: str,
    ) -> None:
        """Replace the file."""
        program = _PROGRAM.format(
            python=sys.executable,
            log=str(self._log),
            accelerators=accelerators,
            on_help=on_help,
            behaviours=behaviours,
            qemu=qemu,
        )
        new = self.path.with_name("new")
        new.write_text(program)
        new.chmod(0o755)
        os.replace(new, self.path)

    @property
    def runs(self) -> list[str]:
        """The command lines that it was run with so far."""
        return self._log.read_text().splitlines() if self._log.exists() else []


Pose = Callable[..., Posing]


@pytest.fixture
def posing(tmp_path: Path) -> Pose:
    """Makes one in the test's directory."""
    return functools.partial(Posing, tmp_path)


def wait_for(path: Path) -> str:
    """What such a program does until there is this file."""
    return f"while not os.path.exists({str(path)!r}): time.sleep(0.01)"
