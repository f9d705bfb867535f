"""Have `import qemu.machine` find the drop-in, beside the real `qemu.qmp`."""

import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import qemu.qmp
from qemu.qmp.error import QMPError
from qemu.qmp.protocol import ConnectError
from qemu.qmp.qmp_client import ExecuteError, NegotiationError

from . import console_socket, machine, qtest
from .errors import QMPTimeoutError

_PACKAGE = "qemu.machine"
_EXPORTS = ("QEMUMachine", "QEMUQtestProtocol", "QEMUQtestMachine")

_MODULES: Mapping[str, ModuleType] = {
    "qemu.machine.machine": machine,
    "qemu.machine.console_socket": console_socket,
    "qemu.machine.qtest": qtest,
    # Before there was a package:
    "qemu.console_socket": console_socket,
    "qemu.qtest": qtest,
}

_UTILS = dict.fromkeys(("qemu.utils", "qemu.accel"), "vmfsm.compat.qemu_utils")

# What the monitor's library had before it was `qemu.qmp`, for code that imports or catches it.
_OLD_QMP_NAMES: Mapping[str, object] = {
    "QMPMessage": dict[str, Any],
    "QMPObject": dict[str, object],
    "QMPReturnValue": object,
    "QMPConnectError": ConnectError,
    "QMPCapabilitiesError": NegotiationError,
    "QMPProtocolError": QMPError,
    "QMPResponseError": ExecuteError,
    "QMPTimeoutError": QMPTimeoutError,
}


def install() -> None:
    """Make the drop-in what `qemu.machine` is, in this process. Nothing happens the second time.

    - `qemu.machine`, with `.machine`, `.console_socket` and `.qtest`, also in the old form of modules
      `qemu.machine`, `qemu.qtest` and `qemu.console_socket`, whatever else of these names there is.
    - `qemu.utils` and `qemu.accel`, with the small functions that scripts use, where there is nothing else
      of these names.
    - `qemu.aqmp`, as `qemu.qmp` was once called; and in `qemu.qmp` the old names of its exceptions, where it
      has none.

    To be called before the code in question imports any of them.
    """
    if sys.modules.get(_PACKAGE) is _package:
        return
    for name, module in {_PACKAGE: _package, **_MODULES}.items():
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        setattr(sys.modules[parent], child, module)
    for name, value in _OLD_QMP_NAMES.items():
        if not hasattr(qemu.qmp, name):
            setattr(qemu.qmp, name, value)
    sys.meta_path.insert(0, _Aliases({"qemu.aqmp": "qemu.qmp"}))
    sys.meta_path.append(_Aliases(_UTILS))


def _make_package() -> ModuleType:
    """As a module it once had everything; as a package it exports little."""
    package = ModuleType(_PACKAGE, machine.__doc__)
    package.__path__ = []  # all that is in it is there already
    package.__spec__ = ModuleSpec(_PACKAGE, None, is_package=True)
    package.__package__ = _PACKAGE
    for name in machine.__all__:
        setattr(package, name, getattr(machine, name))
    for name in qtest.__all__:
        setattr(package, name, getattr(qtest, name))
    package.__all__ = list(_EXPORTS)  # type: ignore[attr-defined]
    return package


_package = _make_package()


class _Aliases(MetaPathFinder, Loader):
    """Imports modules, and what is in them, by other names; a module stays one."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return None if self._real(fullname) is None else ModuleSpec(fullname, self)

    def _real(self, fullname: str) -> str | None:
        for alias, name in self._names.items():
            if fullname == alias or fullname.startswith(f"{alias}."):
                return name + fullname.removeprefix(alias)
        return None

    def exec_module(self, module: ModuleType) -> None:
        real = self._real(module.__name__)
        assert real is not None
        sys.modules[module.__name__] = importlib.import_module(real)  # which import takes instead of `module`
