"""The browser that people have, and pages in it that may do nothing but show themselves."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, BrowserContext, Dialog, Page, Request, expect, sync_playwright

from tests.waiting import LIMIT

RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
"""What axe holds a page to."""

expect.set_options(timeout=LIMIT * 1000)  # a busy machine's browser takes its time


def executable() -> str | None:
    """Where the browser is."""
    return shutil.which("chromium")


@contextlib.contextmanager
def browser(home: Path) -> Iterator[Browser]:
    """One that is closed at the end, together with what drives it; what it keeps is in `home`.

    While it is open the calling thread counts as one with a running event loop: `asyncio.run` refuses.
    """
    environment: dict[str, str | float | bool] = {
        **os.environ,
        "XDG_CONFIG_HOME": str(home),
        "XDG_CACHE_HOME": str(home),
    }
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=executable(),
            args=["--no-sandbox"] if os.geteuid() == 0 else [],  # it refuses to have one for root
            env=environment,
            timeout=4 * LIMIT * 1000,
        )
        try:
            yield running
        finally:
            running.close()


class Watched:
    """Pages in a context of their own, and what they did that no report may do.

    `troubles` has every message on the console (a violation of the content security policy is one), every
    exception, request, dialog, window, download and navigation.
    """

    def __init__(self, browser: Browser, **options: Any) -> None:
        """:param options: as of Playwright's `Browser.new_context`."""
        self.troubles: list[str] = []
        self._own: list[str] = []
        self._context: BrowserContext = browser.new_context(offline=True, **options)
        self._context.set_default_timeout(LIMIT * 1000)
        self._context.on("console", lambda message: self._note(f"console: {message.type}: {message.text}"))
        self._context.on("weberror", lambda error: self._note(f"exception: {error.error}"))
        self._context.on("request", self._on_request)

    def open(self, path: Path) -> Page:
        """A file, as soon as it is loaded."""
        url = path.absolute().as_uri()
        self._own.append(url)
        page = self._context.new_page()
        page.on("dialog", self._on_dialog)
        page.on("popup", lambda popup: self._note(f"window: {popup.url}"))
        page.on("download", lambda download: self._note(f"download: {download.url}"))
        page.on("crash", lambda _: self._note("the page crashed"))
        page.goto(url)
        return page

    def _on_request(self, request: Request) -> None:
        if request.url.partition("#")[0] in self._own:
            return
        what = "navigation" if request.is_navigation_request() else "request"
        self._note(f"{what}: {request.url}")

    def _on_dialog(self, dialog: Dialog) -> None:
        self._note(f"dialog: {dialog.message}")
        dialog.dismiss()  # Playwright does so only where nobody listens

    def _note(self, trouble: str) -> None:
        self.troubles.append(trouble)

    def close(self) -> None:
        self._context.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def overflow(page: Page) -> int:
    """Pixels by which the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def barriers(page: Page) -> list[str]:
    """What axe finds in the page as it is now: a rule, how bad, where, and what is wrong."""
    page.evaluate(AXE_SCRIPT)
    options = {"runOnly": list(RULES), "resultTypes": ["violations"]}
    found = page.evaluate("options => axe.run(options)", options)
    return [
        f"{violation['id']} ({violation['impact']}): {node['target']}: {node['failureSummary']}"
        for violation in found["violations"]
        for node in violation["nodes"]
    ]
