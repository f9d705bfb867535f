"""What a page says first, in one line: of one machine, of several, of two that are compared."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from . import times

_WORDS = {"ok": "✓ Passed", "failed": "✕ Failed", "unfinished": "… Unfinished"}
_VERBS = {"ok": "passed", "failed": "failed"}
_ALIKE = 0.02
"""Seconds, and a tenth of what it took: what differs less is chance, as in `comparing`."""


class Headline(NamedTuple):
    """`outcome` is that of the diagnosis, or "compared"; `sign` says it; `title` is that of the window."""

    outcome: str
    sign: str
    text: str
    title: str


def main_machine(data: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The one that the page is about: whose failure came first, else one that has not passed."""
    machines: list[Mapping[str, Any]] = data["machines"]
    failed = [machine for machine in machines if machine["key"] == data["primary"]]
    others = [machine for machine in machines if machine["diagnosis"]["outcome"] != "ok"]
    return next(iter([*failed, *others, *machines]), None)


def headline(data: Mapping[str, Any]) -> Headline:
    """For a report with a machine in it at least."""
    if data["comparison"]:
        return Headline("compared", "⇄ Compared", _compared(data), f"COMPARED: {data['title']}")
    main = main_machine(data)
    assert main is not None
    diagnosis = main["diagnosis"]
    outcome = diagnosis["outcome"]
    count = len(data["machines"])
    passed = f"all went well in {'both' if count == 2 else f'all {count}'} machines"
    text = passed if outcome == "ok" and count > 1 else diagnosis["cause"]
    sign = _WORDS.get(outcome, outcome)
    return Headline(outcome, sign, text, f"{sign[2:].upper()}: {data['title']}")


def _compared(data: Mapping[str, Any]) -> str:
    first, second = data["comparison"]["names"]
    ends = [_VERBS.get(one["diagnosis"]["outcome"], "is unfinished") for one in data["machines"]]
    one, other = (machine["end"] - machine["begin"] for machine in data["machines"])
    differ = f"{second} {ends[1]}, {first} {ends[0]}; " if ends[0] != ends[1] else ""
    delta = other - one
    is_longer = delta > _ALIKE + one / 10
    most = next((row for row in data["comparison"]["rows"] if row["most"]), None)
    if abs(delta) <= _ALIKE + one / 10:
        text = f"{second} took about as long as {first}: {times.duration(other)}, and {times.duration(one)}"
    else:
        text = (
            f"{second} took {times.duration(abs(delta))} {'longer' if is_longer else 'less'} than {first}: "
            f"{times.duration(other)}, not {times.duration(one)}"
        )
    if most is None:
        return differ + text
    where = f"{most['kind']} {most['name']}"
    more = times.duration(most["delta"])
    if is_longer and most["delta"] >= delta / 2:
        return f"{differ}{text}; most of it in {where}: {more} more"
    return f"{differ}{text}; {where} took {more} longer"
