"""How a snapshot is laid out, whatever is in it: it may be of another version, or anybody's making."""

import math
import re

import click.testing
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmfsm.cli.output import age, duration, one_line
from vmfsm.cli.picture import show
from vmfsm.cli.ps import program
from vmfsm.cli.table import Column, print_table

NAMES = re.findall(
    r"\w+",
    """
    name state reason since held launches history hooks running_hook command shell environment cwd
    pid exit_status harness waits verdicts paths details recording taken at dest seconds hook plugin
    error operation timeout remaining thread caller kind data where what message console lines qmp
    events event timestamp logs version run_state test directory log_dir files problems
    """,
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("\x1b[2J\n\t"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=20,
)
SNAPSHOTS = st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=len(NAMES))


@settings(max_examples=40)
@given(SNAPSHOTS, st.integers(0, 20))
def test_nothing_in_it_is_too_odd_to_be_shown(snapshot: dict[str, object], lines: int) -> None:
    @click.command()
    def command() -> None:
        show(snapshot, lines)

    ran = click.testing.CliRunner().invoke(command, [])
    assert ran.exception is None, ran.exception
    assert all(char.isprintable() or char == "\n" for char in ran.stdout)


def test_ages_and_durations() -> None:
    assert [age(seconds) for seconds in (0, 3.9, 99, 100, 5999, 6000, 1e5, 1e6)] == [
        "0 s",
        "3 s",
        "99 s",
        "1 min",
        "99 min",
        "1 h",
        "27 h",
        "11 d",
    ]
    assert [duration(seconds) for seconds in (0, 0.0003, 0.012, 0.9, 1.24, 42.0, 600)] == [
        "0 s",
        "0.3 ms",
        "12 ms",
        "900 ms",
        "1.2 s",
        "42 s",
        "10 min",
    ]


def test_others_words_are_on_one_line() -> None:
    assert one_line("a\nb\tc\x1b[31m\u202e") == "a\\nb c\\x1b[31m\\u202e"


def test_programs_as_people_say_them() -> None:
    python = "/usr/bin/python3"
    assert program([python, "-u", "/x/boot.py", "--fast"]) == "boot.py --fast"
    assert program([python, "-m", "pytest", "-q"]) == "pytest -q"
    assert program([python, "-c", "import this"]) == "python -c ..."
    assert program(["/opt/bin/harness"]) == "harness"
    assert program([python]) == "python3"
    assert program([]) == ""


def test_what_is_endless_is_not_shown() -> None:
    @click.command()
    def command() -> None:
        show({"name": "x", "state": "running", "since": math.inf, "waits": [{"seconds": math.nan}]}, 1)

    ran = click.testing.CliRunner().invoke(command, [], catch_exceptions=False)
    assert ran.stdout.splitlines()[0] == "x  running"


def test_a_table_without_rows_is_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    print_table((Column("A"), Column("B")), [])
    assert capsys.readouterr().out.strip() == ""
