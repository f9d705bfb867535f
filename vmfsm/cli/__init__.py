"""The command line, `vmfsm`: looks at machines of any program and acts on them, and at what runs here.

A layer above everything else, which nothing imports. It needs the extra `cli`: click, jinja2,
prompt_toolkit and rich.
"""

import os
import sys

_EXTRA = frozenset({"click", "jinja2", "prompt_toolkit", "rich"})


def main() -> int:
    """Run the command line of this process; its exit status, as of `ExitStatus`."""
    _keep_standard_numbers()
    try:
        from .program import run

        return run(sys.argv[1:])
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        print(f"vmfsm: there is no {missing} here: pip install 'vmfsm[cli]'", file=sys.stderr)
        return 2


def _keep_standard_numbers() -> None:
    """Have 0, 1 and 2 be what they are believed to be: where one is closed, the next file would get it.

    A monitor's socket, say, to which a guest would then write.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            os.set_inheritable(number, True)
