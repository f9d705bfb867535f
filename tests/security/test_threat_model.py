"""The table of `docs/threat-model.md` names tests that there are, and none of this folder is left out."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "threat-model.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[name for _, name in NAMED])
def test_it_is_there(file: str, name: str) -> None:
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_boundary_names_one() -> None:
    _, table = PAGE.split("## What is checked\n", 1)
    rows = [row for row in table.split("\n## ", 1)[0].splitlines() if row.startswith("| ")][2:]
    assert len(rows) > 10
    assert [row.split("|")[1].strip() for row in rows if "::test_" not in row] == ["TCP"]


def test_every_file_is_named() -> None:
    here = {f"security/{path.name}" for path in Path(__file__).parent.glob("test_*.py")}
    assert here - {"security/test_threat_model.py"} <= {file for file, _ in NAMED}
