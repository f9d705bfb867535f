"""Diagrams: the table, and the way that a machine has gone; Graphviz reads its own."""

import json
import re
import shutil
import subprocess
from typing import Any

import pytest

from tests.conftest import MakeMachine
from vmfsm import TABLE, ConfigError, Machine, State, diagram

ARROWS = {(source.value, row.dest.value) for row in TABLE for source in row.sources}


def read_by_dot(text: str) -> dict[str, Any]:
    if shutil.which("dot") is None:
        pytest.skip("dot is not in PATH")
    run = subprocess.run(["dot", "-Tjson"], input=text, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def labels_for_dot(text: str) -> dict[tuple[str, str], str]:
    found = read_by_dot(text)
    names = [node["name"] for node in found["objects"]]
    assert sorted(names) == sorted(state.value for state in State)
    return {(names[edge["tail"]], names[edge["head"]]): edge["label"] for edge in found["edges"]}


def labels_for_mermaid(text: str) -> dict[tuple[str, str], str]:
    head, start, *lines = text.splitlines()
    assert (head, start) == ("stateDiagram-v2", "    [*] --> configured")
    rows = [re.fullmatch(r"    (\w+) --> (\w+): (.+)", line) for line in lines[: len(ARROWS)]]
    return {(row[1], row[2]): row[3] for row in rows if row is not None}


def twice(bare: MakeMachine) -> Machine:
    vm = bare()
    for _ in range(2):
        vm.launch()
        vm.kill()
    return vm


def test_the_table_alone() -> None:
    expected = {(source.value, row.dest.value): row.event.value for row in TABLE for source in row.sources}
    assert labels_for_mermaid(diagram.mermaid()) == expected
    assert labels_for_dot(diagram.graphviz()) == expected
    assert "here" not in diagram.mermaid()
    assert "filled" not in diagram.graphviz()


def test_a_machine_that_was_never_launched(bare: MakeMachine) -> None:
    vm = bare()
    assert vm.diagram().endswith("class configured here")
    assert re.findall(r'^    (\w+) \[style="rounded,filled', vm.diagram("graphviz"), re.MULTILINE) == [
        "configured"
    ]


def test_the_way_that_a_machine_took(bare: MakeMachine) -> None:
    vm = twice(bare)
    taken = labels_for_mermaid(vm.diagram())
    assert taken["launching", "running"] == "launched ×2"  # noqa: RUF001
    assert taken["running", "quitting"] == "quit ×2<br/>killed"  # noqa: RUF001
    assert taken["configured", "launching"] == "launch ×1"  # noqa: RUF001
    assert taken["stopped", "launching"] == "launch ×1"  # noqa: RUF001
    assert taken["launching", "quitting"] == "quit"
    assert vm.diagram().splitlines()[-1] == "    class stopped here"
    by_dot = labels_for_dot(vm.diagram("graphviz"))
    assert {arrow: label.replace("\\n", "<br/>") for arrow, label in by_dot.items()} == taken
    (here,) = [node for node in read_by_dot(vm.diagram("graphviz"))["objects"] if "fillcolor" in node]
    assert here["name"] == "stopped"


@pytest.mark.parametrize("format", ["svg", "", None, ["mermaid"]])
def test_formats_that_there_are_not(bare: MakeMachine, format: Any) -> None:  # noqa: A002
    with pytest.raises(ConfigError) as refused:
        bare().diagram(format)
    assert refused.value.field == "format"
