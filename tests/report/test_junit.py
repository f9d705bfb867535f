"""Causes in JUnit XML: in files that pytest makes, and in those that nobody should have made."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmfsm import ConfigError
from vmfsm.report import junit

TESTS = """
import pytest

class TestBoot:
    @pytest.mark.parametrize("kind", ["a b", "x::y[0]", "\\u00e9\\x1b"])
    def test_login(self, kind, record_property):
        record_property("mine", "<kept> & \\"kept\\"")
        assert kind == "a b", "\\x1b[31mno\\x00"

def test_plain():
    print("output")

@pytest.mark.skip(reason="not now")
def test_skipped(): pass
"""


def machine(test: str | None, name: str = "vm", **diagnosis: Any) -> dict[str, Any]:
    return {
        "name": name,
        "source": f"recordings/{name}.jsonl",
        "begin": 0.0,
        "end": 2.0,
        "facts": [{"name": "test", "value": test}] if test else [],
        "diagnosis": {
            "outcome": "failed",
            "kind": "guest-hang",
            "cause": f"{name}: the guest seems to hang: '<b>&\"'\x1b[2J",
            "at": 1.5,
            "clues": [{"text": "a <clue> & more\x00", "at": 1.0, "lane": None, "log": None}],
            "wait": None,
            **diagnosis,
        },
    }


def data(*machines: dict[str, Any]) -> dict[str, Any]:
    return {"machines": machines, "length": 2.0, "begin": "2026-11-22T01:16:37+00:00"}


def properties(path: Path, name: str) -> dict[str, str]:
    cases = [case for case in ElementTree.parse(path).iter("testcase") if case.get("name") == name]
    assert len(cases) == 1
    found = [
        (str(one.get("name")), str(one.get("value"))) for one in cases[0].iterfind("properties/property")
    ]
    assert len(dict(found)) == len(found)
    return dict(found)


@pytest.fixture(scope="module")
def made_by_pytest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("suite")
    (directory / "sub").mkdir()
    (directory / "sub" / "test_boot.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml=junit.xml", "sub"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    ran = subprocess.run(
        command, check=False, cwd=directory, env=environment, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    return directory / "junit.xml"


@pytest.fixture
def path(made_by_pytest: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "junit.xml"
    copy.write_bytes(made_by_pytest.read_bytes())
    return copy


def test_in_a_file_of_pytest(path: Path) -> None:
    before = path.read_bytes()
    one = machine("sub/test_boot.py::TestBoot::test_login[x::y[0]] (call)")
    other = machine("sub/test_boot.py::test_plain (setup)", "other", outcome="ok", kind="ok", at=None)
    assert junit.add(str(path), data(one, other), page="report.html") == []
    assert properties(path, "test_login[x::y[0]]") == {
        "mine": '<kept> & "kept"',
        "vmfsm.machine": "vm",
        "vmfsm.outcome": "failed",
        "vmfsm.kind": "guest-hang",
        "vmfsm.cause": "vm: the guest seems to hang: '<b>&\"'\\x1b[2J",
        "vmfsm.recording": "recordings/vm.jsonl",
        "vmfsm.report": "report.html",
    }
    assert properties(path, "test_plain")["vmfsm.outcome"] == "ok"
    assert properties(path, "test_login[a b]") == {"mine": '<kept> & "kept"'}
    assert properties(path, "test_skipped") == {}
    assert without_added(path.read_bytes()) == without_added(before)


def without_added(xml: bytes) -> str:
    """What was there before, by another way than that by which it was added."""
    root = ElementTree.fromstring(xml)
    for case in root.iter("testcase"):
        for block in case.findall("properties"):
            for one in block.findall("property"):
                if str(one.get("name")).startswith("vmfsm."):
                    block.remove(one)
            if not len(block):
                case.remove(block)
    return ElementTree.canonicalize(ElementTree.tostring(root))


def test_a_second_time_replaces_the_first(path: Path) -> None:
    test = "sub/test_boot.py::TestBoot::test_login[a b] (call)"
    junit.add(str(path), data(machine(test, cause="old"), machine(test, "second")))
    junit.add(str(path), data(machine(test, cause="new")))
    once = path.read_bytes()
    junit.add(str(path), data(machine(test, cause="new")))
    assert path.read_bytes() == once
    assert properties(path, "test_login[a b]")["vmfsm.cause"] == "new"
    assert b"second" not in once


def test_several_machines_are_numbered_and_the_first_to_fail_is_first(path: Path) -> None:
    test = "sub/test_boot.py::test_plain (call)"
    machines = [
        machine(test, "ok", outcome="ok"),
        machine(test, "late", at=1.9),
        machine(test, "first", at=0.3),
    ]
    junit.add(str(path), data(*machines))
    told = properties(path, "test_plain")
    assert [told["vmfsm.machine"], told["vmfsm.2.machine"], told["vmfsm.3.machine"]] == [
        "first",
        "late",
        "ok",
    ]
    assert told["vmfsm.machines"] == "3"


FAILS_TWICE = """
import pytest

@pytest.fixture
def machine():
    yield
    raise RuntimeError("QEMU was killed")

def test_twice(machine):
    assert 1 == 2, "not equal\\nby far"

def test_plainly():
    assert [] == ["login"]

def test_well():
    pass
"""


@pytest.fixture
def failing(tmp_path: Path) -> Path:
    (tmp_path / "test_fails.py").write_text(FAILS_TWICE)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml=junit.xml"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    ran = subprocess.run(
        command, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    return tmp_path / "junit.xml"


def told(path: Path, test: str) -> list[tuple[str, dict[str, str | None]]]:
    """What its cases have, in order."""
    return [
        (
            next((result.tag for result in case if result.tag in {"failure", "error"}), "passed"),
            {str(one.get("name")): one.get("value") for one in case.iterfind("properties/property")},
        )
        for case in ElementTree.parse(path).iter("testcase")
        if case.get("name") == test
    ]


def test_who_fails_in_call_and_teardown_has_the_cause_at_both(failing: Path) -> None:
    one = machine("test_fails.py::test_twice (setup)", kind="qemu-killed", cause="QEMU was killed")
    assert junit.add(str(failing), data(one)) == []
    cases = told(failing, "test_twice")
    assert [result for result, _ in cases] == ["failure", "error"]
    assert [properties["vmfsm.cause"] for _, properties in cases] == ["QEMU was killed"] * 2


def test_a_failure_that_nobody_noted_is_none_that_went_well(failing: Path) -> None:
    fine: dict[str, Any] = {"outcome": "ok", "kind": "ok", "cause": "all went well", "at": None}
    tests = ["test_plainly", "test_well"]
    junit.add(str(failing), data(*(machine(f"test_fails.py::{test} (setup)", **fine) for test in tests)))
    ((_, plainly),) = told(failing, "test_plainly")
    assert (plainly["vmfsm.outcome"], plainly["vmfsm.kind"]) == ("failed", "test-failed")
    cause = plainly["vmfsm.cause"] or ""
    assert cause.startswith("the test failed: AssertionError: assert [] == ['login']")
    assert cause.endswith("; the machine was fine as far as is known")
    ((_, well),) = told(failing, "test_well")
    assert (well["vmfsm.outcome"], well["vmfsm.cause"]) == ("ok", "all went well")


def test_machines_of_other_tests_are_said_and_the_file_is_not_touched(path: Path) -> None:
    before = path.read_bytes(), path.stat().st_mtime_ns
    machines = [machine("sub/test_boot.py::test_gone (call)", "a"), machine(None, "b"), machine("odd", "c")]
    assert junit.add(str(path), data(*machines)) == ["a", "b", "c"]
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


IN_THE_FILE = (
    ("<CASE/>", "<CASE><properties>NEW</properties></testcase>"),
    ("<CASE\n a='>' ></testcase>", "<CASE\n a='>' ><properties>NEW</properties></testcase>"),
    ("<CASE><properties/></testcase>", "<CASE><properties>NEW</properties></testcase>"),
    (
        (
            "<CASE><properties><property name='vmfsm.a' value='/>'/><!-- > --><property name='a'/>"
            "</properties></testcase>"
        ),
        "<CASE><properties><!-- > --><property name='a'/>NEW</properties></testcase>",
    ),
    (
        "<CASE><properties><property name='vmfsm.a'>text</property ></properties ></testcase>",
        "<CASE><properties>NEW</properties ></testcase>",
    ),
    (
        (
            "<properties><property name='vmfsm.a'/></properties>"
            "<CASE><out><![CDATA[<testcase>]]></out></testcase>"
        ),
        (
            "<properties><property name='vmfsm.a'/></properties>"
            "<CASE><properties>NEW</properties><out><![CDATA[<testcase>]]></out></testcase>"
        ),
    ),
)


@pytest.mark.parametrize(("before", "after"), IN_THE_FILE)
@pytest.mark.parametrize("encoding", ["utf-8", "iso-8859-1"])
@pytest.mark.parametrize("prefix", ["", "prefix."])
def test_every_other_byte_is_kept(
    tmp_path: Path, before: str, after: str, encoding: str, prefix: str
) -> None:
    path = tmp_path / "junit.xml"
    one = machine("t.py::x (call)")

    def written(text: str) -> str:
        text = text.replace("CASE", f"testcase classname='{prefix}t' name='x'")
        head = f"<?xml version='1.0' encoding='{encoding}'?>\r\n<!-- é -->\n<testsuites><testsuite name='é'>"
        return f"{head}{text}</testsuite></testsuites>\n<!-- end -->"

    path.write_bytes(written(before).encode(encoding))
    junit.add(str(path), data(one))
    told = "".join(
        ElementTree.tostring(found, "unicode")
        for found in ElementTree.parse(path).iterfind(".//property")
        if str(found.get("name")).startswith("vmfsm.") and found.get("name") != "vmfsm.a"
    )
    assert path.read_bytes().decode(encoding) == written(after.replace("NEW", told))


BOMB = b'<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><testsuites>&b;</testsuites>'


@pytest.mark.parametrize(
    ("xml", "said"),
    [
        (BOMB, "has a document type"),
        (b"<!DOCTYPE testsuites SYSTEM 'file:///etc/passwd'><testsuites/>", "has a document type"),
        (b"<html/>", "no JUnit XML"),
        (b"", "no XML"),
        (b"<testsuites><testcase></testsuites>", "no XML"),
        (b"<?xml version='1.0' encoding='no-such'?><testsuites/>", "can't be read|no XML"),
        ("<testsuites/>".encode("utf-16"), "encoding"),
        ("<testsuites/>".encode("utf-16-be"), "encoding"),
    ],
)
def test_what_is_no_junit_xml_is_refused_and_kept(tmp_path: Path, xml: bytes, said: str) -> None:
    path = tmp_path / "junit.xml"
    path.write_bytes(xml)
    with pytest.raises(ConfigError, match=said) as caught:
        junit.add(str(path), data(machine("t.py::x (call)")))
    assert caught.value.field == "junit"
    assert path.read_bytes() == xml
    assert os.listdir(tmp_path) == ["junit.xml"]


def test_without_a_file_one_is_made(tmp_path: Path) -> None:
    path = tmp_path / "new.xml"
    machines = [
        machine("sub/test_boot.py::test_a (call)"),
        machine(None, "fine", outcome="ok"),
        machine(None, "killed", outcome="unfinished"),
    ]
    assert junit.add(str(path), data(*machines)) == []
    suite = ElementTree.parse(path).getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")
    assert [case.get("name") for case in suite] == ["sub/test_boot.py::test_a vm", "fine", "killed"]
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert failure.get("type") == "guest-hang"
    assert "\\x1b[2J" in str(failure.get("message"))
    assert failure.text == "a <clue> & more\\x00"


def test_the_mode_and_a_link_to_the_file_are_kept(path: Path, tmp_path: Path) -> None:
    path.chmod(0o640)
    link = tmp_path / "link.xml"
    link.symlink_to(path)
    junit.add(str(link), data(machine("sub/test_boot.py::test_plain (call)")))
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert "vmfsm.cause" in properties(path, "test_plain")


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=30), st.text(max_size=30))
def test_whatever_guests_say_it_stays_xml(
    tmp_path_factory: pytest.TempPathFactory, name: str, said: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "hostile.xml"
    path.write_bytes(b"<testsuites><testcase classname='t' name='x'/></testsuites>")
    one = machine("t.py::x (call)", name, cause=said, clues=[{"text": said}])
    junit.add(str(path), data(one))
    ElementTree.parse(path)
    path.unlink()
    junit.add(str(path), data(one))
    ElementTree.parse(path)
