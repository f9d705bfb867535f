"""What the tests of the drop-in share."""

import contextlib
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vmfsm.compat import QEMUMachine, QEMUMachineError

NOTHING = ("-M", "none", "-nodefaults")
"""Arguments for a QEMU that does nothing."""

MakeVM = Callable[..., QEMUMachine]


@pytest.fixture
def make_vm(qemu: str, tmp_path: Path) -> Iterator[MakeVM]:
    """Makes machines; kills them at the end."""
    made: list[QEMUMachine] = []

    def make(
        *args: str, kind: type[QEMUMachine] = QEMUMachine, binary: str = qemu, **parameters: Any
    ) -> QEMUMachine:
        made.append(kind(binary, args or NOTHING, **{"base_temp_dir": str(tmp_path), **parameters}))
        return made[-1]

    yield make
    for vm in made:
        with contextlib.suppress(QEMUMachineError):
            vm.kill()


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """As pytest's own, but short, whatever the test's name: a socket's address has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="vm", dir="/tmp") as path:
        yield Path(path)


@pytest.fixture
def short_dir(tmp_path: Path) -> str:
    """A directory whose paths fit into socket addresses."""
    path = tmp_path / "s"
    path.mkdir()
    return str(path)


class Interrupt(Exception):
    """What the signal handler raises, as the handler of a test suite's timeout does."""


@pytest.fixture
def interrupt_after() -> Iterator[Callable[[float], None]]:
    """Has a signal handler raise `Interrupt` in the main thread, after so many seconds."""

    def handler(*_: object) -> None:
        raise Interrupt("too late")

    before = signal.signal(signal.SIGALRM, handler)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds) and None
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
