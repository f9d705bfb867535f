"""A forked child owns none of its parent's machines, and does them no harm; it can have its own."""

import textwrap
from pathlib import Path

import pytest

from tests.scripts import run_script

pytestmark = pytest.mark.usefixtures("qemu")

# The parent waits for its child, and then sees that its own machine works in every respect.
FORKING = """
def works(vm):
    vm.console.expect("ready", timeout=30)
    for _ in range(2):
        vm.console.sendline("hello")
        vm.console.expect("echo: hello", timeout=30)
        assert vm.qmp.execute("query-status")["status"] == "running"
    here = vm.qmp.mark()
    vm.qmp.execute("stop")
    vm.qmp.wait_event("STOP", since=here)
    vm.qmp.execute("cont")
    vm.console.sendline("ready")
    vm.console.expect("echo: ready")
    vm.console.sendline("ready")  # for the next time

def parent(child):
    deadline = time.monotonic() + 40
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        if time.monotonic() > deadline:
            print("the child hangs", flush=True)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            break
        time.sleep(0.01)
    assert vm.state is State.RUNNING
    works(vm)
    vm.shutdown()
    print("child:", os.waitstatus_to_exitcode(status), "parent:", vm.state, vm.reason, flush=True)

works(vm)
"""
WELL = "child: {} parent: State.STOPPED Reason.REQUESTED\n"


def run_forking(body: str, directory: Path) -> tuple[int, str, str, list[str]]:
    return run_script(FORKING + textwrap.dedent(body), directory)


ENDS = {
    "its end": ("", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "os._exit": ("os._exit(4)", 4),
}


@pytest.mark.parametrize(("end", "status"), ENDS.values(), ids=ENDS)
def test_a_child_leaves_the_block(tmp_path: Path, end: str, status: int) -> None:
    ran = run_forking(
        f"""
        with vm:
            child = os.fork()
            if child:
                parent(child)
        if not child:
            {end or "pass"}
        """,
        tmp_path,
    )
    assert ran == (0, WELL.format(status), "", [])


def test_an_exception_of_a_child_leaves_the_block(tmp_path: Path) -> None:
    status, out, err, left = run_forking(
        """
        with vm:
            child = os.fork()
            if not child:
                raise ValueError("mine")
            parent(child)
        """,
        tmp_path,
    )
    assert (status, out, left) == (0, WELL.format(1), [])
    assert err.splitlines()[-1] == "ValueError: mine"
    assert err.count("Traceback") == 1


def test_a_child_that_lets_go_of_all(tmp_path: Path) -> None:
    """Even what it collects as garbage is shared with its parent."""
    ran = run_forking(
        """
        import gc
        child = os.fork()
        if not child:
            del vm
            gc.collect()
        else:
            parent(child)
        """,
        tmp_path,
    )
    assert ran == (0, WELL.format(0), "", [])


def test_methods_are_refused(tmp_path: Path) -> None:
    ran = run_forking(
        """
        child = os.fork()
        if child:
            parent(child)
        else:
            for call in (
                vm.launch,
                vm.shutdown,
                vm.kill,
                vm.wait,
                lambda: vm.qmp.execute("quit"),
                lambda: vm.qmp.wait_event("STOP"),
                lambda: vm.qmp.reconnect(),
                lambda: vm.console.expect("x"),
                lambda: vm.console.sendline("poweroff"),
            ):
                try:
                    call()
                except TransitionError as error:
                    assert "forked child" in str(error), error
                else:
                    raise AssertionError(call)
            assert vm.state is State.RUNNING
            assert "ready" in vm.console.text
            assert vm.name in repr(vm)
        """,
        tmp_path,
    )
    assert ran == (0, WELL.format(0), "", [])


def test_a_machine_of_its_own(tmp_path: Path) -> None:
    ran = run_forking(
        """
        child = os.fork()
        if child:
            parent(child)
        else:
            with machine() as own:
                own.launch()
                tell(own)
                works(own)
                assert vm.state is State.RUNNING
            assert (own.state, own.reason) == (State.STOPPED, Reason.REQUESTED)
        """,
        tmp_path,
    )
    assert ran == (0, WELL.format(0), "", [])


def test_a_machine_of_its_own_that_it_leaves(tmp_path: Path) -> None:
    """The child's exit takes the child's machine with it, and only that."""
    ran = run_forking(
        """
        child = os.fork()
        if child:
            parent(child)
        else:
            tell(machine().launch())
            sys.exit(5)
        """,
        tmp_path,
    )
    assert ran == (0, WELL.format(5), "", [])


def test_a_machine_that_was_not_launched_stays_the_parents(tmp_path: Path) -> None:
    ran = run_forking(
        """
        idle = machine()
        child = os.fork()
        if child:
            parent(child)
            idle.launch().shutdown()
        else:
            try:
                idle.launch()
            except TransitionError:
                sys.exit(6)
        """,
        tmp_path,
    )
    assert ran == (0, WELL.format(6), "", [])


def test_multiprocessing(tmp_path: Path) -> None:
    ran = run_forking(
        """
        import multiprocessing
        forking = multiprocessing.get_context("fork")

        def work(own):
            assert vm.state is State.RUNNING
            with vm:
                pass
            if own:
                with machine().launch() as mine:
                    tell(mine)
                    works(mine)

        with vm:
            for own in (False, True, True):
                process = forking.Process(target=work, args=(own,))
                process.start()
                process.join(40)
                works(vm)
                print(process.exitcode, vm.state, flush=True)
        """,
        tmp_path,
    )
    assert ran == (0, "0 State.RUNNING\n" * 3, "", [])


def test_forks_from_a_thread_while_machines_come_and_go(tmp_path: Path) -> None:
    """At whatever moment of a launch or an ending: the child does not hang, the parent does not notice."""
    ran = run_forking(
        """
        over = threading.Event()
        statuses = []

        def fork():
            while not over.is_set():
                child = os.fork()
                if not child:
                    signal.alarm(30)
                    try:
                        vm.kill()
                    except TransitionError:
                        pass
                    sys.exit(0)
                statuses.append(os.waitpid(child, 0)[1])

        forking = threading.Thread(target=fork)
        forking.start()
        for _ in range(4):
            with machine().launch() as other:
                tell(other)
                other.qmp.execute("query-status")
            assert other.reason is Reason.REQUESTED, other.reason
        over.set()
        forking.join()
        assert statuses and not any(statuses), statuses
        works(vm)
        vm.shutdown()
        """,
        tmp_path,
    )
    assert ran == (0, "", "", [])
