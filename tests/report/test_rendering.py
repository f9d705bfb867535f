"""The page as a file: whatever is in the data is text in it, and it needs nothing but itself."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from vmfsm.report.rendering import LAST_LINES, MOST_ROWS, embedded, part, render
from vmfsm.report.times import duration
from vmfsm.report.visible import visible

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "]]><img src=x onerror=alert(1)>",
    "\"'><svg onload=alert(1)>",
    "\u2028\u2029",
    "\ud800 half a pair",
    "\u202edesrever\u2066",
    "\x1b[31mred\x1b[0m\x00\x07\x7f\x85",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;&#60;",
]


def machine(**more: Any) -> dict[str, Any]:
    return {
        "key": "m0",
        "name": "guest",
        "launch": 1,
        "source": "guest.jsonl",
        "begin": 0.0,
        "end": 2.0,
        "state": "stopped",
        "reason": None,
        "exit": None,
        "diagnosis": {
            "outcome": "ok",
            "kind": "ok",
            "cause": "all went well",
            "at": None,
            "clues": [],
            "wait": None,
        },
        "facts": [],
        "command": None,
        "environment": {},
        "plugins": [],
        "problems": [],
        "lanes": [],
        "logs": [],
        "files": [],
        "missing": [],
        "screendump": None,
    } | more


def report(*machines: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "vmfsm": "0.1.0",
        "made": "2026-11-22T01:00:00+00:00",
        "title": "guest",
        "test": None,
        "begin": "2026-11-22T00:59:00+00:00",
        "length": 2.0,
        "primary": None,
        "machines": list(machines),
        "comparison": None,
    } | more


def lane(name: str, *items: dict[str, Any]) -> dict[str, Any]:
    shape = {"title": name, "shape": "spans", "total": len(items), "left_out": 0, "density": None}
    return {"id": name, "items": list(items)} | shape


def item(label: str, t: float = 0.5, **more: Any) -> dict[str, Any]:
    return {"t": t, "end": 1.5, "label": label, "tone": "bad", "row": 0, "detail": {}, "line": None} | more


def everywhere(text: str) -> dict[str, Any]:
    """A report that has `text` wherever one can have any."""
    clue = {"text": text, "at": 1.0, "lane": text, "log": text}
    wait = {
        "operation": text,
        "since": 0.5,
        "until": None,
        "timeout": 2.0,
        "thread": text,
        "caller": text,
        "outcome": text,
    }
    one = machine(
        name=text,
        source=text,
        state=text,
        reason=text,
        exit=text,
        diagnosis={
            "outcome": "failed",
            "kind": text,
            "cause": text,
            "at": 1.0,
            "clues": [clue],
            "wait": wait,
        },
        facts=[{"name": text, "value": text}],
        command=text,
        environment={text: text},
        plugins=[{"name": text, "distribution": text, "version": text}],
        problems=[text],
        lanes=[
            lane(
                name,
                item(
                    text,
                    detail=dict.fromkeys(("outcome", "thread", "caller", "error", "event", "what"), text),
                ),
            )
            for name in ("waits", "steps", "state", "verdicts", "notes", text)
        ],
        logs=[{"id": text, "title": text, "lines": [[0.5, text]], "total": 1, "gaps": [], "file": text}],
        files=[{"file": text, "what": text, "bytes": 1}],
        missing=[{"what": text, "why": text}],
        screendump=text,
    )
    row = {"kind": text, "name": text, "seconds": [1.0, None], "delta": None, "slower": False, "most": False}
    both = {"names": [text, text], "rows": [row]}
    return report(one, one | {"key": "m1"}, title=text, test=text, begin=text, made=text, comparison=both)


class Page(HTMLParser):
    """What a browser makes of the file: elements, the text of scripts and styles, and all other text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.sources: dict[str, list[str]] = {"script": [], "style": []}
        self.text = ""
        self._inside: str | None = None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag in self.sources:
            self.sources[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside in self.sources:
            self.sources[self._inside][-1] += data
        else:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_stays_text(text: str) -> None:
    hostile, harmless = Page(render(everywhere(text))), Page(render(everywhere("text")))
    marked = [name for name, attributes in hostile.elements if attributes.get("class") != "unseen"]
    assert marked == [name for name, _ in harmless.elements]
    assert not [
        a for _, attributes in hostile.elements for a in attributes if a.startswith("on") or a == "style"
    ]


@pytest.mark.parametrize("text", HOSTILE)
def test_the_scripts_get_the_data_as_it_was(text: str) -> None:
    data = everywhere(text)
    html = render(data)
    assert [json.loads(source) for source in Page(html).sources["script"] if source.startswith("{")] == [data]
    assert html.encode("utf-8")


def test_nothing_unseen_is_in_the_file() -> None:
    html = render(everywhere("".join(HOSTILE)))
    words = Page(html).text
    assert not [char for char in words if not char.isprintable() and char not in "\n\t"]
    assert "<U+202E>" in words
    assert "␛[31m" in words


def test_embedded_data_ends_no_script() -> None:
    text = embedded({"text": "".join(HOSTILE)})
    assert text.isascii()
    assert not set("<>&") & set(text)


def test_only_what_is_in_the_file_is_run() -> None:
    page = Page(render(everywhere("</script>")))
    [policy] = [
        meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for kind, tag in (("script-src", "script"), ("style-src", "style")):
        sources = [source for source in page.sources[tag] if not source.startswith("{")]
        hashes = [base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() for source in sources]
        assert rules[kind].split() == [f"'sha256-{digest}'" for digest in hashes]


def test_it_needs_nothing_else() -> None:
    page = Page(render(everywhere("https://example.com/")))
    fetched = [
        value
        for name, attributes in page.elements
        for attribute, value in attributes.items()
        if attribute in {"src", "srcset", "data", "action", "poster", "formaction"}
        or (name == "link" and attribute == "href")
    ]
    assert fetched == ["data:,"]
    assert not re.search(r"url\((?![\"']?#)|@import", "".join(page.sources["style"]))


@pytest.mark.parametrize(
    "path", ["javascript:alert(1)", "//example.com/x", "https://example.com", "a b/<x>#y?z%.log", "\ud800"]
)
def test_files_are_beside_the_page(path: str) -> None:
    page = Page(render(report(machine(files=[{"file": path, "what": "a file", "bytes": None}]))))
    links = [str(link["href"]) for link in page.all("a") if not str(link["href"]).startswith("#")]
    assert len(links) == 1
    assert re.fullmatch(r"(\./|file:///)[\w%/.~-]*", links[0])


def test_what_can_be_read_without_scripts() -> None:
    wait = {"operation": "expect('login:')", "since": 0.5, "until": 1.5, "timeout": 1.0}
    wait |= {"thread": "MainThread", "caller": "test_boot.py:42", "outcome": "timeout"}
    clues = [{"text": "the last line", "at": 0.7, "lane": "console:serial", "log": "console:serial"}]
    diagnosis = {
        "outcome": "failed",
        "kind": "guest-hang",
        "cause": "it went silent",
        "at": 1.5,
        "clues": clues,
        "wait": wait,
    }
    lines = [[n / 1000, f"line {n}"] for n in range(200)]
    log = {"id": "console:serial", "title": "Console", "lines": lines, "total": 200, "gaps": [], "file": None}
    steps = [item(f"step {n}", n / 1000, tone="good") for n in range(MOST_ROWS + 7)]
    html = render(
        report(machine(diagnosis=diagnosis, logs=[log], lanes=[lane("steps", *steps)]), primary="m0")
    )
    words = " ".join(Page(html).text.split())
    for said in (
        "✕ Failed it went silent",
        "expect('login:') 1.00 s of 1.00 s timeout called at test_boot.py:42",
        "0.700 s the last line",
        f"The last {LAST_LINES} of 200 lines",
        "0.150 s line 150",
        f"step {MOST_ROWS - 1}",
        "7 more on the timeline",
    ):
        assert said in words
    assert "line 149" not in words
    assert f"step {MOST_ROWS}" not in words


def test_no_machine() -> None:
    assert "no machine" in Page(render(report())).text


def test_colours_are_whole() -> None:
    """An escape sequence is one symbol with what belongs to it, and its words are still words."""
    assert str(visible("\x1b[1;31mred\x1b[0m")) == (
        '<span class="unseen">␛[1;31m</span>red<span class="unseen">␛[0m</span>'
    )


def test_long_text_is_cut_and_says_so() -> None:
    shown = str(visible("a" * 12_345))
    assert "10,345 more characters" in shown
    assert len(shown) < 2_200


@pytest.mark.parametrize("name", ["vendor/d3.min.js", "vendor/LICENSE"])
def test_vendored_files_are_what_was_published(name: str) -> None:
    sums = {
        file: digest for digest, file in (line.split() for line in part("vendor/SHA512SUMS").splitlines())
    }
    assert hashlib.sha512(part(name).encode("utf-8")).hexdigest() == sums[name.removeprefix("vendor/")]


def test_the_lock_file_has_the_version_and_its_integrity() -> None:
    wanted = json.loads(part("vendor/package.json"))["dependencies"]["d3"]
    locked = json.loads(part("vendor/package-lock.json"))["packages"]["node_modules/d3"]
    assert locked["version"] == wanted
    assert locked["integrity"].startswith("sha512-")
    assert part("vendor/d3.min.js").startswith(f"// https://d3js.org v{wanted} ")


def ended(outcome: str) -> dict[str, Any]:
    cause = "all went well" if outcome == "ok" else f"it {outcome}"
    return {"outcome": outcome, "kind": outcome, "cause": cause, "at": None, "clues": [], "wait": None}


def heading(html: str) -> str:
    found = re.search(r"<h1.*?</h1>", html, re.DOTALL)
    assert found
    return " ".join(Page(found[0]).text.split())


def row(name: str, first: float, second: float, *, most: bool = False) -> dict[str, Any]:
    delta = second - first
    return {
        "kind": "step",
        "name": name,
        "seconds": [first, second],
        "delta": delta,
        "slower": delta > 0,
        "most": most,
    }


@pytest.mark.parametrize(
    ("ends", "outcomes", "said"),
    [
        pytest.param(
            (1.0, 3.0),
            ("ok", "ok"),
            "⇄ Compared B: guest took 2.00 s longer than A: guest: 3.00 s, not 1.00 s; "
            "most of it in step boot: 1.50 s more",
            id="longer",
        ),
        pytest.param(
            (3.0, 1.0),
            ("ok", "ok"),
            "⇄ Compared B: guest took 2.00 s less than A: guest: 1.00 s, not 3.00 s; "
            "step boot took 1.50 s longer",
            id="less",
        ),
        pytest.param(
            (2.0, 2.1),
            ("ok", "failed"),
            "⇄ Compared B: guest failed, A: guest passed; B: guest took about as long as A: guest: "
            "2.10 s, and 2.00 s; step boot took 1.50 s longer",
            id="alike, but failed",
        ),
    ],
)
def test_a_comparison_is_what_the_page_is_about(
    ends: tuple[float, float], outcomes: tuple[str, str], said: str
) -> None:
    machines = [
        machine(key=f"m{number}", end=end, diagnosis=ended(outcome), source=f"run-{number}.jsonl")
        for number, (end, outcome) in enumerate(zip(ends, outcomes, strict=True))
    ]
    both = {"names": ["A: guest", "B: guest"], "rows": [row("boot", 0.5, 2.0, most=True)]}
    html = render(report(*machines, comparison=both))
    assert heading(html) == said
    assert "<title>COMPARED: guest</title>" in html
    words = " ".join(Page(html).text.split())
    assert "A: guest (run-0.jsonl)" in words
    assert "B: guest (run-1.jsonl)" in words
    assert "The beginning of the time axis" not in words


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        (("ok",), "✓ Passed all went well"),
        (("ok", "ok"), "✓ Passed all went well in both machines"),
        (("ok", "ok", "ok"), "✓ Passed all went well in all 3 machines"),
        (("ok", "unfinished"), "… Unfinished it unfinished"),
    ],
)
def test_the_heading_is_that_of_all_machines(outcomes: tuple[str, ...], said: str) -> None:
    machines = [machine(key=f"m{n}", name=f"m{n}", diagnosis=ended(one)) for n, one in enumerate(outcomes)]
    assert heading(render(report(*machines))) == said


@pytest.mark.parametrize(
    ("lanes", "title"), [(("waits", "steps"), "What took longest"), (("waits", None), "Where to look first")]
)
def test_what_took_longest_is_called_so(lanes: tuple[str | None, ...], title: str) -> None:
    clues = [{"text": "it took 2 s", "at": 1.0, "lane": one, "log": None} for one in lanes]
    words = Page(render(report(machine(diagnosis=ended("ok") | {"clues": clues})))).text
    assert title in words


def test_what_has_not_ended_took_until_its_own_recording_ended() -> None:
    """And not until that of another machine."""
    waits = lane("waits", item("boot", 0.5, end=None))
    html = render(
        report(machine(end=2.0, lanes=[waits]), machine(key="m1", name="other", end=60.0), length=60.0)
    )
    assert "1.50 s, not ended" in Page(html).text


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-0.0123, "-12.3 ms"),
        (-42.0, "-42.0 s"),
        (-125.0, "-2 min 05 s"),
        (-11_220.0, "-3 h 07 min"),
        (125.0, "2 min 05 s"),
    ],
)
def test_durations_have_a_sign(seconds: float, said: str) -> None:
    assert duration(seconds) == said
