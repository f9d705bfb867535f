"""Whatever is given wrongly is refused by name, starts nothing and changes nothing."""

import math
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import BUILT_IN, MakeMachine
from vmfsm import (
    ConfigError,
    LaunchError,
    LaunchPlan,
    Machine,
    Reason,
    State,
    TransitionError,
    check_path,
    hookimpl,
)


class Seen:
    """Would notice a launch."""

    name = "seen"

    def __init__(self) -> None:
        self.launches = 0

    @hookimpl
    def pre_launch(self) -> None:
        self.launches += 1


def assert_untouched(machine: Machine) -> None:
    assert (machine.state, machine.reason, machine.history) == (State.CONFIGURED, None, ())
    assert (machine.pid, machine.exit_status, machine.timeline) == (None, None, ())
    assert machine.plugin("seen").launches == 0


# -- the constructor ----------------------------------------------------------------------------------------

NUL = "a\0b"
PARAMETERS: list[tuple[str, object]] = [
    *(("args", value) for value in ("-m 64", b"-m", None, 5, {"-m": 64}, {"-m"}, ["-m", 64], [b"-m"], [NUL])),
    *(("args", value) for value in (["-daemonize"], ["-m", "64", "--daemonize"], iter(["-m"]))),
    *(("wrapper", value) for value in ("strace", b"strace", None, 5, ["strace", None], [NUL])),
    *(("plugins", value) for value in ("qmp", b"qmp", None, 5, {"qmp"})),
    *(("block", value) for value in ("qmp", b"qmp", None, 5, [5], [b"qmp"])),
    *(
        ("name", value)
        for value in ("", "a/b", "../a", ".", "..", " ", "a b", "-a", NUL, "a\nb", "x" * 65, 5, b"a")
    ),
    *(("env", value) for value in ("A=1", ["A"], 5)),
    *(("env", value) for value in ({"": "1"}, {"A=B": "1"}, {NUL: "1"}, {5: "1"})),
    *(("env['A']", {"A": value}) for value in (1, b"1", NUL, True)),
    *(("cwd", value) for value in ("", 5, b"/", NUL, ["/"])),
    *(("log_dir", value) for value in ("", 5, b"/", NUL)),
    *(("base_dir", value) for value in ("", 5, b"/", NUL)),
    *(("display", value) for value in ("", 5, b"none", True, ["none"])),
    *(
        ("expected_exits", value)
        for value in (0, "0", None, [-1], [256], ["0"], [0.0], [True], [None], [[0]])
    ),
    *(("options", value) for value in ("qmp", ["qmp"], 5)),
    *(("options['qmp']", {"qmp": value}) for value in (None, "address", 5, {5: "x"})),
    ("options['nobody']", {"nobody": {}}),
    ("options['qmp']", {"qmp": {"address": "/tmp/x"}}),  # which is blocked here
]


@pytest.mark.parametrize(
    ("field", "value"), PARAMETERS, ids=[f"{field}-{number}" for number, (field, _) in enumerate(PARAMETERS)]
)
def test_parameters(bare: MakeMachine, field: str, value: object) -> None:
    plugin = Seen()
    parameter = field.partition("[")[0]
    with pytest.raises(ConfigError) as caught:
        bare(plugin, **{parameter: value})
    error = caught.value
    assert error.field == field
    assert parameter.partition("[")[0].rstrip("s") in str(error) or "daemonize" in str(error)
    assert "\0" not in str(error)
    assert bare(plugin).state is State.CONFIGURED, "the plugin still belongs to nobody"


@pytest.mark.parametrize("binary", ["", None, 5, b"qemu", NUL, ["qemu"]])
def test_binaries(binary: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        Machine(binary)
    assert caught.value.field == "binary"
    assert "binary" in str(caught.value)


def test_no_such_parameter(bare: MakeMachine) -> None:
    with pytest.raises(TypeError):
        bare(volume=11)


GOOD: list[dict[str, Any]] = [
    {"args": ("-m", "64")},
    {"args": []},
    {"wrapper": ["strace", "-f"]},
    {"env": {"A": "1", "B": None}},
    {"env": {}},
    {"name": "a.b_c+d@e:f-1"},
    {"name": "x" * 64},
    {"cwd": Path("/")},
    {"log_dir": Path("/"), "base_dir": "/"},
    {"display": None},
    {"display": "egl-headless"},
    {"expected_exits": {0, 3}},
    {"expected_exits": range(256)},
    {"expected_exits": ()},
    {"options": {}},
    {"options": None},
    {"block": (*BUILT_IN, "nobody")},
]


@pytest.mark.parametrize("parameters", GOOD, ids=repr)
def test_good_parameters(bare: MakeMachine, parameters: dict[str, Any]) -> None:
    assert bare(**parameters).state is State.CONFIGURED


def test_what_was_given_is_copied(bare: MakeMachine) -> None:
    args, wrapper = ["-M", "none"], ["env"]
    machine = bare(args=args, wrapper=wrapper)
    before = machine.command
    args.append("-daemonize")
    wrapper.append("true")
    assert machine.command == before


def test_a_plugin_cannot_daemonize_either(bare: MakeMachine) -> None:
    class Daemonizing:
        name = "daemonizing"

        @hookimpl
        def pre_launch(self, plan: LaunchPlan) -> None:
            plan.args.append("-daemonize")

    machine = bare(Daemonizing())
    with pytest.raises(LaunchError, match="-daemonize") as caught:
        machine.launch()
    assert isinstance(caught.value.__cause__, ConfigError)
    assert machine.exit_status is None


# -- timeouts -----------------------------------------------------------------------------------------------


async def nothing() -> None: ...


TIMEOUTS: list[object] = [-1, -0.1, -math.inf, math.nan, "5", b"5", True, [5]]
CALLS: dict[str, Callable[[Machine, Any], object]] = {
    "launch": lambda machine, timeout: machine.launch(timeout),
    "shutdown": lambda machine, timeout: machine.shutdown(timeout=timeout),
    "shutdown guest": lambda machine, timeout: machine.shutdown(guest=True, timeout=timeout),
    "kill": lambda machine, timeout: machine.kill(timeout),
    "wait": lambda machine, timeout: machine.wait(timeout),
    "run": lambda machine, timeout: machine.run(nothing(), timeout=timeout, operation="nothing"),
}


@pytest.fixture
def shared(qemu: str) -> Iterator[Machine]:
    """A machine that is running."""
    with Machine(qemu, ["-M", "none", "-nodefaults"], block=BUILT_IN, plugins=[Seen()]) as machine:
        yield machine.launch()


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("timeout", TIMEOUTS, ids=repr)
def test_timeouts(bare: MakeMachine, call: str, timeout: object) -> None:
    machine = bare(Seen())
    with pytest.raises(ConfigError) as caught:
        CALLS[call](machine, timeout)
    assert caught.value.field == "timeout"
    assert repr(timeout) in str(caught.value)
    assert_untouched(machine)


@pytest.mark.parametrize("call", CALLS)
def test_timeouts_of_a_machine_that_runs(shared: Machine, call: str) -> None:
    before = shared.pid, shared.history
    for timeout in TIMEOUTS:
        with pytest.raises(ConfigError):
            CALLS[call](shared, timeout)
    assert (shared.pid, shared.history) == before
    assert shared.state is State.RUNNING


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("scale", ["0", "-1", "fast", "nan", "inf"])
def test_the_scale(bare: MakeMachine, monkeypatch: pytest.MonkeyPatch, call: str, scale: str) -> None:
    machine = bare(Seen())
    with monkeypatch.context() as patch:
        patch.setenv("VMFSM_TIMEOUT_SCALE", scale)
        with pytest.raises(ConfigError) as caught:
            CALLS[call](machine, 5)
    assert caught.value.field == "VMFSM_TIMEOUT_SCALE"
    assert repr(scale) in str(caught.value)
    assert_untouched(machine)


# -- what only the system can say ---------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with things that can't be run."""
    (tmp_path / "plain").write_text("no program")
    (tmp_path / "script").write_text("exit 0\n")  # no #!, so that only a shell would run it
    (tmp_path / "script").chmod(0o755)
    (tmp_path / "interpreter").write_text("#!/nonexistent/interpreter\n")
    (tmp_path / "interpreter").chmod(0o755)
    (tmp_path / "garbage").write_bytes(b"\x7fELF" + b"\0" * 60)
    (tmp_path / "garbage").chmod(0o755)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "directory").mkdir()
    return tmp_path


def assert_launch_fails(machine: Machine, *words: str) -> LaunchError:
    """With no process, saying what was wrong; and it can be tried again, as nothing is left of it."""
    for _ in range(2):
        with pytest.raises(LaunchError) as caught:
            machine.launch()
        error = caught.value
        assert (machine.state, machine.reason) == (State.FAILED, Reason.LAUNCH_ERROR)
        assert (machine.pid, machine.exit_status, error.exit_status) == (None, None, None)
        assert (error.machine, error.state, error.errors) == (machine.name, State.FAILED, ())
        assert error.command == machine.command
        for word in (machine.name, *words):
            assert word in str(error)
    return error


@pytest.mark.parametrize("parameter", ["binary", "wrapper"])
@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("nothing", "no such file"),
        ("dangling", "no such file"),
        ("directory", "is a directory"),
        ("plain", "is not executable"),
        ("script", "Exec format error"),
        ("garbage", "Exec format error"),
        ("interpreter", "No such file"),
    ],
)
def test_what_cannot_be_run(place: Path, parameter: str, file: str, why: str) -> None:
    path = str(place / file)
    binary = path if parameter == "binary" else "qemu-system-x86_64"
    wrapper = [path] if parameter == "wrapper" else []
    machine = Machine(binary, wrapper=wrapper, block=BUILT_IN)
    assert_launch_fails(machine, path, why)


def test_what_is_not_in_the_path(place: Path) -> None:
    machine = Machine("qemu-system-z80", block=BUILT_IN, env={"PATH": f"{place}:/nonexistent"})
    assert_launch_fails(machine, "qemu-system-z80", f"{place}:/nonexistent")
    wrapped = Machine("true", wrapper=["straze"], block=BUILT_IN)
    assert_launch_fails(wrapped, "straze", os.environ["PATH"])


def test_the_path_that_counts_is_the_machines(place: Path, qemu: str) -> None:
    machine = Machine(qemu, block=BUILT_IN, env={"PATH": str(place)})
    assert_launch_fails(machine, qemu, str(place))


@pytest.mark.parametrize("parameter", ["cwd", "log_dir", "base_dir"])
@pytest.mark.parametrize("file", ["nothing", "plain", "dangling"])
def test_what_is_no_directory(bare: MakeMachine, place: Path, parameter: str, file: str) -> None:
    assert_launch_fails(bare(**{parameter: place / file}), parameter, str(place / file))


WITHOUT_PRIVILEGES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
UNWRITABLE = """
import sys
from vmfsm import LaunchError, Machine
parameter, directory, *block = sys.argv[1:]
machine = Machine("true", block=block, **{parameter: directory})
try:
    machine.launch()
except LaunchError as error:
    print(machine.state.value, machine.exit_status, error)
"""


@pytest.mark.parametrize("parameter", ["log_dir", "base_dir"])
def test_what_cannot_be_written(place: Path, parameter: str) -> None:
    directory = place / "directory"
    directory.chmod(stat.S_IRUSR | stat.S_IXUSR)
    # Permissions mean nothing to root, unless it has no capabilities.
    wrapper = WITHOUT_PRIVILEGES if os.geteuid() == 0 else ()
    said = subprocess.run(
        [*wrapper, sys.executable, "-c", UNWRITABLE, parameter, str(directory), *BUILT_IN],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        timeout=60,
    ).stdout
    assert said.startswith("failed None ")
    assert f"{parameter} is not writable: {directory}" in said


def test_what_can_be_written_by_its_permissions_only(bare: MakeMachine) -> None:
    assert_launch_fails(bare(base_dir="/proc"), "base_dir", "/proc")


# -- calls at the wrong time --------------------------------------------------------------------------------


def test_launching_what_runs(shared: Machine) -> None:
    before = shared.pid, shared.history
    with pytest.raises(TransitionError) as caught:
        shared.launch()
    error = caught.value
    assert (error.event, error.allowed) == ("launch", ("quit",))
    assert (error.machine, error.state) == (shared.name, State.RUNNING)
    for word in (shared.name, "launch", "running", "quit"):
        assert word in str(error)
    assert (shared.pid, shared.history, shared.plugin("seen").launches) == (*before, 1)


@pytest.mark.parametrize("call", ["wait", "run"])
def test_waiting_for_what_was_never_launched(bare: MakeMachine, call: str) -> None:
    machine = bare(Seen())
    with pytest.raises(TransitionError) as caught:
        CALLS[call](machine, 5)
    assert caught.value.allowed == ("launch",)
    assert (caught.value.machine, caught.value.state) == (machine.name, State.CONFIGURED)
    assert machine.name in str(caught.value)
    assert_untouched(machine)


@pytest.mark.parametrize("call", ["shutdown", "shutdown guest", "kill"])
def test_ending_what_was_never_launched_does_nothing(bare: MakeMachine, call: str) -> None:
    machine = bare(Seen())
    CALLS[call](machine, 5)
    assert_untouched(machine)


class Bytes(os.PathLike[bytes]):
    """A path, but of bytes."""

    def __fspath__(self) -> bytes:
        return b"bytes"

    def __repr__(self) -> str:
        return "Bytes()"


@pytest.mark.parametrize("value", ["", "a\0b", b"bytes", 3, None, Bytes()], ids=repr)
def test_what_is_no_path(value: object) -> None:
    with pytest.raises(ConfigError, match="directory: not a path") as caught:
        check_path(value, field="directory")
    assert caught.value.field == "directory"


def test_what_is_a_path() -> None:
    assert check_path("a b") == "a b"
    assert check_path(Path("a") / "b") == "a/b"
