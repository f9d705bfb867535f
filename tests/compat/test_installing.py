"""`install`: old imports find the drop-in, each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

IMPORTS = {
    "package": """
        from qemu.machine import QEMUMachine, QEMUQtestMachine, QEMUQtestProtocol
        assert issubclass(QEMUQtestMachine, QEMUMachine)
        import qemu.machine
        assert set(qemu.machine.__all__) == {"QEMUMachine", "QEMUQtestMachine", "QEMUQtestProtocol"}
    """,
    "modules in it": """
        from qemu.machine import machine, qtest, console_socket
        from qemu.machine.machine import QEMUMachine, VMLaunchFailure, QEMUMachineAddDeviceError
        from qemu.machine.console_socket import ConsoleSocket
        import qemu.machine.qtest
        assert machine.AbnormalShutdown and machine.VMLaunchFailure is VMLaunchFailure
        assert issubclass(qtest.QEMUQtestMachine, QEMUMachine)
        assert qemu.machine.qtest is qtest and console_socket.ConsoleSocket is ConsoleSocket
    """,
    "everything from one module, as it once was": """
        from qemu.machine import QEMUMachine, QEMUMachineError, QEMUMachineAddDeviceError, AbnormalShutdown
        import qemu.machine, qemu.qtest, qemu.qmp
        from qemu import qtest
        from qemu.qtest import QEMUQtestMachine, QEMUQtestProtocol
        from qemu.console_socket import ConsoleSocket
        assert qtest.QEMUQtestMachine is QEMUQtestMachine
    """,
    "plain": """
        import qemu
        assert qemu.machine.QEMUMachine
    """,
    "the real monitor library": """
        import qemu.qmp, qemu.qmp.protocol
        from qemu.qmp import ConnectError, QMPError, QMPClient, SocketAddrT
        from qemu.qmp.qmp_client import ExecuteError
        from qemu.machine import QEMUMachine
        assert qemu.qmp.__spec__.name == "qemu.qmp"
    """,
    "the library's older names": """
        from qemu.qmp import QMPMessage, QMPConnectError, QMPTimeoutError
        import qemu.aqmp.protocol
        from qemu.aqmp import ConnectError
        import qemu.qmp
        assert qemu.qmp.protocol.ConnectError is ConnectError is qemu.aqmp.protocol.ConnectError
        assert QMPConnectError is ConnectError and qemu.qmp.__name__ == "qemu.qmp"
    """,
    "utilities": """
        from qemu.utils import get_info_usernet_hostfwd_port, kvm_available, tcg_available, hvf_available
        from qemu.utils import VerboseProcessError, list_accel
        from qemu.accel import kvm_available
    """,
}


def run(directory: Path, *words: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", *([] if code is None else ["-c", code]), *words]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60, check=False)


def dedented(code: str) -> str:
    return "\n".join(line.strip() for line in code.strip().splitlines())


@pytest.mark.parametrize("form", IMPORTS)
def test_old_imports(tmp_path: Path, form: str) -> None:
    code = "import vmfsm.compat\nvmfsm.compat.install()\nvmfsm.compat.install()\n" + dedented(IMPORTS[form])
    ran = run(tmp_path, code=code)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_nothing_changes_before(tmp_path: Path) -> None:
    ran = run(tmp_path, code="import vmfsm.compat, qemu.machine")
    assert "No module named 'qemu.machine'" in ran.stderr


def test_another_one_is_not_found_any_more(tmp_path: Path) -> None:
    """A script may have QEMU's source tree in its path."""
    for name in ("machine", "utils"):
        (tmp_path / "python/qemu" / name).mkdir(parents=True)
        (tmp_path / "python/qemu" / name / "__init__.py").write_text(f"name = 'the {name} of the tree'\n")
    code = """
        import sys, vmfsm.compat
        sys.path.insert(0, "python")
        import qemu.machine
        assert qemu.machine.name == "the machine of the tree"
        vmfsm.compat.install()
        import qemu.machine
        from qemu.machine import QEMUMachine
        assert QEMUMachine is vmfsm.compat.QEMUMachine is qemu.machine.QEMUMachine
        import qemu.utils
        assert qemu.utils.name == "the utils of the tree"
    """
    ran = run(tmp_path, code=dedented(code))
    assert (ran.returncode, ran.stderr) == (0, "")


def test_legacy_code_is_not_imported(tmp_path: Path) -> None:
    code = "import sys, vmfsm.compat; vmfsm.compat.install(); print('qemu.qmp.legacy' in sys.modules)"
    assert run(tmp_path, code=code).stdout == "False\n"


SCRIPT = """
import sys
from qemu.machine import QEMUMachine
from beside import what
def main():
    print(what, sys.argv[1:], __name__, __file__)
    if "fail" in sys.argv:
        raise ValueError("as it is meant")
    with QEMUMachine(sys.argv[1], ["-machine", "none"]) as vm:
        vm.launch()
        print(vm.qmp("query-name"))
if __name__ == "__main__":
    main()
    sys.exit(7)
"""


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/script.py").write_text(SCRIPT)
    (tmp_path / "sub/__main__.py").write_text(SCRIPT)
    (tmp_path / "sub/beside.py").write_text("what = 'beside'\n")
    (tmp_path / "beside.py").write_text("what = 'here'\n")
    (tmp_path / "broken.py").write_text("this is no\n")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "file", "what"),
    [
        (["sub/script.py"], "sub/script.py", "beside"),
        (["-m", "sub.script"], "sub/script.py", "here"),
        (["-m", "sub"], "sub/__main__.py", "here"),
        (["sub"], "sub/__main__.py", "beside"),
    ],
)
def test_a_script_runs_unchanged(scripts: Path, qemu: str, words: list[str], file: str, what: str) -> None:
    ran = run(scripts, "-m", "vmfsm.compat", *words, qemu)
    shown = f"{what} {[qemu]} __main__ "
    assert ran.stderr == ""
    assert ran.stdout.startswith(shown)
    said = ran.stdout.removeprefix(shown).splitlines()
    assert os.path.realpath(scripts / said[0]) == os.path.realpath(scripts / file)
    assert said[1:] == ["{'return': {}}"]
    assert ran.returncode == 7


def test_a_script_that_fails_shows_itself_alone(scripts: Path) -> None:
    ran = run(scripts, "-m", "vmfsm.compat", "sub/script.py", "fail")
    assert ran.returncode == 1
    shown = [line.strip() for line in ran.stderr.splitlines()]
    assert shown[0] == "Traceback (most recent call last):"
    assert shown[1] == f'File "{scripts}/sub/script.py", line 13, in <module>'
    assert shown[-1] == "ValueError: as it is meant"
    assert ran.stderr.count("File ") == 2


@pytest.mark.parametrize(
    "words", [["broken.py"], ["not/there.py"], ["-m", "not.there"], ["sub/script.py", "fail"]]
)
def test_what_cannot_be_run_fails_as_it_does_in_python(scripts: Path, words: list[str]) -> None:
    (scripts / "sub/script.py").write_text("import sys\nraise ValueError('as it is meant')\n")
    ours, pythons = run(scripts, "-m", "vmfsm.compat", *words), run(scripts, *words)
    assert (ours.returncode, ours.stdout, ours.stderr) == (pythons.returncode, "", pythons.stderr)


def test_nothing_to_run(tmp_path: Path) -> None:
    for words in ([], ["-m"], ["--nonsense"]):
        ran = run(tmp_path, "-m", "vmfsm.compat", *words)
        assert ran.returncode == 2
        assert ran.stderr.startswith("usage:")
    ran = run(tmp_path, "-m", "vmfsm.compat", "--help")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("usage:")


def test_an_interrupted_script_ends_by_the_signal(scripts: Path) -> None:
    (scripts / "script.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nwhile True: pass\n"
    )
    ran = run(scripts, "-m", "vmfsm.compat", "script.py")
    assert ran.returncode == -2
    assert "KeyboardInterrupt" in ran.stderr
