"""The report as text: what it says first, that it fits, and that nobody's words do anything."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cli.running import vmfsm
from tests.recordings import written
from tests.report.recorded import without_progress
from vmfsm import Machine, VMError, report
from vmfsm.report import text
from vmfsm.testing import GUEST_ARGS

CODES = re.compile(r"\x1b\[[0-9]*m")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a guest that hangs."""
    options = {"recorder": {"directory": str(tmp_path_factory.mktemp("recordings"))}}
    with pytest.raises(VMError), Machine("qemu-system-x86_64", GUEST_ARGS, name="vm", options=options) as vm:
        run(vm)
    return written(vm).files[0]


def run(vm: Machine) -> None:
    vm.launch()
    with vm.trace("log in"):
        vm.console.expect("> ")
        vm.console.sendline("hang")
        vm.console.expect("echo: hang\r\n")
        vm.console.expect("login:", timeout=1)


def test_the_cause_comes_first_and_all_fits(path: str) -> None:
    for width in (40, 80, 200):
        lines = text.render(report.data([path]), width=width).split("\n")
        begin = lines.index("vm  failed: guest-hang")
        command = lines.index("  COMMAND")
        assert all(len(line) <= width for line in lines[:command])
        assert lines[command + 1].startswith("  cd ")
        cause = " ".join(line.strip() for line in lines[begin + 1 : lines.index("  CLUES") - 1])
        assert cause.startswith("vm: the guest seems to hang: expect('login:') on console 'console' came to")


def test_what_happened_around_it_is_in_order(path: str) -> None:
    shown = text.render(report.data([path]), width=100)
    around = shown.partition("AROUND IT\n")[2].partition("\n\n")[0].split("\n")
    times = [float(line.split()[0]) for line in around]
    assert times == sorted(times)
    [here] = [n for n, line in enumerate(around) if "guest-hang ──" in line]
    assert any("│ > echo: hang" in line for line in around[:here])
    assert any("expect('login:')" in line for line in around[:here])
    assert any("quitting" in line for line in around[here:])
    assert re.search(r"SLOWEST\n.* s  step  log in", shown)


def test_colours_are_all_that_colours_add(path: str) -> None:
    data = report.data([path])
    coloured = text.render(data, width=80, colour=True)
    assert "\x1b[31mfailed: guest-hang\x1b[0m" in coloured
    assert CODES.sub("", coloured) == text.render(data, width=80)


def test_the_command_prints_it_and_makes_no_page(path: str) -> None:
    ran = vmfsm("report", path, "--text", COLUMNS="80")
    assert (ran.returncode, without_progress(ran.stderr)) == (0, "")
    assert "vm  failed: guest-hang" in ran.stdout
    assert "\x1b" not in ran.stdout
    assert not Path(path).with_suffix(".html").exists()


def test_the_command_adds_to_junit_xml(path: str, tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    junit.write_text("<testsuites><testcase classname='a' name='b'/></testsuites>")
    before = junit.read_text()
    ran = vmfsm("report", path, "--junit", str(junit))
    assert ran.returncode == 0
    assert "does not have the tests of vm" in ran.stderr
    assert junit.read_text() == before
    new = tmp_path / "new.xml"
    ran = vmfsm("report", path, "--junit", str(new), "--json")
    assert json.loads(ran.stdout)["machines"][0]["diagnosis"]["kind"] == "guest-hang"
    assert 'name="vmfsm.kind" value="guest-hang"' in new.read_text()


def comparison(*rows: tuple[str, str, float | None, float | None]) -> dict[str, Any]:
    return {
        "names": ["A: good", "B: bad"],
        "rows": [
            {
                "kind": kind,
                "name": name,
                "seconds": [one, other],
                "delta": None if one is None or other is None else other - one,
                "slower": (other or 0.0) > (one or 0.0),
                "most": name == "boot",
            }
            for kind, name, one, other in rows
        ],
    }


def test_the_mark_of_a_comparison_is_whole_at_any_width(path: str) -> None:
    row = ("step", "a name that is much too long for " + "any line " * 20, 1.0, 9.0)
    compared = comparison(row)
    compared["rows"][0]["most"] = True
    data = {**report.data([path]), "comparison": compared}
    for width in (60, 80, 120):
        lines = text.render(data, width=width).splitlines()
        assert sum(line.endswith("  ← most of it") for line in lines) == 1
        assert all(len(line) <= width for line in lines if "←" in line)


def test_a_comparison_is_a_table_of_what_is_no_chance(path: str) -> None:
    rows = (("step", "boot", 0.5, 2.75), ("hook", "tiny", 0.001, 0.002), ("wait", "launch", None, 0.25))
    data = {**report.data([path]), "comparison": comparison(*rows)}
    lines = text.render(data, width=60).split("\n")
    begin = lines.index("COMPARED")
    assert lines[begin + 1 : begin + 5] == [
        "   A: good    B: bad     more",
        "  500.0 ms    2.75 s  +2.25 s  step boot  ← most of it",
        "         -  250.0 ms           wait launch",
        "",
    ]


CASES = ("\x1b[2J\x07\u202e", "漢字" * 30, "e\u0301" * 50, "\r\n" * 9, "\t" * 9)


def said_everywhere(value: Any, said: str) -> Any:
    """The same with other people's words in place of all that is text."""
    match value:
        case dict():
            return {
                name: value[name] if name in {"id", "command"} else said_everywhere(value[name], said)
                for name in value
            }
        case list():
            return [said_everywhere(one, said) for one in value]
        case str():
            return said
    return value


@pytest.fixture(scope="module")
def full(path: str) -> Any:
    """Data with all that there may be."""
    data: Any = report.data([path])
    data["comparison"] = comparison(("step", "boot", 1.0, None))
    data["machines"][0] |= {
        "missing": [{"what": "a", "why": "b"}],
        "files": [{"file": "a", "what": "b"}],
        "problems": ["a"],
        "command": None,
    }
    return data


@settings(max_examples=40, deadline=None)
@given(said=st.text(max_size=40) | st.sampled_from(CASES), width=st.integers(1, 120))
def test_whatever_is_said_it_moves_no_cursor_and_fits(full: Any, said: str, width: int) -> None:
    for line in text.render(said_everywhere(full, said), width=width).split("\n"):
        assert line.isprintable()
        assert text._columns(line) <= max(width, 40), line
