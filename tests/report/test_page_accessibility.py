"""The page for everybody: what axe finds, in each look that the page has."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.report import runs
from tests.report.browser import barriers
from tests.report.conftest import OpenPage
from tests.report.pages import page_of

PHONE = {"width": 390, "height": 844}
WIDE = {"width": 1600, "height": 900}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, temporary_directory: str, qemu: str) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("pages")
    failed = runs.hanging(directory / "hanging")
    passed = [runs.passing(directory / f"run-{pings}", pings=pings) for pings in (1, 20)]
    return {
        "failure": page_of(directory / "failure.html", failed),
        "comparison": page_of(directory / "comparison.html", *passed, compare=True),
        "migration": page_of(directory / "migration.html", *runs.migrating(directory / "migrating")),
    }


def as_it_is(page: Page) -> None:
    pass


def with_the_keys(page: Page) -> None:
    page.keyboard.press("?")


def with_details(page: Page) -> None:
    page.locator(".lane[data-lane=steps] g.mark").last.focus()
    page.keyboard.press("Enter")


def with_matches(page: Page) -> None:
    page.fill("#search", "e")
    page.press("#search", "Enter")
    page.locator("mark").first.wait_for()


@pytest.mark.parametrize(
    ("name", "look", "prepare"),
    [
        pytest.param("failure", {"viewport": WIDE}, as_it_is, id="light"),
        pytest.param("failure", {"viewport": WIDE, "color_scheme": "dark"}, with_details, id="dark"),
        pytest.param("failure", {"viewport": WIDE, "color_scheme": "dark"}, with_matches, id="search"),
        pytest.param("failure", {"viewport": PHONE, "is_mobile": True}, with_details, id="phone"),
        pytest.param("failure", {"viewport": WIDE}, with_the_keys, id="keys"),
        pytest.param("failure", {"viewport": WIDE, "forced_colors": "active"}, as_it_is, id="contrast"),
        pytest.param("comparison", {"viewport": WIDE}, as_it_is, id="comparison"),
        pytest.param("migration", {"viewport": PHONE, "color_scheme": "dark"}, as_it_is, id="machines"),
    ],
)
def test_no_barriers(
    name: str,
    look: dict[str, object],
    prepare: Callable[[Page], None],
    pages: dict[str, Path],
    open_page: OpenPage,
) -> None:
    page = open_page(pages[name], **look)
    prepare(page)
    assert barriers(page) == []
