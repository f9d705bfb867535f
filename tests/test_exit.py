"""However a harness ends by itself, nothing of its machines is left, and it is not changed by that."""

import signal
from pathlib import Path

import pytest

from tests.scripts import run_script

pytestmark = pytest.mark.usefixtures("qemu")

# The status, and the last line on stderr.
ENDS: dict[str, tuple[str, int, str]] = {
    "its end": ("", 0, ""),
    "sys.exit": ("sys.exit(3)", 3, ""),
    "sys.exit with a message": ("sys.exit('sorry')", 1, "sorry"),
    "an exception": ("raise ValueError('mine')", 1, "ValueError: mine"),
    "Ctrl-C": ("signal.raise_signal(signal.SIGINT)", -signal.SIGINT, "KeyboardInterrupt"),
}
ends = pytest.mark.parametrize(("end", "status", "last_line"), ENDS.values(), ids=ENDS)


def assert_said(err: str, last_line: str) -> None:
    """There is what belongs there, and nothing else."""
    lines = err.splitlines()
    if not last_line or len(lines) == 1:
        assert err.strip() == last_line
    else:
        assert lines[0] == "Traceback (most recent call last):"
        assert [line for line in lines[1:] if not line.startswith("  ")] == [last_line]


@ends
def test_a_machine_is_running(tmp_path: Path, end: str, status: int, last_line: str) -> None:
    ran = run_script(end, tmp_path)
    assert (ran.status, ran.left) == (status, [])
    assert_said(ran.err, last_line)


@ends
def test_in_a_block(tmp_path: Path, end: str, status: int, last_line: str) -> None:
    ran = run_script(f"with vm:\n    {end or 'pass'}", tmp_path)
    assert (ran.status, ran.left) == (status, [])
    assert_said(ran.err, last_line)


@ends
@pytest.mark.parametrize("daemon", [False, True])
def test_a_thread_waits(tmp_path: Path, end: str, status: int, last_line: str, daemon: bool) -> None:
    """What it waits for is the end of the machine, and that comes."""
    ran = run_script(
        f"""
        began = threading.Event()

        def wait():
            began.set()
            print(vm.wait(), vm.state, vm.reason, flush=True)

        threading.Thread(target=wait, daemon={daemon}).start()
        assert began.wait(30)
        {end}
        """,
        tmp_path,
    )
    assert (ran.status, ran.left) == (status, [])
    assert_said(ran.err, last_line)
    if not daemon:
        assert ran.out == "-9 State.STOPPED Reason.KILLED\n"


@pytest.mark.parametrize("call", ["vm.console.expect('never')", "vm.qmp.wait_event('STOP', timeout=None)"])
def test_a_thread_waits_for_the_guest(tmp_path: Path, call: str) -> None:
    ran = run_script(
        f"""
        began = threading.Event()

        def wait():
            began.set()
            try:
                {call}
            except MachineDied as died:
                print(died.reason)

        threading.Thread(target=wait).start()
        assert began.wait(30)
        """,
        tmp_path,
    )
    assert ran == (0, "Reason.KILLED\n", "", [])


def test_a_pool_waits(tmp_path: Path) -> None:
    """The threads of a pool are joined before the main thread counts as ended."""
    ran = run_script(
        """
        from concurrent.futures import ThreadPoolExecutor
        waiting = ThreadPoolExecutor().submit(vm.wait)
        waiting.add_done_callback(lambda waiting: print(waiting.result(), flush=True))
        """,
        tmp_path,
    )
    assert ran == (0, "-9\n", "", [])


def test_a_thread_launches(tmp_path: Path) -> None:
    """The launch is cancelled; its process is not forgotten."""
    ran = run_script(
        """
        class Silent:
            name = "silent"
            from vmfsm import hookimpl
            @hookimpl
            def pre_launch(self, plan):
                plan.wrapper[:] = ["sh", "-c", "exec sleep 1000", "sh"]

        silent = Machine("qemu-system-x86_64", base_dir=sys.argv[1], plugins=[Silent()])

        def launch():
            try:
                silent.launch()
            except LaunchError as error:
                print(error.state, silent.reason)

        threading.Thread(target=launch).start()
        while silent.pid is None:
            time.sleep(0.001)
        tell(silent)
        """,
        tmp_path,
    )
    assert ran == (0, "State.STOPPED Reason.KILLED\n", "", [])


def test_several_machines(tmp_path: Path) -> None:
    ran = run_script("for _ in range(3): tell(machine().launch())", tmp_path)
    assert ran == (0, "", "", [])


@pytest.mark.parametrize("call", ["vm.shutdown()", "vm.kill()", "vm.wait()"])
def test_clean_up_of_users(tmp_path: Path, call: str) -> None:
    """What they registered finds everything gone, and does no harm."""
    ran = run_script(f"atexit.register(lambda: print({call}, vm.state, vm.pid))", tmp_path)
    result = "-9" if call == "vm.wait()" else "None"
    assert ran == (0, f"{result} State.STOPPED None\n", "", [])


def test_nothing_runs_any_more(tmp_path: Path) -> None:
    ran = run_script("vm.shutdown(); print(vm.reason); sys.exit(7)", tmp_path)
    assert ran == (7, "Reason.REQUESTED\n", "", [])


def test_clean_up_that_raises_is_told(tmp_path: Path) -> None:
    ran = run_script(
        """
        class Bad:
            name = "bad"
            from vmfsm import hookimpl
            @hookimpl
            def post_shutdown(self):
                raise ValueError("mine")

        tell(Machine("qemu-system-x86_64", name="m", base_dir=sys.argv[1], plugins=[Bad()]).launch())
        """,
        tmp_path,
    )
    assert (ran.status, ran.out, ran.left) == (0, "", [])
    assert ran.err.startswith("m: at exit: ")
    assert "post_shutdown of plugin 'bad' raised ValueError: mine" in ran.err
