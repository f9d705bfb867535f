"""The real browser, for tests that look at the page."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.report.browser import Watched, browser, executable

OpenPage = Callable[..., Page]


@pytest.fixture(scope="module")
def chromium(temporary_directory: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One for all tests of a module: it takes a second of a processor to start.

    No longer than that, since beside it no test can have an event loop in this thread.
    """
    if executable() is None:
        pytest.skip("chromium is not in PATH")
    with browser(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[OpenPage]:
    """Opens files in the browser, each in a context of its own; fails where one does more than show itself.

    Takes the path, and what `Browser.new_context` takes by keyword.
    """
    opened = []

    def open_(path: Path, **options: Any) -> Page:
        opened.append(Watched(chromium, **options))
        return opened[-1].open(path)

    yield open_
    for watched in opened:
        watched.close()
    assert [trouble for watched in opened for trouble in watched.troubles] == []
