"""The pictures of the report in the documentation: `python -m tests.report.screenshots` makes them anew.

Of real runs; only the directory that these were made in is called something else.
"""

import re
import tempfile
from pathlib import Path

from playwright.sync_api import Browser

from tests.report import runs
from tests.report.browser import Watched, browser
from tests.report.pages import page_of

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
WIDE = {"width": 1080, "height": 560}
LOW = {"width": 1000, "height": 360}
PHONE = {"width": 390, "height": 780}


def anywhere(recording: Path) -> Path:
    """As if the sources were those of somebody at home."""
    text = recording.read_text("ascii").replace(str(ROOT), "/home/me/project")
    recording.write_text(re.sub(r"/[^\"' ]*/bin/python", "/usr/bin/python", text), "ascii")
    return recording


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        failed = anywhere(runs.hanging(directory / "failed", patience=1.5))
        failure = page_of(directory / "failure.html", failed)
        passed = [anywhere(runs.passing(directory / str(pings), pings=pings)) for pings in (3, 300)]
        comparison = page_of(directory / "comparison.html", *passed, compare=True)
        with browser(directory / "browser") as running:
            picture(running, failure, "report", viewport=WIDE)
            picture(running, failure, "report-dark", at="#timeline", viewport=WIDE, color_scheme="dark")
            picture(running, failure, "report-phone", viewport=PHONE, has_touch=True)
            picture(running, comparison, "report-comparison", at="#comparison", viewport=LOW)


def picture(browser: Browser, path: Path, name: str, *, at: str = "body", **look: object) -> None:
    """What a window shows that is scrolled to this."""
    target = IMAGES / f"{name}.png"
    with Watched(browser, **look) as watched:
        page = watched.open(path)
        page.locator(at).evaluate("node => node.scrollIntoView()")
        page.screenshot(path=target)
        assert not watched.troubles
    print(f"{target.relative_to(ROOT)}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
