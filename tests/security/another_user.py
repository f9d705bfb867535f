"""Another user of this host, who means no good: Python code that is run as user 65534.

Only root can become another user. A test that needs one takes `needs_another_user`.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

UID = 65534

# Modules are imported before: whoever that is may not read those of the interpreter.
_BECOMES = f"""
import os, socket, stat, struct, sys
os.setgroups([])
os.setresgid({UID}, {UID}, {UID})
os.setresuid({UID}, {UID}, {UID})
os.umask(0)
"""

needs_another_user = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def try_to(program: str, *arguments: "str | os.PathLike[str]") -> str:
    """Run code with `sys.argv[1:]`; what it printed, or the name of the `OSError` that it came to."""
    body = "".join(f"    {line}\n" for line in program.strip().splitlines())
    caught = f"try:\n{body}except OSError as error:\n    print(type(error).__name__)\n"
    ran = subprocess.run(
        [sys.executable, "-c", _BECOMES + caught, *arguments],
        stdout=subprocess.PIPE,
        cwd="/",
        text=True,
        check=True,
        timeout=60,
    )
    said: str = ran.stdout.strip()
    return said


@contextlib.contextmanager
def who_goes_on(program: str, *arguments: "str | os.PathLike[str]") -> Iterator[None]:
    """Run code, to its end before the block, and let its process be there until the end of the block."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"{_BECOMES}{program}\nprint(flush=True)\nsys.stdin.read()",
            *arguments,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd="/",
    )
    with process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            assert process.stdout.read(1) == b"\n", "it has failed"
            yield
        finally:
            process.stdin.close()
            process.wait(60)
