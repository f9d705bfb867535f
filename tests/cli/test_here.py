"""`vmfsm plugins`, `doctor` and `gc`: what is here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.harness import MakeHarness
from tests.cli.running import environment, vmfsm
from tests.conftest import BUILT_IN
from tests.test_discovery import Site
from tests.waiting import LIMIT
from vmfsm import registry
from vmfsm.cli import doctor
from vmfsm.cli.health import Check, Grade
from vmfsm.cli.status import ExitStatus

QEMU = "qemu-system-riscv64"  # has no KVM here, of which it takes seconds to see that it does not work

# -- plugins ------------------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


def test_the_built_in_plugins_in_their_order() -> None:
    ran = vmfsm("plugins")
    assert (ran.returncode, ran.stderr) == (0, "")
    heading, *lines = ran.stdout.splitlines()
    assert heading.split() == ["NAME", "FROM", "CLASS", "HOOKS"]
    names = [line.split()[0] for line in lines]
    assert set(BUILT_IN) <= set(names)
    assert names.index("logs") < names.index("fdpass") < names.index("console") < names.index("qmp")
    assert all(line == line.rstrip() for line in ran.stdout.splitlines())


def test_one_plugin_with_its_options_and_places() -> None:
    ran = vmfsm("plugins", "qmp")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "vmfsm_plugins.qmp:QMP of vmfsm" in ran.stdout
    assert "after: logs, fdpass, console" in ran.stdout
    (set_up,) = [line for line in ran.stdout.splitlines() if line.startswith("  post_launch")]
    (clean_up,) = [line for line in ran.stdout.splitlines() if line.startswith("  post_shutdown")]
    assert set_up.split()[3:].index("qmp") > set_up.split()[3:].index("fdpass")
    assert clean_up.split()[4:].index("qmp") < clean_up.split()[4:].index("fdpass")
    assert "  enabled            bool = True\n" in ran.stdout


def test_plugins_for_programs(site: Site) -> None:
    site.install_third_party()
    ran = vmfsm("plugins", "--json", PYTHONPATH=str(site.path))
    found = json.loads(ran.stdout)
    (greeter,) = [plugin for plugin in found["plugins"] if plugin["name"] == "greeter"]
    assert greeter["status"] == "loaded"
    assert greeter["path"] == str(site.path / "vmfsm_greeter.py")
    assert [option["name"] for option in greeter["options"]] == ["greeting", "times"]
    assert "greeter" in found["order"]["pre_launch"]


def test_a_broken_plugin_is_shown_with_its_error(site: Site) -> None:
    site.install(
        "bad-ones",
        "1.0",
        {"absent": "no_such_module:Absent", "picky": "picky:Picky", "unready": "picky:Unready"},
        picky="class Picky:\n name = 'picky'\n def __init__(self): raise ValueError('\\x1b[2J')\n"
        "class Unready:\n name = 'unready'\n needs = ('absent',)\nprint('I was imported')",
    )
    ran = vmfsm("plugins", PYTHONPATH=str(site.path))
    assert ran.returncode == ExitStatus.FAILED
    shown = {line.split()[0]: line for line in ran.stdout.splitlines()}
    assert "broken: plugin 'absent' could not be imported" in shown["absent"]
    assert "broken: plugin 'picky' does not take these options: ValueError: \\x1b[2J" in shown["picky"]
    assert "needs plugin 'absent', which is not there" in shown["unready"]
    assert "configured" in shown["qmp"]
    assert "vmfsm: broken: absent, picky, unready\n" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert vmfsm("plugins", "qmp", PYTHONPATH=str(site.path)).returncode == 0
    alone = vmfsm("plugins", "picky", "--json", PYTHONPATH=str(site.path))
    assert alone.returncode == ExitStatus.FAILED
    assert json.loads(alone.stdout)["plugins"][0]["status"] == "broken"


def test_plugins_that_are_left_alone(site: Site) -> None:
    site.install_third_party()
    ran = vmfsm("plugins", PYTHONPATH=str(site.path), VMFSM_PLUGIN_AUTOLOAD="0")
    assert ran.returncode == 0
    assert "not loaded: VMFSM_PLUGIN_AUTOLOAD=0" in ran.stdout


def test_no_such_plugin() -> None:
    ran = vmfsm("plugins", "qpm")
    assert (ran.returncode, ran.stdout) == (ExitStatus.FAILED, "")
    assert ran.stderr.startswith("vmfsm: no plugin is named 'qpm'\nthere are: logs, ")


# -- doctor -------------------------------------------------------------------------------------------------


def test_the_doctor_says_that_machines_run() -> None:
    ran = vmfsm("doctor", QEMU)
    assert ran.returncode == 0, ran.stdout
    (line,) = [line for line in ran.stdout.splitlines() if line.split()[:2] == ["ok", QEMU]]
    assert "tcg" in line
    for section in ("QEMU", "Tools", "Devices", "System", "Limits", "Python"):
        assert f"\n{section}\n" in f"\n{ran.stdout}"


def test_advice_that_is_the_same_for_several_is_given_once(capsys: pytest.CaptureFixture[str]) -> None:
    checks = [Check("QEMU", name, Grade.OK, "1.0", advice) for name, advice in zip("abc", "xyx", strict=True)]
    doctor.print_checks([*checks, Check("QEMU", "e", Grade.OK, "1.0")])
    assert capsys.readouterr().out.partition("\n\n")[2] == "a, c: x\nb: y\n"


def test_what_is_no_qemu_fails(tmp_path: Path) -> None:
    ran = vmfsm("doctor", "--json", "--", "/bin/true", "/nowhere/qemu", "--help")
    assert ran.returncode == ExitStatus.FAILED
    assert ran.stderr.endswith("vmfsm: not all of these QEMUs work here\n")
    found = json.loads(ran.stdout)
    assert found["runs"] is False
    by_name = {check["name"]: check for check in found["checks"]}
    assert by_name["/bin/true"]["grade"] == by_name["/nowhere/qemu"]["grade"] == "fails"
    assert by_name["--help"]["grade"] == "fails"  # a name that looks like an option is none
    assert "no such file" in by_name["/nowhere/qemu"]["detail"]


def test_a_bare_place(tmp_path: Path) -> None:
    """No QEMU, a tool that does not run, no registry, few descriptors."""
    tool = tmp_path / "swtpm"
    tool.write_text("#!/bin/sh\nexit 3\n")
    tool.chmod(0o755)
    ran = subprocess.run(
        ["/bin/sh", "-c", f"ulimit -Sn 100; exec {sys.executable} -m vmfsm doctor"],
        check=False,
        capture_output=True,
        env=environment({"PATH": str(tmp_path), "XDG_RUNTIME_DIR": "/proc", "TMPDIR": "/proc"}),
        text=True,
        timeout=LIMIT,
    )
    assert (ran.returncode, ran.stderr) == (ExitStatus.FAILED, "vmfsm: machines can't be run here\n")
    lines = [" ".join(line.split()) for line in ran.stdout.splitlines()]
    assert "fails qemu-system-* none in PATH" in lines
    assert f"lacks swtpm does not run {tool}" in lines
    assert "lacks gdb not found" in lines
    assert any(line.startswith("lacks registry ") for line in lines)
    assert any(line.startswith("lacks open files 100 ") for line in lines)
    assert "gdb: for vmfsm gdb: apt install gdb (gdb-multiarch for guests of another architecture)" in lines


# -- gc -----------------------------------------------------------------------------------------------------


def test_what_the_dead_left_is_removed(harness: MakeHarness) -> None:
    one = harness("vm = idle('left-behind').launch(); say(); input()").hear()
    one.orphan()
    (entry,) = one.entries()
    dry = vmfsm("gc", "--dry-run")
    assert dry.returncode == 0
    assert f"left-behind  orphaned  {entry.pid} " in dry.stdout
    assert registry.Status.ORPHANED in [entry.status for entry in one.entries()]
    ran = vmfsm("gc", "--json")
    assert ran.returncode == 0
    assert [left["pid"] for left in json.loads(ran.stdout)] == [entry.pid]
    assert not one.entries()
    assert not os.path.exists(entry.directory)
    again = vmfsm("gc")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "nothing to remove\n")


def test_what_lives_is_not_touched(harness: MakeHarness) -> None:
    one = harness("vm = idle('alive').launch(); say(); input(); say('still ' + vm.state.value)").hear()
    assert vmfsm("gc", "--json").stdout == "[]\n"
    one.tell()
    one.hear("still running")
