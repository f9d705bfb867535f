"""A harness that has no, or hardly any, descriptors left when it launches a machine."""

from pathlib import Path

import pytest

from tests.scripts import run_script

pytestmark = pytest.mark.usefixtures("qemu")

# `few(n)` leaves n descriptors free, with low numbers and high ones.
BEGINNING = """
import contextlib, logging, os, resource, sys
from vmfsm import LaunchError, Machine, State
from vmfsm.testing import GUEST_ARGS

logging.disable()  # that there is no watchdog, say
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True

def opened():
    return {fd for fd in range(256) if is_open(fd)}

@contextlib.contextmanager
def few(free):
    filling = []
    while not filling or filling[-1] <= max(opened() - set(filling)):
        filling.append(os.open("/dev/null", os.O_RDONLY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (filling[-1] + 1 + free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in filling:
            os.close(fd)

def machine():
    return Machine("qemu-system-x86_64", GUEST_ARGS, base_dir=sys.argv[1])

vm = machine()

def launched_with(free):
    before = opened()
    with few(free):
        try:
            vm.launch(timeout=60)
        except LaunchError as error:
            assert "Too many open files" in str(error), error
            launched = False
        else:
            launched = True
            vm.shutdown()
            assert vm.state is State.STOPPED, vm
        vm.shutdown()
    assert os.listdir(sys.argv[1]) == [], os.listdir(sys.argv[1])
    return launched, opened() - before

def works():
    with vm:
        vm.launch()
        vm.console.expect("ready", timeout=60)
        assert vm.qmp.execute("query-status")["status"] == "running"
    assert vm.state is State.STOPPED, vm
"""


def test_a_harness_that_has_launched_before(tmp_path: Path) -> None:
    """However many are free, a launch that lacks one says so and leaves nothing; a later one is as good."""
    ran = run_script(
        """
        works()
        outcomes = [launched_with(free) for free in range(26)]
        works()
        assert not any(more for _, more in outcomes), outcomes
        launched = [launched for launched, _ in outcomes]
        assert launched == sorted(launched), launched  # from some number on, it is enough
        assert launched[-1] and not launched[0], launched
        """,
        tmp_path,
        beginning=BEGINNING,
    )
    assert ran == (0, "", "", []), ran


def test_a_harness_that_has_not(tmp_path: Path) -> None:
    """Now the I/O thread, the registry and the watchdog lack theirs, too. Each time in a fresh process.

    The watchdog is there with the next launch.
    """
    ran = run_script(
        """
        statuses = []
        for free in range(10):
            child = os.fork()
            if not child:
                vm = machine()
                launched_with(free)
                works()
                from vmfsm.ownership import Ownership
                assert Ownership.get()._watchdog is not None
                sys.exit(0)
            statuses.append(os.waitpid(child, 0)[1])
        assert not any(statuses), statuses
        """,
        tmp_path,
        beginning=BEGINNING,
    )
    assert ran == (0, "", "", []), ran
