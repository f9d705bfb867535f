"""The page of a report: one HTML file that needs nothing else, from the report's data.

The page's policy (CSP) allows the scripts and styles that are in it, by their hashes, and nothing else: no
network, no `eval`, no markup made from text. Whatever a guest wrote is text, here and in the browser.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from . import times
from .headline import headline, main_machine
from .visible import plain, visible

if TYPE_CHECKING:
    import jinja2

STYLES = ("colours.css", "page.css", "header.css", "timeline.css", "logs.css", "tables.css", "print.css")
SCRIPTS = (
    "vendor/d3.min.js",
    "data.js",
    "times.js",
    "text.js",
    "view.js",
    "marks.js",
    "lanes.js",
    "axis.js",
    "details.js",
    "logs.js",
    "search.js",
    "moving.js",
    "keys.js",
    "start.js",
)

MOST_ROWS = 300
"""Of a table that is rendered here; the timeline has all."""

LAST_LINES = 50
"""Of each log, for those who print, or have no scripts."""


def render(data: Mapping[str, Any]) -> str:
    """The whole file. Waits for nothing but the package's own files.

    :raises ModuleNotFoundError: without the extra `cli`.
    """
    from markupsafe import Markup

    main = main_machine(data)
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            data=data,
            main=main,
            headline=headline(data) if main else None,
            titles=_titles(data),
            lanes=_lanes,
            ordered=_ordered,
            spent=times.spent,
            json=Markup(embedded(data)),
            policy=Markup(policy()),
            styles=[Markup(part(name)) for name in STYLES],
            scripts=[Markup(part(name)) for name in SCRIPTS],
            most_rows=MOST_ROWS,
            most_lines=LAST_LINES,
            data_image="data:image/",
        )
    )


@cache
def _environment() -> "jinja2.Environment":
    import jinja2
    from markupsafe import Markup

    def finalize(value: object) -> object:
        """All that the template shows goes through here: text is never shown as it came."""
        if value is None:
            return ""
        return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    def attribute(text: object) -> Markup:
        return Markup.escape(plain(str(text)))

    def link(path: str) -> Markup:
        """A file beside the page: never a scheme, a host or a fragment, whatever its name is."""
        prefix = "file://" if path.startswith("/") else "./"
        return Markup.escape(prefix + quote(path.encode("utf-8", "replace")))

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(part),
        autoescape=True,
        finalize=finalize,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "attribute": attribute,
        "link": link,
        "duration": times.duration,
        "moment": times.moment,
        "words": plain,
        "without": str.removeprefix,
    }
    return environment


def embedded(data: Mapping[str, Any]) -> str:
    """JSON for a `<script type="application/json">`: ASCII, and nothing in it that ends or hides a script."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


@cache
def part(name: str) -> str:
    """A file of the page."""
    return resources.files(__package__).joinpath("page", *name.split("/")).read_text("utf-8")


@cache
def policy() -> str:
    """The page's content security policy."""
    scripts = " ".join(_hashes(SCRIPTS))
    styles = " ".join(_hashes(STYLES))
    return (
        f"default-src 'none'; script-src {scripts}; style-src {styles}; img-src data:; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def _hashes(names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        digest = hashlib.sha256(part(name).encode("utf-8")).digest()
        yield f"'sha256-{base64.b64encode(digest).decode()}'"


def _titles(data: Mapping[str, Any]) -> dict[str, str]:
    """What each machine is called, as `page/data.js` does: no two are called the same."""
    titles: dict[str, str] = {}
    for number, machine in enumerate(data["machines"]):
        launch = machine["launch"] or 1
        title = machine["name"] + (f" (launch {launch})" if launch > 1 else "")
        if data["comparison"] and number < len(data["comparison"]["names"]):
            title = data["comparison"]["names"][number]
        if title in titles.values():
            title += f" ({machine['source']})"
        titles[machine["key"]] = title
    return titles


def _lanes(machine: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """The items of a lane, in the order of time; none where there is no such lane."""
    return [
        item
        for lane in machine["lanes"]
        if lane["id"] == name
        for item in sorted(lane["items"], key=lambda item: item["t"])
    ]


def _ordered(rows: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of a comparison: first what lost most time."""
    return sorted(rows, key=lambda row: (not row["most"], row["delta"] is None, -(row["delta"] or 0)))
