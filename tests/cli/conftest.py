"""What the tests of the command line share."""

from pathlib import Path

import pytest

from tests.cli.harness import harness
from tests.cli.running import here

__all__ = ["harness", "here"]


@pytest.fixture(autouse=True)
def registry_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In which the machines that this very process has still, of tests before, are not."""
    directory = tmp_path_factory.mktemp("runtime")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    return directory
