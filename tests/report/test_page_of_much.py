"""The page in the real browser where there is much of something, or it is long."""

import itertools
import re
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from tests.report.conftest import OpenPage
from tests.report.test_page_in_browser import WIDE, part
from tests.report.test_rendering import item, lane, machine, report
from vmfsm.report.rendering import render

LENGTH = 100.0


def written(path: Path, *machines: dict[str, Any]) -> Path:
    path.write_text(render(report(*machines, length=LENGTH, primary="m0")), "utf-8")
    return path


def failing(number: int, at: float) -> dict[str, Any]:
    """One that waits all the time, and fails then."""
    name = f"machine-{number}"
    clue = {"text": "it waited", "at": at, "lane": "waits", "log": None}
    diagnosis = {"outcome": "failed", "kind": "timeout", "cause": "it failed", "at": at, "clues": [clue]}
    lines = [[n / 10, f"line {n} of {name}"] for n in range(1000)]
    log = {"id": "console:c", "title": "Console", "lines": lines, "total": 1000, "gaps": [], "file": None}
    lanes = [
        lane("waits", item("long", 0.5, end=99.5)),
        lane("steps", item("short", 20.0, end=21.0), item("late", 80.0, end=81.0)),
    ]
    return machine(
        key=f"m{number}", name=name, end=LENGTH, diagnosis=diagnosis | {"wait": None}, lanes=lanes, logs=[log]
    )


def one(tmp_path: Path, open_page: OpenPage) -> Page:
    return open_page(written(tmp_path / "one.html", failing(0, 60.0)), viewport=WIDE)


def test_flags_of_failures_close_together(tmp_path: Path, open_page: OpenPage) -> None:
    times = (10.0, 50.0, 50.5, 51.0, 52.0, 95.0)
    machines = [failing(number, at) for number, at in enumerate(times)]
    page = open_page(written(tmp_path / "page.html", *machines), viewport=WIDE)
    for width in (1600, 390):
        page.set_viewport_size({"width": width, "height": 900})
        part(page)
        flags = page.locator(".flag")
        boxes = flags.evaluate_all("all => all.map((one) => one.getBoundingClientRect().toJSON())")
        sides = sorted((float(box["left"]), float(box["right"])) for box in boxes)
        assert all(one[1] <= other[0] + 1 for one, other in itertools.pairwise(sides))
        more = [int(found) for found in re.findall(r"and (\d+) more", " ".join(flags.all_inner_texts()))]
        assert len(boxes) + sum(more) == len(times)
        expect(page.locator(".failure-line")).to_have_count(len(times))
    page.set_viewport_size({"width": 1600, "height": 900})
    part(page)
    assert flags.count() >= 2


def test_what_is_drawn_is_bounded(tmp_path: Path, open_page: OpenPage) -> None:
    """Whatever the items are, and whatever part of them is shown; and each of them is in a mark."""
    tones = ("neutral", "good", "bad", "warn")
    lanes = [
        lane(
            f"lane-{number}", *(item("x", n / 20, end=n / 20 + 0.02, tone=tones[n % 4]) for n in range(2000))
        )
        for number in range(10)
    ]
    page = open_page(written(tmp_path / "page.html", machine(end=LENGTH, lanes=lanes)), viewport=WIDE)
    for _ in range(6):
        part(page)
        marks = "d3.selectAll('g.mark')"
        drawn = page.evaluate(f"{marks}.size()")
        told = page.evaluate(f"d3.sum({marks}.data(), (mark) => mark.items.length)")
        seen = page.evaluate(
            "d3.sum(lanes, (lane) => d3.sum(lane.items, (one) => one.until > view.from && one.t < view.to))"
        )
        assert 10 <= drawn <= 1300
        assert told >= seen
        page.click("#zoom-in")


def test_a_clue_about_something_long_keeps_its_moment_in_view(tmp_path: Path, open_page: OpenPage) -> None:
    page = one(tmp_path, open_page)
    page.locator("#clues a").click()
    begin, end = part(page)
    assert end - begin < LENGTH / 2
    assert begin < 60 < end
    expect(page.locator("#details")).to_contain_text("long")


def test_keys_zoom_around_the_item_that_has_the_focus(tmp_path: Path, open_page: OpenPage) -> None:
    page = one(tmp_path, open_page)
    page.get_by_role("button", name=re.compile("^short")).focus()
    for _ in range(5):
        page.keyboard.press("+")
        part(page)
    begin, end = part(page)
    assert begin < 20.5 < end
    assert (page.evaluate("document.activeElement.getAttribute('aria-label')") or "").startswith("short")


def test_pinned_details_are_announced_and_give_the_focus_back(tmp_path: Path, open_page: OpenPage) -> None:
    page = one(tmp_path, open_page)
    expect(page.locator("#details")).not_to_have_attribute("aria-live", re.compile("polite|assertive"))
    announcement = page.get_by_role("status").and_(page.locator("#announcement"))
    mark = page.get_by_role("button", name=re.compile("^short"))
    mark.focus()
    expect(announcement).to_have_text("")
    page.keyboard.press("Enter")
    expect(announcement).to_contain_text("Pinned: short")
    page.locator("#details").get_by_role("button", name="Let go").focus()
    page.keyboard.press("Enter")
    expect(mark).to_be_focused()
    expect(announcement).to_have_text("Let go")


def test_what_is_selected_in_a_log_stays_so(tmp_path: Path, open_page: OpenPage) -> None:
    page = one(tmp_path, open_page)
    part(page)
    text = page.locator(".log-row", has_text="line 601 of").locator(".text")
    chosen = text.inner_text()
    text.evaluate("node => getSelection().selectAllChildren(node)")
    page.locator(".log-rows").evaluate("node => { node.scrollTop += 30; }")
    part(page)
    page.evaluate("moveCursor(59.9)")
    part(page)
    assert page.evaluate("String(getSelection())") == chosen


def test_the_keys_on_a_small_screen(tmp_path: Path, open_page: OpenPage) -> None:
    page = open_page(
        written(tmp_path / "page.html", failing(0, 60.0)), viewport={"width": 320, "height": 800}
    )
    page.click("#help-button")
    assert page.locator("#help").evaluate("help => help.scrollWidth - help.clientWidth") == 0


def test_a_line_can_be_clicked_whatever_is_selected_elsewhere(tmp_path: Path, open_page: OpenPage) -> None:
    page = one(tmp_path, open_page)
    page.evaluate("getSelection().selectAllChildren(document.querySelector('h1'))")
    page.locator(".log-row", has_text="line 598 of").locator(".when").click()
    expect(page.locator("#cursor-readout")).to_contain_text("59.8")
