"""The check for what is left behind, as a fixture of pytest.

In the `conftest.py` at the root of the tests:

    pytest_plugins = ["vmfsm.testing.pytest_leakcheck"]

Elsewhere `from vmfsm.testing.pytest_leakcheck import leakcheck, leakcheck_options` does the same.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from . import leaks

__all__ = ["leakcheck", "leakcheck_options"]


@pytest.fixture
def leakcheck_options() -> Mapping[str, Any]:
    """The parameters of `vmfsm.testing.leakcheck`: define a fixture of this name to have others."""
    return {}


@pytest.fixture
def leakcheck(leakcheck_options: Mapping[str, Any]) -> Iterator[None]:
    """Fails a test that leaves something behind, after the fixtures that came after this one are gone."""
    try:
        with leaks.leakcheck(**leakcheck_options):
            yield
    except leaks.Leak as leak:
        raise pytest.fail.Exception(str(leak), pytrace=False) from None
