"""What a QEMU can do is found out by running it, once; what does not work is told with its reason."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.posing import DIE, HALT, HANG, SPIN, STOP, WITHOUT_DEVICE, Pose, wait_for
from tests.scripts import run_script
from tests.waiting import InThread, until
from vmfsm import (
    ConfigError,
    LaunchError,
    Machine,
    MachineTimeout,
    TransitionError,
    accelerators,
    capabilities,
    capability,
)

pytestmark = pytest.mark.usefixtures("qemu")


# -- real ones ----------------------------------------------------------------------------------------------


def test_a_real_one(qemu: str) -> None:
    found = capabilities(qemu)
    said = subprocess.run([qemu, "-version"], check=True, capture_output=True, text=True).stdout
    assert "version {}.{}.{}".format(*found.version) in said
    assert (found.binary, found.target) == (shutil.which(qemu), "x86_64")

    q35 = found.machines["q35"]
    assert found.machines[q35.name] is q35
    assert (q35.alias, q35.deprecated) == ("q35", False)
    assert q35.max_cpus >= 255
    assert {machine.name for machine in found.machines.values() if machine.is_default} == {
        found.machines["pc"].name
    }
    assert "virt" not in found.machines

    assert {"virtio-blk-pci", "virtio-blk", "isa-debug-exit", "nvme"} <= found.devices
    assert found.devices.isdisjoint({"ICH9-LPC", "device", "no-such-device"})

    assert found.accelerators[-1] == "tcg"
    assert found.best == found.accelerators[0]
    assert "qtest" not in {*found.accelerators, *found.refused}


def test_kvm_is_told_working_or_not(qemu: str) -> None:
    """Whatever it is here, a whole firmware agrees."""
    found = capabilities(qemu)
    listed = subprocess.run([qemu, "-accel", "help"], check=True, capture_output=True, text=True).stdout
    assert {*found.accelerators, *found.refused} == set(listed.split(":")[1].split()) - {"qtest"}
    if "kvm" in found.accelerators:
        with Machine(qemu, ["-nodefaults", "-m", "16"], accel="kvm", name="kvm") as vm:
            vm.launch()
            assert vm.qmp.execute("query-kvm") == {"enabled": True, "present": True}
    else:
        assert found.refused["kvm"]


@pytest.mark.parametrize("target", ["aarch64", "arm", "riscv64"])
def test_other_targets(target: str) -> None:
    binary = f"qemu-system-{target}"
    if shutil.which(binary) is None:
        pytest.skip(f"{binary} is not in PATH")
    found = capabilities(binary)
    assert found.target == target
    assert "virt" in found.machines
    assert "virtio-blk-device" in found.devices
    assert "tcg" in found.accelerators
    assert found.best == found.accelerators[0]


# -- accelerators that do not work --------------------------------------------------------------------------

BROKEN = {
    "refused": (None, r"invalid accelerator odd"),
    "dies": (DIE, r"^qemu-system-x86_64: it breaks$"),
    "hangs before it is up": (HANG, r"^QEMU does not come up with it in 4 s$"),
    "spins before it is up": (SPIN, r"does not come up with it in 2 s of processor time"),
    "its guest halts": (HALT, r"its guest gets nowhere in 4 s"),
    "its guest is reset": (
        WITHOUT_DEVICE,
        r"its guest did not come to its own end, QEMU ended with status 0",
    ),
    "its guest is stopped": (STOP, r"its guest was stopped \(shutdown\)"),
}


@pytest.mark.parametrize(("behaviour", "why"), BROKEN.values(), ids=BROKEN)
def test_an_accelerator_that_does_not_work(
    posing: Pose, monkeypatch: pytest.MonkeyPatch, behaviour: str | None, why: str
) -> None:
    # Also for the one that works, or does not get all of a processor.
    monkeypatch.setattr(accelerators, "LIMIT", 4.0 if behaviour in {HANG, HALT} else 100.0)
    fake = posing(["odd", "tcg"], **({} if behaviour is None else {"odd": behaviour}))
    found = capabilities(fake.path)
    assert (found.accelerators, found.best) == (("tcg",), "tcg")
    assert re.search(why, found.refused["odd"]), found.refused


def test_a_guest_that_spins_costs_no_more_than_its_processor_time(
    posing: Pose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerators, "LIMIT", 100.0)  # it does not get all of a processor
    spinning = HALT.replace('"\\xf4" * 65536', '"\\xeb\\xfe" * 32768')  # it jumps to where it is
    found = capabilities(posing(["odd", "tcg"], odd=spinning).path)
    assert found.refused["odd"] == "its guest gets nowhere in 2 s of processor time"


def test_the_hardwares_come_first(posing: Pose) -> None:
    fake = posing(["tcg", "qtest", "odd", "hvf", "kvm"], odd="pass", hvf="pass", kvm=DIE)
    found = capabilities(fake.path)
    assert found.accelerators == ("hvf", "odd", "tcg")
    assert (found.best, list(found.refused)) == ("hvf", ["kvm"])


# -- what is no QEMU ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, 5, b"qemu", "", "a\0b"])
def test_what_is_no_path(value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        capabilities(value)  # type: ignore[arg-type]
    assert caught.value.field == "binary"


@pytest.mark.parametrize("timeout", [-1, "1", True])
def test_what_is_no_timeout(qemu: str, timeout: object) -> None:
    with pytest.raises(ConfigError) as caught:
        capabilities(qemu, timeout=timeout)  # type: ignore[arg-type]
    assert caught.value.field == "timeout"


@pytest.mark.parametrize(
    ("binary", "why"),
    [
        ("/nonexistent/qemu", "no such file"),
        ("qemu-system-z80", "search path"),
        ("/", "is a directory"),
        ("/etc/passwd", "is not executable"),
        ("true", r"to `-accel help` it said nothing \(it ended with status 0\)"),
        (sys.executable, "[Uu]sage|python -h"),
    ],
)
def test_what_is_no_qemu(binary: str, why: str) -> None:
    with pytest.raises(LaunchError, match=why) as caught:
        capabilities(binary)
    assert binary in str(caught.value)


def test_one_that_hangs(posing: Pose) -> None:
    fake = posing(["tcg"], on_help=HANG)
    with pytest.raises(LaunchError, match=r"timed out after 0\.5 s") as caught:
        capabilities(fake.path, timeout=0.5)
    assert isinstance(caught.value.__cause__, MachineTimeout)


def test_garbage(posing: Pose) -> None:
    fake = posing(["tcg"], on_help="print('\\x1b[2J garbage'); sys.exit(3)")
    with pytest.raises(LaunchError, match="garbage") as caught:
        capabilities(fake.path)
    assert "\x1b" not in str(caught.value)
    assert (caught.value.exit_status, "garbage" in caught.value.output) == (3, True)


def test_one_whose_monitor_breaks(posing: Pose) -> None:
    with pytest.raises(LaunchError, match="it breaks"):
        capabilities(posing(["tcg"], tcg=DIE).path)


def test_on_the_io_thread(qemu: str) -> None:
    async def ask() -> None:
        capabilities(qemu)

    with Machine(qemu, ["-M", "none", "-nodefaults"]) as vm:
        vm.launch()
        with pytest.raises(TransitionError, match="I/O thread"):
            vm.run(ask(), timeout=10, operation="ask")


# -- asked once ---------------------------------------------------------------------------------------------


def test_it_is_asked_once(posing: Pose, tmp_path: Path) -> None:
    fake = posing(["tcg"])
    found = capabilities(fake.path)
    runs = fake.runs
    assert capabilities(str(fake.path)) is found
    link = tmp_path / "link"
    link.symlink_to(fake.path)
    assert capabilities(link) is found
    assert fake.runs == runs


def test_threads_ask_once(posing: Pose) -> None:
    fake = posing(["tcg"])
    found = {id(thread.result()) for thread in [InThread(capabilities, fake.path) for _ in range(8)]}
    assert len(found) == 1
    assert fake.runs.count("-accel help") == 1


def test_a_replaced_binary_is_asked_again(posing: Pose) -> None:
    fake = posing(["tcg"])
    assert capabilities(fake.path).best == "tcg"
    fake.write(["kvm", "tcg"], kvm="pass")
    assert capabilities(fake.path).best == "kvm"


def test_other_permissions_are_asked_again(
    posing: Pose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kvm = tmp_path / "kvm"
    monkeypatch.setattr(capability, "KVM", str(kvm))
    fake = posing(["tcg"])
    found = [capabilities(fake.path)]
    kvm.touch(0o600)
    found.append(capabilities(fake.path))
    kvm.chmod(0o666)
    found.append(capabilities(fake.path))
    assert fake.runs.count("-accel help") == 3
    assert found[0] == found[1] == found[2]


def test_a_failure_is_not_remembered(posing: Pose, tmp_path: Path) -> None:
    works = tmp_path / "works"
    fake = posing(["tcg"], on_help=f"os.path.exists({str(works)!r}) or sys.exit(1)")
    for _ in range(2):
        with pytest.raises(LaunchError):
            capabilities(fake.path)
    works.touch()
    assert capabilities(fake.path).best == "tcg"
    assert fake.runs.count("-accel help") == 3


def test_who_waits_for_another_ones_answer_has_a_deadline_of_its_own(posing: Pose, tmp_path: Path) -> None:
    go = tmp_path / "go"
    fake = posing(["tcg"], on_help=wait_for(go))
    first = InThread(capabilities, fake.path)
    until(lambda: fake.runs)
    with pytest.raises(LaunchError, match="another thread"):
        capabilities(fake.path, timeout=0.2)
    go.touch()
    assert first.result().best == "tcg"


def test_a_waiter_asks_when_the_one_it_waited_for_had_no_time(posing: Pose, tmp_path: Path) -> None:
    go = tmp_path / "go"
    fake = posing(["tcg"], on_help=wait_for(go))
    first = InThread(capabilities, fake.path, timeout=1)
    until(lambda: fake.runs)
    second = InThread(capabilities, fake.path)
    first.join()
    assert isinstance(first.error, LaunchError)
    go.touch()
    assert second.result().best == "tcg"


def test_a_forked_child_asks_for_itself(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    ran = run_script(
        """
        from vmfsm import capabilities
        found = capabilities("qemu-system-x86_64")
        child = os.fork()
        if not child:
            sys.exit(0 if capabilities("qemu-system-x86_64") == found else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        vm.shutdown()
        """,
        place,
    )
    assert ran == (0, "0\n", "", [])


def test_third_party_plugins_take_no_part(tmp_path: Path) -> None:
    (tmp_path / "meddler.py").write_text(
        "from vmfsm import hookimpl\n"
        "class Meddler:\n"
        "    name = 'meddler'\n"
        "    @hookimpl\n"
        "    def pre_launch(self): raise RuntimeError('meddling')\n"
    )
    info = tmp_path / "meddler-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: meddler\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[vmfsm.plugins]\nmeddler = meddler:Meddler\n")
    script = "from vmfsm import Machine, capabilities\nprint(capabilities('qemu-system-x86_64').target)\n"
    path = os.pathsep.join([str(tmp_path), *sys.path])
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": path},
        check=False,
        capture_output=True,
        text=True,
    )
    assert (ran.stdout, ran.stderr) == ("x86_64\n", "")


def test_exit_statuses_that_cannot_be_had(posing: Pose) -> None:
    binary = posing(["tcg"]).path
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with pytest.raises(LaunchError, match="this process ignores SIGCHLD"):
            capabilities(binary)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert capabilities(binary).accelerators == ("tcg",)
