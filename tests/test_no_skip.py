"""What would be skipped fails where nothing may be missing, in one process and in several."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

SKIPPED = """
import contextlib
import pytest

@pytest.fixture(scope="session")
def missing():
    pytest.skip("for the session")

@contextlib.contextmanager
def lacking():
    pytest.skip("in a block")
    yield

def test_by_a_fixture(missing): pass

def test_by_a_block():
    with lacking(): pass

@pytest.mark.skip
def test_by_a_mark(): pass

@pytest.mark.parametrize("value", [])
def test_by_no_parameters(value): pass

def test_by_an_import():
    pytest.importorskip("no_such_module")

@pytest.mark.xfail(run=False)
def test_not_run(): pass

@pytest.mark.xfail
def test_that_fails(): assert False

def test_that_passes(): pass
"""


MODULE = """
import pytest

pytest.importorskip("no_such_module")
"""


@pytest.fixture
def skipping(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makepyfile(test_skipped=SKIPPED, test_module=MODULE)
    return pytester


def run(skipping: pytest.Pytester, *options: str) -> pytest.RunResult:
    plugins = ("-p", "tests.plugins.no_skip", "-p", "no:cacheprovider")
    return skipping.runpytest_subprocess(*plugins, "--continue-on-collection-errors", *options, timeout=200)


@pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["one process", "xdist"])
def test_they_fail(
    skipping: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.setenv("VMFSM_TEST_NO_SKIP", "1")
    run(skipping, *options).assert_outcomes(failed=2, errors=5, xfailed=1, passed=1)


def test_where_they_may_be_they_are_skipped(
    skipping: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VMFSM_TEST_NO_SKIP", raising=False)
    run(skipping).assert_outcomes(skipped=6, xfailed=2, passed=1)
