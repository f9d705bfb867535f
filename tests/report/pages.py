"""Pages as `vmfsm report` makes them."""

from pathlib import Path

from vmfsm import report
from vmfsm.report import rendering


def page_of(target: Path, *sources: Path, compare: bool = False) -> Path:
    """Written to `target`."""
    target.parent.mkdir(exist_ok=True)
    data = report.data(sources, compare=compare, page=str(target))
    target.write_text(rendering.render(data), "utf-8")
    return target
