"""The page in the real browser: what one can do with it by mouse, by keyboard, on any screen and on paper."""

import itertools
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.report import runs
from tests.report.browser import overflow
from tests.report.conftest import OpenPage
from tests.report.pages import page_of
from tests.report.recorded import record, write
from tests.waiting import until

WIDE = {"width": 1600, "height": 900}
SIZES = (320, 390, 768, 1600)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory, temporary_directory: str, qemu: str) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def failure(directory: Path) -> Path:
    """A test that failed."""
    return page_of(directory / "failure.html", runs.hanging(directory / "hanging"))


@pytest.fixture(scope="module")
def migration(directory: Path) -> Path:
    return page_of(directory / "migration.html", *runs.migrating(directory / "migrating"))


@pytest.fixture(scope="module")
def comparison(directory: Path) -> Path:
    """Of two runs, the second of which had more to do in one of its steps."""
    passed = [runs.passing(directory / f"run-{pings}", pings=pings) for pings in (1, 300)]
    return page_of(directory / "comparison.html", *passed, compare=True)


def part(page: Page) -> tuple[float, float]:
    """Which part of the time is shown, in seconds, as the page says it to screen readers."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    text = page.locator("#overview").get_attribute("aria-valuetext")
    found = re.fullmatch(r"(-?[\d.]+) s to (-?[\d.]+) s", text or "")
    assert found, text
    return float(found[1]), float(found[2])


def size(page: Page) -> float:
    begin, end = part(page)
    return end - begin


def focused(page: Page) -> str:
    """What a screen reader would say of what has the focus, at least."""
    return str(
        page.evaluate(
            "document.activeElement.getAttribute('aria-label') || document.activeElement.textContent.trim()"
        )
    )


def test_it_says_why_at_once(failure: Path, open_page: OpenPage) -> None:
    page = open_page(failure, viewport=WIDE)
    heading = page.get_by_role("heading", level=1)
    expect(heading).to_contain_text("Failed")
    expect(heading).to_contain_text("login:")
    expect(heading).to_be_in_viewport()
    expect(page.locator(".flag")).to_be_in_viewport()
    expect(page.locator("#wait")).to_contain_text("expect('login:') on console 'console'")
    expect(page.locator("#wait")).to_contain_text("runs.py:")
    assert page.title().startswith("FAILED: ")
    for step in ("boot", "ask", "say hello", "log in"):
        expect(page.get_by_role("button", name=re.compile(f"^{step}\\b"))).to_have_count(1)


def test_zoom_and_pan(failure: Path, open_page: OpenPage) -> None:
    page = open_page(failure, viewport=WIDE)
    whole = size(page)
    page.click("#zoom-in")
    assert size(page) == pytest.approx(whole / 2, abs=0.003)
    page.keyboard.press("+")
    assert size(page) == pytest.approx(whole / 4, abs=0.003)
    page.click("#zoom-out")
    assert size(page) == pytest.approx(whole / 2, abs=0.003)
    before = part(page)
    page.click("#earlier")
    assert part(page)[0] < before[0]
    page.keyboard.press("Shift+ArrowRight")
    page.click("#later")
    assert part(page)[0] > before[0]
    page.keyboard.press("0")
    assert size(page) == pytest.approx(whole, abs=0.003)


def test_the_wheel(failure: Path, open_page: OpenPage) -> None:
    """With Ctrl it zooms to where the mouse is, with Shift it moves; alone it scrolls the page."""
    page = open_page(failure, viewport=WIDE)
    whole = size(page)
    box = page.locator(".lane[data-lane=steps] svg").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    page.keyboard.down("Control")
    for _ in range(4):
        page.mouse.wheel(0, -120)
    page.keyboard.up("Control")
    zoomed = size(page)
    assert zoomed < whole / 2
    before = part(page)
    page.keyboard.down("Shift")
    page.mouse.wheel(0, 100)
    page.keyboard.up("Shift")
    assert part(page)[0] > before[0]
    assert size(page) == pytest.approx(zoomed, abs=0.003)
    page.mouse.wheel(0, 200)
    until(lambda: page.evaluate("scrollY > 50"))
    assert size(page) == pytest.approx(zoomed, abs=0.003)


def test_dragging(failure: Path, open_page: OpenPage) -> None:
    page = open_page(failure, viewport=WIDE)
    page.click("#zoom-in")
    before = part(page)
    box = page.locator(".lane[data-lane=notes] svg").bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 200, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 300, middle, steps=4)
    page.mouse.up()
    assert part(page)[0] < before[0]


def test_to_the_failure(failure: Path, open_page: OpenPage) -> None:
    page = open_page(failure, viewport=WIDE)
    page.click("#to-failure")
    begin, end = part(page)
    flag = page.locator(".flag")
    expect(flag).to_be_in_viewport()
    at = float(re.findall(r"([\d.]+) s", flag.inner_text())[-1])
    assert begin < at < end
    page.keyboard.press("0")
    page.keyboard.press("f")
    assert part(page) == pytest.approx((begin, end), abs=0.003)


def test_search(failure: Path, open_page: OpenPage) -> None:
    page = open_page(failure, viewport=WIDE)
    page.keyboard.press("/")
    page.keyboard.type("PONG")
    page.keyboard.press("Enter")
    count = page.locator("#match-count")
    expect(count).to_have_text(re.compile(r"^\d of 3$"))
    seen = {count.inner_text()}
    for _ in range(2):
        page.keyboard.press("Enter")
        seen.add(count.inner_text())
    assert seen == {"1 of 3", "2 of 3", "3 of 3"}
    now = page.locator(".log-row.match-now mark")
    expect(now).to_have_text("pong")
    last = count.inner_text()
    page.keyboard.press("Enter")
    page.keyboard.press("Shift+Enter")
    expect(count).to_have_text(last)
    page.check("#match-case")
    expect(count).to_have_text("no match")
    page.fill("#search", "query-name")
    page.click("#next-match")
    expect(count).to_have_text(re.compile("^1 of 2$"))
    expect(page.locator("[data-log=qmp] .match-now mark")).to_have_text("query-name")
    page.fill("#search", "")
    expect(count).to_have_text("")
    expect(page.locator("mark")).to_have_count(0)


def cursor(text: str) -> float:
    """Where it is, in seconds."""
    found = re.match(r"Cursor: (-?[\d.]+) s", text)
    assert found, text
    return float(found[1])


def test_from_the_log_to_the_axis_and_back(failure: Path, open_page: OpenPage) -> None:
    page = open_page(failure, viewport=WIDE)
    row = page.locator("[data-log='console:console'] .log-row", has_text="ready")
    row.locator(".when").click()
    stamp = row.locator(".when").inner_text().strip("▸ ")
    seconds = float(stamp.removesuffix(" s"))
    readout = page.locator("#cursor-readout")
    until(lambda: abs(cursor(readout.inner_text()) - seconds) < 0.001)  # rounded in the log
    expect(page.locator(".cursor-line")).to_have_count(1)
    page.locator(".lane[data-lane=qmp] g.mark").last.click()
    expect(page.locator("[data-log=qmp] .log-row.near")).to_be_visible()
    page.locator("#details").get_by_role("button", name="In the log").click()
    expect(page.locator("[data-log=qmp]")).to_be_focused()
    expect(page.locator("[data-log=qmp]")).to_be_in_viewport()


def test_clues_lead_to_what_they_are_about(failure: Path, open_page: OpenPage) -> None:
    page = open_page(failure, viewport=WIDE)
    clues = page.locator("#clues a")
    assert clues.count() >= 1
    for clue in clues.all():
        page.evaluate("scrollTo(0, 0)")
        clue.click()
        until(lambda: page.evaluate("document.activeElement !== document.body"))
    expect(page.locator("#chart")).to_be_in_viewport()
    clue = page.locator("#clues a[data-line]").first
    clue.click()
    line = page.locator("[data-log='console:console'] .log-row.near")
    expect(line).to_be_in_viewport()
    expect(line.locator(".when")).to_contain_text(clue.locator(".when").inner_text().removesuffix(" s"))
    expect(page.locator(".lane[data-lane='console:console']")).to_be_in_viewport()


def test_by_keyboard_alone(failure: Path, open_page: OpenPage) -> None:
    """Tab goes through the page in the order that one reads it in, and out; the chart is a single stop."""
    page = open_page(failure, viewport=WIDE)
    stops = []
    for _ in range(200):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            break
        stops.append(
            page.evaluate("document.activeElement.closest('g.mark') ? 'mark' : document.activeElement.id")
        )
    else:
        pytest.fail("Tab does not come out of the page")
    assert stops.count("mark") == 1
    order = [stops.index(one) for one in ("zoom-in", "to-failure", "overview", "mark", "search")]
    assert order == sorted(order)


def test_arrow_keys_go_from_item_to_item(failure: Path, open_page: OpenPage) -> None:
    page = open_page(failure, viewport=WIDE)
    page.locator(".lane[data-lane=steps] g.mark[tabindex='0'], .lane[data-lane=state] g.mark").first.focus()
    page.keyboard.press("Home")
    first = focused(page)
    page.keyboard.press("ArrowRight")
    second = focused(page)
    assert first != second
    page.keyboard.press("ArrowLeft")
    assert focused(page) == first
    page.keyboard.press("End")
    assert focused(page) not in {first, second}
    names = set()
    for _ in range(20):
        names.add(page.evaluate("document.activeElement.closest('.lane').dataset.lane"))
        page.keyboard.press("ArrowDown")
    assert {"state", "steps", "waits", "qmp"} <= names
    page.keyboard.press("Enter")
    expect(page.locator("g.mark.pinned")).to_have_count(1)
    pinned = page.locator("#details").inner_text()
    page.keyboard.press("ArrowUp")
    assert page.locator("#details").inner_text() == pinned
    page.keyboard.press("Escape")
    expect(page.locator("g.mark.pinned")).to_have_count(0)
    page.keyboard.press("+")
    assert page.evaluate("Boolean(document.activeElement.closest('g.mark'))"), "it stays where it was"


def test_the_dialog_of_keys(failure: Path, open_page: OpenPage) -> None:
    page = open_page(failure, viewport=WIDE)
    page.locator("#fit").focus()
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keys")
    expect(dialog).to_be_visible()
    expect(dialog).to_be_in_viewport(ratio=1)
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.locator("#fit")).to_be_focused()
    page.click("#help-button")
    page.uncheck("#single-keys")
    dialog.get_by_role("button", name="Close").click()
    page.locator("#search").press("Tab")
    whole = size(page)
    page.keyboard.press("+")
    assert size(page) == whole, "keys are for the chart alone now"


@pytest.mark.parametrize("name", ["failure", "comparison"])
def test_any_width(name: str, request: pytest.FixtureRequest, open_page: OpenPage) -> None:
    page = open_page(request.getfixturevalue(name), viewport=WIDE)
    for width in SIZES:
        page.set_viewport_size({"width": width, "height": 800})
        part(page)
        assert overflow(page) == 0, width
        plots = page.locator("#axis").bounding_box()
        assert plots is not None
        assert 0.6 * min(width, 1200) - 150 < plots["width"] < width, "it fills the window"
        drawn = page.evaluate("[document.querySelector('#axis').viewBox.baseVal.width, view.width]")
        assert drawn == pytest.approx([plots["width"]] * 2, abs=1), "it was drawn anew"


def test_touch(failure: Path, open_page: OpenPage) -> None:
    """What one taps is large enough for a finger, and a tap on an item shows what it is."""
    page = open_page(failure, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    for button in page.locator(".tools button").all():
        box = button.bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) >= 24  # WCAG 2.2, 2.5.8
    page.locator(".lane[data-lane=steps] g.mark").last.tap()
    expect(page.locator("#details")).to_contain_text("log in")
    assert overflow(page) == 0


def test_no_motion_for_who_wants_none(failure: Path, open_page: OpenPage) -> None:
    page = open_page(failure, viewport=WIDE, reduced_motion="reduce")
    page.locator("#clues a").first.click()
    assert page.evaluate("document.getAnimations().length") == 0
    assert page.evaluate("smoothly()") == "auto"


def test_on_paper(failure: Path, open_page: OpenPage) -> None:
    """Light whatever the screen is, with the chart, the facts, and the logs' last lines, on a few sheets."""
    page = open_page(failure, viewport=WIDE, color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    style = "getComputedStyle(document.{}).{}"
    assert page.evaluate(style.format("documentElement", "backgroundColor")) == "rgb(255, 255, 255)"
    assert page.evaluate(style.format("querySelector('h1')", "color")) == "rgb(22, 32, 44)"
    expect(page.locator(".tools")).to_be_hidden()
    expect(page.locator("section.static pre", has_text="vmfsm guest ready")).to_be_visible()
    page.emulate_media(media="screen")
    pdf = page.pdf(format="A4")
    assert pdf.startswith(b"%PDF-")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 6


def test_without_scripts(failure: Path, open_page: OpenPage) -> None:
    page = open_page(failure, viewport=WIDE, java_script_enabled=False)
    expect(page.get_by_role("heading", level=1)).to_contain_text("login:")
    for text in ("vmfsm guest ready", "query-name", "log in", "qemu-system-x86_64"):
        expect(page.get_by_text(text).filter(visible=True).first).to_be_visible()
    expect(page.locator("#zoom-in")).to_be_hidden()
    assert overflow(page) == 0


def test_machines_of_one_test(migration: Path, open_page: OpenPage) -> None:
    page = open_page(migration, viewport=WIDE)
    for name in ("source", "destination"):
        expect(page.get_by_role("button", name=re.compile(f"^\\W*{name}"), expanded=True)).to_have_count(1)
    expect(page.get_by_role("heading", level=1)).to_contain_text("panic")
    boxes = [strip.bounding_box() for strip in page.locator(".lane[data-lane=state] svg").all()]
    assert len({(round(box["x"]), round(box["width"])) for box in boxes if box}) == 1, "one axis"
    lanes = page.locator(".group[data-machine=m0] .lane")
    page.get_by_role("button", name=re.compile("source")).first.click()
    expect(lanes.first).to_be_hidden()
    assert overflow(page) == 0


def test_two_runs_compared(comparison: Path, open_page: OpenPage) -> None:
    page = open_page(comparison, viewport=WIDE)
    most = page.locator("#comparison tr.most")
    expect(most).to_have_count(1)
    expect(most).to_contain_text("say hello")
    expect(most).to_contain_text("lost most")
    heading = page.get_by_role("heading", level=1)
    expect(heading).to_contain_text("Compared B: pass took ")
    expect(heading).to_contain_text("longer than A: pass")
    expect(heading).to_contain_text("most of it in step say hello")
    for name in ("A: pass", "B: pass"):
        expect(page.get_by_role("button", name=name, exact=True)).to_have_count(1)
    page.locator('.group[data-machine=m1] g.mark[aria-label^="running,"]').click()
    expect(page.locator("#details")).to_contain_text("of B: pass")
    expect(page.locator("#details")).not_to_contain_text("UTC")


def test_what_a_screen_reader_gets(failure: Path, open_page: OpenPage) -> None:
    """Items have names that say what, how it went, when and how long; the chart and each lane have theirs."""
    page = open_page(failure, viewport=WIDE)
    expect(page.get_by_role("group", name=re.compile("^Timeline"))).to_have_count(1)
    steps = page.get_by_role("group", name="Steps of the test of hang")
    names = [mark.get_attribute("aria-label") or "" for mark in steps.get_by_role("button").all()]
    assert any(re.fullmatch(r"log in, failed, at [\d.]+ s, [\d.]+ m?s", name) for name in names), names
    assert page.get_by_role("main").count() == page.get_by_role("banner").count() == 1
    expect(page.get_by_role("search")).to_have_count(1)
    expect(page.get_by_role("grid", name=re.compile("Console"))).to_have_count(1)
    levels = page.locator("h1, h2, h3, h4").evaluate_all("all => all.map((one) => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


@pytest.fixture(scope="module")
def many(directory: Path) -> Path:
    """Of several tests, each with a machine that failed."""
    recordings = directory / "many"
    recordings.mkdir()
    for number in range(8):
        failed = {"error": f"AssertionError: [    {number}.5] Kernel panic", "by": "test"}
        records = [
            record(number, "transition", event="launch", source="created", dest="launching"),
            record(number + 0.1, "transition", event="launched", source="launching", dest="running"),
            record(number + 0.5, "failure", **failed),
            record(number + 0.7, "transition", event="quit", source="running", dest="stopped"),
        ]
        header = {"name": f"vm{number}", "harness": {"test": f"test_{number}"}}
        write(recordings / f"{number}.jsonl", records, **header)
    return page_of(directory / "many.html", *sorted(recordings.iterdir()))


def test_each_machine_of_many_is_within_reach(many: Path, open_page: OpenPage) -> None:
    page = open_page(many)
    assert "8 machines of 8 tests, 8 failed" in page.title()
    assert "test test_0" in page.locator(".badges").inner_text()
    assert "[    0.5] Kernel panic" in page.locator("#cause").inner_text()
    groups = page.locator("#machines .group")
    second = groups.nth(1)
    second.locator("button").first.click()
    expect(second.locator(".group-body")).to_be_hidden()
    page.evaluate("scrollTo(0, 0)")
    page.keyboard.press("f")
    expect(groups.first).to_be_in_viewport()
    page.evaluate("scrollTo(0, 0)")
    page.keyboard.press("f")
    expect(second.locator(".group-body")).to_be_visible()
    expect(second.locator(".group-head")).to_be_in_viewport()
    page.evaluate("scrollTo(0, 0)")
    line = page.locator(".others li").last
    assert line.inner_text().count("vm7") == 1
    line.get_by_role("link").click()
    expect(groups.last.locator(".group-head")).to_be_in_viewport()
    assert "test_7" in groups.last.locator(".group-head").inner_text()
