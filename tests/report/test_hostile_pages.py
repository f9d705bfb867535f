"""What guests print is shown, and does nothing: in the real browser, whatever it is."""

import json
import re
import unicodedata
from pathlib import Path

import pytest
from playwright.sync_api import Page, ViewportSize

from tests.report import hostile
from tests.report.browser import overflow
from tests.report.conftest import OpenPage
from tests.report.pages import page_of
from tests.waiting import LIMIT
from vmfsm import report
from vmfsm.report import text as terminal

PHONE: ViewportSize = {"width": 390, "height": 844}
WIDE: ViewportSize = {"width": 1280, "height": 900}

ALL_TEXT = """() => {
    const found = [document.title];
    for (const node of document.querySelectorAll("*")) {
        if (node.closest("script, style") || node.name === "Content-Security-Policy") continue;
        for (const { value } of node.attributes) found.push(value);
        for (const child of node.childNodes) if (child.nodeType === Node.TEXT_NODE) found.push(child.data);
    }
    return found.map((text) => text.isWellFormed() ? text : "\\u0000 half a character");
}"""
FOREIGN = """() => Array.from(document.querySelectorAll("*"), (node) => {
    const others = "img, iframe, object, embed, base, use, form[action], [http-equiv=refresh]";
    if (node.matches(others)) return node.outerHTML;
    if (node.getAttributeNames().some((name) => name.startsWith("on"))) return node.outerHTML;
    const target = node.getAttribute("href");
    const isOurs = target === null || /^(#|\\.\\/|file:\\/\\/\\/|data:,$)/.test(target);
    return isOurs ? null : node.outerHTML;
}).filter((html) => html !== null)"""


def unseen(text: str) -> bool:
    """Whether there is something in it that acts instead of being seen."""
    return any(
        char not in "\n\t" and unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for char in text
    )


def assert_harmless(page: Page) -> None:
    assert page.evaluate(FOREIGN) == []
    assert [text for text in page.evaluate(ALL_TEXT) if unseen(text)] == []
    assert overflow(page) == 0


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, temporary_directory: str) -> Path:
    return hostile.recorded(tmp_path_factory.mktemp("recorded"))


@pytest.fixture(scope="module")
def said(recorded: Path) -> Path:
    return page_of(recorded.parent / "said.html", recorded)


ROWS = """async (pane) => {
    const rows = new Map();
    for (let top = 0; top < pane.scrollHeight; top += pane.clientHeight) {
        pane.scrollTop = top;
        await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
        for (const row of pane.querySelectorAll(".log-row")) {
            const [when, text] = [row.querySelector(".when"), row.querySelector(".text")];
            const [own, first, rest] = [row, when, text].map((node) => node.getBoundingClientRect());
            rows.set(row.dataset.row, [text.textContent, own.height, own.left, first.left, rest.left].map(
                (value) => typeof value === "number" ? Math.round(value) : value));
        }
    }
    return Array.from(rows.values());
}"""
"""All rows of a log: the text that they show, their height, where they, their time and their text begin."""


def rows_of(page: Page, log: str) -> list[tuple[str, int, int, int, int]]:
    rows = page.locator(f".log-rows[data-log='{log}']").evaluate(ROWS)
    return [tuple(row) for row in rows]


def test_this_test_would_notice(open_page: OpenPage, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(
        "<!doctype html><meta charset=utf-8><title>Bad</title>"
        "<p onclick='1'>a</p><a href='javascript:1'>b</a><a href='https://example.com/'>c</a>"
        "<a href='#d'>d</a><p title='\u202e'>e\x9b</p>"
    )
    page = open_page(path)
    assert len(page.evaluate(FOREIGN)) == 3
    assert sum(unseen(text) for text in page.evaluate(ALL_TEXT)) == 2


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_what_a_guest_prints(said: Path, open_page: OpenPage, viewport: ViewportSize) -> None:
    page = open_page(said, viewport=viewport)
    assert_harmless(page)
    shown = [text for text, *_ in rows_of(page, "console:console")]
    assert hostile.HARMLESS in shown
    for name, word in hostile.MARKUP.items():
        assert f"{name}: {word}" in shown
    for name, word in {
        "override": "<U+202E>gnp.exe<U+202C>",
        "clear": "␛[2J␛[1;1H␛[31mred␛[0m",
        "NUL": "nul␀nul␡",
        "C1": "<U+009B>31mred<U+009D>0;title<U+009C><U+0085>",
        "overwriting": "fine␍owned␈␈",
        "right to left": hostile.SEEN["right to left"],
        "tower": "Z\u0300\u0489\u0336\u20dd" + "<U+0300><U+0489><U+0336><U+20DD>" * 99 + "algo",
        "half a character": "\ufffd",
    }.items():
        assert f"{name}: {word}" in shown
    assert_harmless(page)


def test_no_line_moves_its_neighbours(said: Path, open_page: OpenPage) -> None:
    """Unwrapped rows have one height and one beginning, and begin with their time, whatever is in them."""
    page = open_page(said, viewport=WIDE)
    page.uncheck("#wrap")
    rows = rows_of(page, "console:console")
    assert len(rows) >= len(hostile.WORDS) + 2
    assert len({tuple(places) for _, *places in rows}) == 1


def test_what_is_searched_for(said: Path, open_page: OpenPage) -> None:
    page = open_page(said, viewport=WIDE)
    for words, count in (("<script>alert('script')", 2), ("{{7*7}}", 2), ("(?i)[", 0), ("\u202egnp", 2)):
        page.fill("#search", words)
        page.press("#search", "Enter")
        shown = page.locator("#match-count").inner_text(timeout=LIMIT * 1000)
        assert shown == (f"1 of {count}" if count else "no match"), words
    assert_harmless(page)


def test_what_somebody_wrote_into_a_recording(recorded: Path, tmp_path: Path, open_page: OpenPage) -> None:
    """In the name of the machine, of the test, of consoles, hooks, plugins, in the command line: anywhere."""
    tampered = hostile.spread(recorded, tmp_path / "tampered.jsonl")
    page = open_page(page_of(tmp_path / "page.html", tampered), viewport=WIDE)
    assert_harmless(page)
    for lane in page.locator(".lane g.mark").all():
        lane.focus()
        assert "alert(" in page.locator("#details").inner_text()
    assert_harmless(page)
    page.set_viewport_size(PHONE)
    assert_harmless(page)


def test_without_scripts(recorded: Path, tmp_path: Path, open_page: OpenPage) -> None:
    tampered = hostile.spread(recorded, tmp_path / "tampered.jsonl")
    page = open_page(page_of(tmp_path / "page.html", tampered), viewport=PHONE, java_script_enabled=False)
    assert_harmless(page)
    text = page.locator("main").inner_text()
    assert "<script>alert('script')</script>" in text
    assert "<U+202E>gnp.exe<U+202C>" in text


def test_on_a_terminal(recorded: Path, tmp_path: Path) -> None:
    tampered = hostile.spread(recorded, tmp_path / "tampered.jsonl")
    for path in (recorded, tampered):
        assert not unseen(terminal.render(report.data([path])))


def test_files_beside_the_page(recorded: Path, tmp_path: Path) -> None:
    """Whatever a console is called, its text is in a file of a plain name in the directory for that."""
    flood = "for _ in range(100): consoles[0].sendall(b'\\n' * 10000)\nconsoles[0].sendall(b'THE END')"
    long = hostile.flood(tmp_path / "records", flood, "THE END")
    named = tmp_path / "named.jsonl"
    name = json.dumps(f"../../etc/{hostile.ALL[:200]}")
    named.write_text(long.read_text("ascii").replace('"console":"console"', f'"console":{name}'), "ascii")
    page = page_of(tmp_path / "out" / "page.html", named)
    files = [path for path in page.parent.rglob("*") if path.is_file() and path != page]
    assert files
    assert all(re.fullmatch(r"[\w.+@:-]+", path.name, re.ASCII) for path in files)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["named.jsonl", "out", "records"]


@pytest.mark.parametrize(
    ("code", "last"),
    [
        pytest.param(
            "for _ in range(50): consoles[0].sendall(b'x' * 1000000)\nconsoles[0].sendall(b' THE END')",
            "THE END",
            id="a line of 50 MB",
        ),
        pytest.param(
            "for _ in range(100): consoles[0].sendall(b'\\n' * 10000)\nconsoles[0].sendall(b'THE END')",
            "THE END",
            id="a million empty lines",
        ),
    ],
)
def test_floods(code: str, last: str, tmp_path: Path, open_page: OpenPage) -> None:
    path = page_of(tmp_path / "page.html", hostile.flood(tmp_path / "records", code, last))
    assert path.stat().st_size < 8_000_000
    page = open_page(path, viewport=PHONE)
    assert_harmless(page)
    page.fill("#search", last)
    page.press("#search", "Enter")
    page.locator("#match-count", has_text="1 of ").wait_for()
    page.locator(".log-row.match-now mark").wait_for()
    page.check("#wrap")
    assert_harmless(page)
