"""What all tests share: nothing is skipped unseen, nothing is left behind."""

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping

import pytest
from hypothesis import HealthCheck, settings

from tests.waiting import LIMIT
from vmfsm import Machine, VMError, stopping

pytest_plugins = [
    "pytester",
    "tests.linux_guest",
    "tests.plugins.no_skip",
    "tests.posing",
    "vmfsm.testing.pytest_leakcheck",
]

# A busy machine is no failure; what may not take long is asserted where it is.
settings.register_profile("vmfsm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("vmfsm")

BUILT_IN = ("bundle", "console", "fdpass", "logs", "migration", "qmp", "recorder", "snapshots", "verdicts")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The one that takes longest is first, so that no worker is left alone with it at the end."""
    items.sort(key=lambda item: "tests/walks/" not in item.nodeid)


@pytest.fixture(scope="session", autouse=True)
def interrupts() -> None:
    """Ctrl-C is heard, and that a terminal is closed.

    A shell has what it runs in the background ignore the first, nohup(1) the other, and every child of that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def temporary_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A place for temporary files that is this run's alone, so that what is left there is its own."""
    directory = str(tmp_path_factory.mktemp("tmp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", directory)
        patch.setattr(tempfile, "tempdir", directory)
        yield directory


@pytest.fixture
def leakcheck_options(temporary_directory: str) -> Mapping[str, object]:
    return {"directories": [temporary_directory], "patience": LIMIT}


@pytest.fixture(autouse=True)
def nothing_left(leakcheck: None) -> None:
    """No test may leave anything behind."""


@pytest.fixture(scope="session")
def qemu() -> str:
    """QEMU's name."""
    name = "qemu-system-x86_64"
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not in PATH ({os.environ.get('PATH')})")
    return name


@pytest.fixture(scope="session")
def swtpm() -> None:
    if shutil.which("swtpm") is None:
        pytest.skip("swtpm is not in PATH")


@pytest.fixture(scope="session")
def virtiofsd() -> None:
    path = f"{os.environ['PATH']}:/usr/libexec:/usr/lib/qemu"
    if shutil.which("virtiofsd", path=path) is None:
        pytest.skip(f"virtiofsd is not in {path}")
    if os.geteuid() != 0:
        pytest.skip("not every virtiofsd runs without being root")


@pytest.fixture
def guests_have_little_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a `shutdown(guest=True)`, so that QEMU has enough of it on a busy machine."""
    monkeypatch.setattr(stopping, "_SHARE_OF_GUEST", 0.05)


MakeMachine = Callable[..., Machine]


@pytest.fixture
def bare(qemu: str) -> Iterator[MakeMachine]:
    """Makes machines with a QEMU that does nothing, without the built-in plugins; kills them at the end.

    Takes plugin objects, and what `Machine` takes by keyword.
    """
    machines = []

    def make(*plugins: object, **parameters: object) -> Machine:
        settings = {
            "args": ["-M", "none", "-nodefaults"],
            "block": BUILT_IN,
            "plugins": plugins,
            **parameters,
        }
        machines.append(Machine(qemu, **settings))  # type: ignore[arg-type]  # tests pass what is wrong, too
        return machines[-1]

    yield make
    for machine in machines:
        with contextlib.suppress(VMError):
            machine.kill()
