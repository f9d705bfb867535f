"""The tables of `docs/faults.md` name tests that there are, and leave out none of this folder's files."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
# What it says of the matrix is that one's own to check.
PAGE = (TESTS.parent / "docs" / "faults.md").read_text(encoding="utf-8").partition("\n## The matrix\n")[0]
NAMED = re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)
MEASURED = re.findall(r"^\| ([a-z]) \|.*\|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[name for _, name in NAMED])
def test_it_is_there(file: str, name: str) -> None:
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_line_names_one() -> None:
    lines = [line for line in PAGE.splitlines() if line.startswith("| ") and "---" not in line]
    bare = [line for line in lines if "::test_" not in line and not line.rstrip().endswith("| test |")]
    assert bare == []
    assert "".join(MEASURED) == "abcdefghklmn"


def test_every_file_is_named() -> None:
    here = {f"faults/{path.name}" for path in Path(__file__).parent.glob("test_*.py")} - {
        "faults/test_table.py"
    }
    assert here <= {file for file, _ in NAMED}


def test_every_test_that_was_measured_is_named() -> None:
    tree = ast.parse((TESTS / "faults" / "test_measured.py").read_text(encoding="utf-8"))
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert {name for name in names if name.startswith("test_")} <= {name for _, name in NAMED}
