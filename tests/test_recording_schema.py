"""The schema of recordings: it has what is documented, and what is recorded is as it says."""

import asyncio
import copy
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import ValidationError

from tests.endings import guests, until_guest_is_up
from tests.recordings import lines_of, validator, written
from vmfsm import LaunchPlan, Machine, Reason, State, Verdict, hookimpl, qemu_img, recording
from vmfsm.lifecycle import Event

DOCS = Path(__file__).parent.parent / "docs"


def test_each_kind_that_is_documented_is_in_the_schema() -> None:
    text = (DOCS / "timeline.md").read_text(encoding="utf-8")
    kinds = recording.schema()["$defs"]["kinds"]
    documented = dict(re.findall(r"^\| `([\w-]+)` \| [^|]* \| (.*) \|$", text, re.MULTILINE))
    assert set(documented) <= set(kinds)
    for kind, data in documented.items():
        for name in kinds[kind]["required"]:
            assert f"`{name}`" in data, (kind, name)


def test_the_schema_is_for_what_it_says() -> None:
    good = {"at": 1.5, "kind": "exit", "data": {"status": 0}}
    validator().validate(good)
    validator().validate({"at": 1, "kind": "of-a-plugin", "data": {"what": "ever"}})
    validator().validate({"at": 1, "kind": "exit", "data": {"left_out": 10}})
    bad: object
    for bad in (
        {**good, "data": {}},
        {**good, "data": {"status": "0"}},
        {**good, "at": "now"},
        {**good, "kind": ""},
        {"kind": "exit", "data": {"status": 0}},
        {"format": "vmfsm-recording"},
        {"format": "another", **good},
        [],
    ):
        with pytest.raises(ValidationError):
            validator().validate(bad)


def test_the_words_of_changes_of_state() -> None:
    kinds = recording.schema()["$defs"]["kinds"]
    words = kinds["transition"]["properties"]
    assert words["event"]["enum"] == [event.value for event in Event]
    assert words["reason"]["enum"] == [None, *(reason.value for reason in Reason)]
    assert recording.schema()["$defs"]["state"]["enum"] == [state.value for state in State]


class Doing:
    """Does what is not part of each launch."""

    name = "doing"

    @hookimpl
    def pre_launch(self, plan: LaunchPlan) -> None:
        plan.companion(["sleep", "1000"])

    @staticmethod
    async def report(vm: Machine) -> None:
        await asyncio.sleep(0)
        vm.report(Verdict("oops", "doing", {"message": "oh"}), action="record")


@pytest.fixture(scope="module")
def lines(qemu: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One line of each kind that could be had, by kind; all were held to the schema."""
    path = tmp_path_factory.mktemp("records")
    qemu_img.create(path / "disk", 1 << 20)
    disk = f"driver=qcow2,node-name=disk,file.driver=file,file.filename={path}/disk"
    options = {"recorder": {"directory": path}}
    with guests(qemu) as make:
        vm = make(more=["-blockdev", disk], plugins=[Doing()], options=options).launch()
        until_guest_is_up(vm)
        with vm.trace("doing it"), vm.hold("to look"):
            vm.note("now")
            vm.note_failure("no good")
        vm.snapshots.external({"disk": path / "over"})
        vm.fds.add(path / "disk")
        vm.run(Doing.report(vm), timeout=30, operation="report")
        vm.qmp.execute("stop")
        vm.migration.to_file(path / "state")
        vm.shutdown()
        files = written(vm).files
    return {line["kind"]: line for file in files for line in lines_of(Path(file)) if "kind" in line}


KINDS = """
    transition hook-begin hook spawn started companion companion-ready companion-exit stop exit
    wait-begin wait step-begin step note verdict failure hold release
    qmp-greeting qmp-command qmp-reply qmp-event console snapshot fd-passed migration
"""


def test_many_kinds_are_as_it_says(lines: dict[str, Any]) -> None:
    assert lines.keys() >= set(KINDS.split())


MAY_LACK = {
    ("exit", "sent"),
    ("failure", "thread"),
    ("qmp-event", "data"),
    ("qmp-event", "timestamp"),
    ("qmp-reply", "error"),
}
ANYTHING = {("qmp-command", "id"), ("qmp-reply", "id"), ("qmp-event", "timestamp")}


def test_what_is_wrong_is_found(lines: dict[str, Any]) -> None:
    """A field that is missing, and one that holds what it never does."""
    for kind, line in lines.items():
        for name in line["data"]:
            wrong = copy.deepcopy(line)
            del wrong["data"][name]
            assert validator().is_valid(wrong) == ((kind, name) in MAY_LACK), (kind, name)
            wrong["data"][name] = [{"odd": [None]}]
            assert validator().is_valid(wrong) == ((kind, name) in ANYTHING), (kind, name)
