"""What reports know, as properties of the test cases of a JUnit XML file, which pages of CI systems show.

An existing file keeps every byte that is not of such a property: places are found by a parser, and what is
to be added is put there. Properties of test cases are as pytest writes them (`record_property`).
"""

import contextlib
import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

from vmfsm.errors import ConfigError, cut, printable

PREFIX = "vmfsm."
"""Of the properties' names."""
_MOST_MACHINES = 20
"""Of one test; of further ones there is only the number."""
_LONGEST = 2_000
_LONGEST_MESSAGE = 300
_START_TAG = re.compile(rb"<[^\s/>]++(?:[^\"'>]|\"[^\"]*+\"|'[^']*+')*+>")
_PHASE = re.compile(r" \((?:setup|call|teardown)\)$")
_WIDE = (b"\xff\xfe", b"\xfe\xff", b"\x00<", b"<\x00")

Data = Mapping[str, Any]


class _Case(NamedTuple):
    """Where a test case is in a file: offsets of bytes."""

    classname: str
    name: str
    start: int
    properties: int | None
    """Where its properties begin, if it has some."""
    close: int | None
    """Where the end tag of these begins."""
    old: Sequence[tuple[int, int]]
    """The properties that were added before."""
    number: int
    """In the file's order."""
    failed: str | None
    """The first line of what its failure or error says, if it has one."""


def add(path: str, data: Data, *, page: str | None = None) -> list[str]:
    """Add what `data` tells of machines to the test cases they were of; without a file there, make one.

    The file is replaced at once by the new one; what was added to it before is replaced as well.

    :param data: as of `vmfsm.report.data`.
    :param page: where the report's page is.
    :return: the names of machines whose test is not in the file.
    :raises ConfigError: when it is no JUnit XML, or has a document type.
    :raises OSError: when it can't be read or written.
    """
    try:
        with open(path, "rb") as file:
            before = file.read()
    except FileNotFoundError:
        _replace(path, _new(data, page))
        return []
    after, left = _with_properties(path, before, data, page)
    if after != before:
        _replace(path, after)
    return left


def _with_properties(path: str, xml: bytes, data: Data, page: str | None) -> tuple[bytes, list[str]]:
    cases: dict[str, list[_Case]] = defaultdict(list)
    for case in _cases(path, xml):
        cases[case.name].append(case)
    of_case: dict[_Case, list[Data]] = {}
    left: dict[str, None] = {}
    for machine in data["machines"]:
        found = _find(cases, _test(machine))
        if not found:
            left[printable(str(machine["name"]))] = None
        for case in found:
            of_case.setdefault(case, []).append(machine)
    edits: list[tuple[int, int, bytes]] = []
    for case, machines in of_case.items():
        edits += _edits(xml, case, _properties(_with_result(machines, case), page))
    pieces, at = [], 0
    for start, end, new in sorted(edits):
        pieces += [xml[at:start], new]
        at = end
    return b"".join([*pieces, xml[at:]]), [*left]


def _test(machine: Data) -> str:
    """What pytest said was running, when it was launched."""
    tests = (fact["value"] for fact in machine["facts"] if fact["name"] == "test")
    return str(machine.get("test") or next(tests, ""))


def _find(cases: Mapping[str, Sequence[_Case]], test: str) -> list[_Case]:
    """By pytest's rules for names; of several runs of one test the last.

    A test that failed, and then again at its teardown, has two cases, one after the other.
    """
    address, bracket, parameters = _PHASE.sub("", test).partition("[")
    path, *names = address.split("::")
    if not names:
        return []
    classname = ".".join([path.removesuffix(".py").replace("/", "."), *names[:-1]])
    of_name = cases.get(names[-1] + bracket + parameters, ())
    same = [case for case in of_name if case.classname == classname]
    same = same or [case for case in of_name if case.classname.endswith(f".{classname}")]  # --junitprefix
    match same[-2:]:
        case [first, last] if None not in (first.failed, last.failed) and last.number == first.number + 1:
            return [first, last]
    return same[-1:]


def _with_result(machines: Sequence[Data], case: _Case) -> Sequence[Data]:
    """Machines that know of no failure, in a test that failed: nobody noted it (a plain `assert`)."""
    if case.failed is None or any(machine["diagnosis"]["outcome"] != "ok" for machine in machines):
        return machines
    cause = f"the test failed: {case.failed}; the machine was fine as far as is known"
    failed = {"outcome": "failed", "kind": "test-failed", "cause": cause}
    return [{**machine, "diagnosis": {**machine["diagnosis"], **failed}} for machine in machines]


# -- the file -----------------------------------------------------------------------------------------------


class _Reader:
    """Notes the test cases, and their own properties."""

    def __init__(self, path: str) -> None:
        self.cases: list[_Case] = []
        self._path = path
        self._elements: list[str] = []
        self._case: dict[str, Any] = {}
        self._parser = parser = expat.ParserCreate()
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end

    def read(self, xml: bytes) -> None:
        try:
            self._parser.Parse(xml, True)
        except expat.ExpatError as error:
            raise ConfigError(f"{self._path} is no XML: {error}", field="junit") from None
        except (LookupError, ValueError) as error:  # an encoding that nobody knows
            raise ConfigError(f"{self._path} can't be read: {error}", field="junit") from None

    def _doctype(self, *_: object) -> None:
        raise ConfigError(f"{self._path} has a document type, which no JUnit XML has", field="junit")

    def _start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if not self._elements and tag not in {"testsuites", "testsuite"}:
            raise ConfigError(f"{self._path} is no JUnit XML: it begins with <{cut(tag, 40)}>", field="junit")
        self._elements.append(tag)
        at = self._parser.CurrentByteIndex
        match self._elements[-3:]:
            case [*_, "testcase"]:
                name, classname = attributes.get("name", ""), attributes.get("classname", "")
                self._case = {"name": name, "classname": classname, "start": at, "old": []}
            case [*_, "testcase", "failure" | "error"]:
                said = attributes.get("message", "").strip().partition("\n")[0]
                self._case.setdefault("failed", cut(said, _LONGEST_MESSAGE) or "it does not say how")
            case [*_, "testcase", "properties"] if "properties" not in self._case:
                self._case["properties"] = at
            case ["testcase", "properties", "property"] if attributes.get("name", "").startswith(PREFIX):
                self._case["old"].append((at, at))

    def _end(self, _: str) -> None:
        at = self._parser.CurrentByteIndex
        match self._elements[-3:]:
            case ["testcase", "properties", "property"] if self._case["old"]:
                begin, end = self._case["old"][-1]
                if begin == end:
                    self._case["old"][-1] = begin, at
            case [*_, "testcase", "properties"]:
                self._case.setdefault("close", at)
            case [*_, "testcase"]:
                case = self._case
                self.cases.append(
                    _Case(
                        case["classname"],
                        case["name"],
                        case["start"],
                        case.get("properties"),
                        case.get("close"),
                        tuple(case["old"]),
                        len(self.cases),
                        case.get("failed"),
                    )
                )
        self._elements.pop()


def _cases(path: str, xml: bytes) -> list[_Case]:
    if xml.startswith(_WIDE):
        raise ConfigError(f"{path} is not in an encoding that ASCII is part of", field="junit")
    reader = _Reader(path)
    reader.read(xml)
    return reader.cases


def _edits(xml: bytes, case: _Case, properties: bytes) -> Iterator[tuple[int, int, bytes]]:
    """What is to be replaced, by offsets, and by what."""
    for begin, end in case.old:
        yield begin, _end_of(xml, begin, end), b""
    if case.properties is None:
        yield _inside(xml, case.start, b"testcase", b"<properties>" + properties + b"</properties>")
    elif case.close is not None and xml.startswith(b"</properties", case.close):
        yield case.close, case.close, properties
    else:
        yield _inside(xml, case.properties, b"properties", properties)


def _end_of(xml: bytes, begin: int, end: int) -> int:
    """Of an element whose end tag begins at `end`; one without an end tag ends there."""
    return xml.index(b">", end) + 1 if xml.startswith(b"</property", end) else max(end, _tag(xml, begin)[1])


def _inside(xml: bytes, start: int, name: bytes, content: bytes) -> tuple[int, int, bytes]:
    """`content` put first into the element that begins there."""
    begin, end = _tag(xml, start)
    if xml[begin:end].endswith(b"/>"):
        return end - 2, end, b">" + content + b"</" + name + b">"
    return end, end, content


def _tag(xml: bytes, start: int) -> tuple[int, int]:
    found = _START_TAG.match(xml, start)
    assert found is not None, "the parser has found one there"
    return found.span()


def _replace(path: str, xml: bytes) -> None:
    """At once: whoever reads it meanwhile reads one of both."""
    path = os.path.realpath(path)
    descriptor, temporary = tempfile.mkstemp(prefix=".vmfsm-", dir=os.path.dirname(path))
    try:
        with open(descriptor, "wb") as file:
            file.write(xml)
            with contextlib.suppress(FileNotFoundError):
                os.fchmod(file.fileno(), os.stat(path).st_mode & 0o777)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


# -- what is written ----------------------------------------------------------------------------------------


def _properties(machines: Sequence[Data], page: str | None) -> bytes:
    """Of one test's machines; the one that failed first is the one without a number."""
    failed = sorted(machines, key=_order)
    told = "".join(
        _property(f"{PREFIX}{'' if number == 1 else f'{number}.'}{name}", value)
        for number, machine in enumerate(failed[:_MOST_MACHINES], 1)
        for name, value in _facts(machine, page if number == 1 else None)
    )
    if len(failed) > 1:
        told += _property(f"{PREFIX}machines", str(len(failed)))
    return told.encode("ascii", "xmlcharrefreplace")


def _order(machine: Data) -> tuple[bool, float]:
    diagnosis = machine["diagnosis"]
    at = diagnosis["at"] if isinstance(diagnosis["at"], int | float) else machine["end"]
    return diagnosis["outcome"] == "ok", at


def _facts(machine: Data, page: str | None) -> Iterator[tuple[str, str]]:
    diagnosis = machine["diagnosis"]
    yield "machine", str(machine["name"])
    yield "outcome", str(diagnosis["outcome"])
    yield "kind", str(diagnosis["kind"])
    yield "cause", str(diagnosis["cause"])
    bundle, source = machine.get("bundle"), str(machine["source"])
    if bundle:
        yield "bundle", str(bundle)
    if source != bundle:
        yield "recording", source
    if page is not None:
        yield "report", page


def _text(value: str) -> str:
    """What XML may have."""
    return printable(cut(value, _LONGEST))


def _property(name: str, value: str) -> str:
    return f"<property name={quoteattr(name)} value={quoteattr(_text(value))} />"


_RESULTS = {"failed": "failure", "unfinished": "error"}


def _new(data: Data, page: str | None) -> bytes:
    """A file with a test case for each machine."""
    cases = [_test_case(machine, page) for machine in data["machines"]]
    results = [_RESULTS.get(machine["diagnosis"]["outcome"], "") for machine in data["machines"]]
    suite = {
        "name": "vmfsm",
        "errors": str(results.count("error")),
        "failures": str(results.count("failure")),
        "skipped": "0",
        "tests": str(len(cases)),
        "time": f"{float(data['length']):.3f}",
        "timestamp": str(data["begin"]),
    }
    attributes = " ".join(f"{name}={quoteattr(_text(value))}" for name, value in suite.items())
    xml = "\n".join([f"<testsuites><testsuite {attributes}>", *cases, "</testsuite></testsuites>", ""])
    return b'<?xml version="1.0" encoding="utf-8"?>\n' + xml.encode("ascii", "xmlcharrefreplace")


def _test_case(machine: Data, page: str | None) -> str:
    diagnosis = machine["diagnosis"]
    name = " ".join(filter(None, [_PHASE.sub("", _test(machine)), str(machine["name"])]))
    head = f"<testcase classname={quoteattr('vmfsm')} name={quoteattr(_text(name))}"
    seconds = float(machine["end"]) - float(machine["begin"])
    properties = _properties([machine], page).decode("ascii")
    result = _RESULTS.get(diagnosis["outcome"])
    what = ""
    if result:
        clues = "\n".join(_text(str(clue["text"])) for clue in diagnosis["clues"])
        clues = clues.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        kind, cause = quoteattr(_text(str(diagnosis["kind"]))), quoteattr(_text(str(diagnosis["cause"])))
        what = f"<{result} type={kind} message={cause}>{clues}</{result}>"
    return f'{head} time="{seconds:.3f}"><properties>{properties}</properties>{what}</testcase>'
