"""The command line, `vmfsm`: looks at machines of any program and acts on them, and at what runs here.

A layer above everything else, which nothing imports. It needs the extra `cli` (click, rich, prompt_toolkit).
"""

import sys

_EXTRA = frozenset({"click", "rich", "prompt_toolkit"})


def main() -> int:
    """Run the command line of this process; its exit status, as of `ExitStatus`."""
    try:
        from .program import run

        return run(sys.argv[1:])
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        print(f"vmfsm: there is no {missing} here: pip install 'vmfsm[cli]'", file=sys.stderr)
        return 2
