"""That the tests in the browser would notice what no report may do."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.report.browser import Watched, barriers, overflow
from tests.waiting import until

POLICY = "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'\">"


@pytest.fixture
def watched(chromium: Browser) -> Iterator[Watched]:
    with Watched(chromium) as pages:
        yield pages


def page_of(directory: Path, html: str) -> Path:
    path = directory / "page.html"
    path.write_text(f"<!doctype html><meta charset=utf-8><title>A page</title>{html}")
    return path


def test_what_only_shows_itself(watched: Watched, tmp_path: Path) -> None:
    page = watched.open(page_of(tmp_path, '<h1>Plain</h1><a href="#there">there</a><p id=there>here'))
    page.click("a")
    assert page.evaluate("document.title") == "A page"
    assert watched.troubles == []


@pytest.mark.parametrize(
    ("html", "trouble"),
    [
        ("<script>console.log('words')</script>", "console: log: words"),
        ("<script>throw new Error('lost')</script>", "exception: lost"),
        ("<script>Promise.reject(new Error('late'))</script>", "exception: late"),
        ("<script>alert('here')</script>", "dialog: here"),
        ("<script>fetch('https://example.com/').catch(() => 0)</script>", "request: https://example.com/"),
        ("<img src=beside.png alt=beside>", "request: file://"),
        ("<script>location = 'http://example.com/'</script>", "navigation: http://example.com/"),
        (f"{POLICY}<script>1</script>", "console: error: "),
        (f"{POLICY}<p style='color: red'>red", "console: error: "),
        (f"{POLICY}<img src=https://example.com/beside.png alt=beside>", "console: error: "),
        ("<script>setTimeout(() => window.open('about:blank#new'))</script>", "window: about:blank"),
    ],
)
def test_what_does_more(watched: Watched, tmp_path: Path, html: str, trouble: str) -> None:
    page = watched.open(page_of(tmp_path, html))

    def noticed() -> bool:
        page.wait_for_timeout(1)  # here Playwright tells what it has heard
        return any(found.startswith(trouble) for found in watched.troubles)

    until(noticed)


def test_what_is_too_wide(watched: Watched, tmp_path: Path) -> None:
    page = watched.open(page_of(tmp_path, "<div style='width: 5000px'>wide</div>"))
    assert overflow(page) > 1000
    page.set_viewport_size({"width": 6000, "height": 600})
    assert overflow(page) == 0


def test_barriers(watched: Watched, tmp_path: Path) -> None:
    found = barriers(watched.open(page_of(tmp_path, "<p style='color: #888; background: #999'>faint</p>")))
    assert any(barrier.startswith("color-contrast (serious): ['p']") for barrier in found)
    plain = "<main><h1>Plain</h1></main><script>document.documentElement.lang = 'en'</script>"
    assert barriers(watched.open(page_of(tmp_path, plain))) == []
