"""`python -m vmfsm.compat SCRIPT …` and `python -m vmfsm.compat -m MODULE …`: as `python` itself runs them,
but `qemu.machine` is the drop-in.
"""

import os
import runpy
import sys
from importlib.machinery import SourceFileLoader
from types import ModuleType, TracebackType

from vmfsm.compat.installing import install

_USAGE = """\
usage: python -m vmfsm.compat SCRIPT [ARGUMENT...]
       python -m vmfsm.compat -m MODULE [ARGUMENT...]

Runs it as python does, with vmfsm.compat in place of qemu.machine.
"""
_OURS = (__file__, runpy.__file__, "<frozen runpy>")


def main() -> None:
    """Run what the arguments say; its end is ours."""
    words = sys.argv[1:]
    if words[:1] in (["-h"], ["--help"]):
        sys.stdout.write(_USAGE)
        return
    is_module = words[:1] == ["-m"]
    if is_module:
        words = words[1:]
    if not words or words[0].startswith("-"):
        sys.stderr.write(_USAGE)
        sys.exit(2)
    install()
    sys.argv = words
    sys.excepthook = _excepthook
    if is_module:
        _run_module(words[0])
    else:
        _run_path(words[0])


def _run_module(name: str) -> None:
    sys.modules["__main__"] = ModuleType("__main__")
    runpy._run_module_as_main(name)  # type: ignore[attr-defined]  # what `python -m` itself calls


def _run_path(script: str) -> None:
    if os.path.isdir(script) or script.endswith((".zip", ".pyz")):
        _insert(script)
        sys.modules["__main__"] = ModuleType("__main__")
        runpy._run_module_as_main("__main__", False)  # type: ignore[attr-defined]
        return
    path = os.path.abspath(script)
    loader = SourceFileLoader("__main__", path)
    try:
        source = loader.get_data(path)
    except OSError as error:
        sys.stderr.write(
            f"{sys.executable}: can't open file {path!r}: [Errno {error.errno}] {error.strerror}\n"
        )
        sys.exit(2)
    _insert(os.path.dirname(os.path.realpath(script)))
    module = ModuleType("__main__")
    module.__file__, module.__loader__ = path, loader
    sys.modules["__main__"] = module
    exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)


def _insert(directory: str) -> None:
    """Where modules are looked for first: in place of the current directory, put there for ourselves."""
    if not sys.flags.safe_path:
        sys.path[0] = directory


def _excepthook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Show what the script did, and not who ran it."""
    while traceback is not None and traceback.tb_frame.f_code.co_filename in _OURS:
        traceback = traceback.tb_next
    sys.__excepthook__(kind, error.with_traceback(traceback), traceback)


if __name__ == "__main__":
    main()
