"""The lifecycle as a diagram, with the way that a machine has gone: text for Mermaid, and for Graphviz.

print(diagram.mermaid())
print(diagram.graphviz(vm.history))
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from .errors import ConfigError
from .lifecycle import INITIAL, TABLE, Event, State, Transition

__all__ = ("graphviz", "mermaid")

_CLASS = "classDef here fill:#fc6,stroke:#c60,stroke-width:3px"


class _Arrow(NamedTuple):
    """What leads from one state to another."""

    source: State
    event: Event
    dest: State


class _Way:
    """How often a machine went along which arrow, why the last time, and where it is."""

    def __init__(self, history: Sequence[Transition] | None) -> None:
        taken = [(_Arrow(one.source, one.event, one.dest), one.reason) for one in history or ()]
        self.arrows = [_Arrow(source, row.event, row.dest) for row in TABLE for source in row.sources]
        self.counts = Counter(arrow for arrow, _ in taken)
        self._reasons = dict(taken)
        self.here = None if history is None else history[-1].dest if history else INITIAL

    def label(self, arrow: _Arrow, line_end: str) -> str:
        """`quit`; where it was taken, also how often, and why the last time."""
        count, reason = self.counts[arrow], self._reasons.get(arrow)
        return (
            arrow.event.value
            + (f" ×{count}" if count else "")  # noqa: RUF001 - times
            + (f"{line_end}{reason.value}" if reason else "")
        )


def mermaid(history: Sequence[Transition] | None = None) -> str:
    """A state diagram as Mermaid has it (its documentation, "State diagrams").

    :param history: of a machine: `Machine.history`. Its arrows say how often they were taken, and why the
        last time, and the state that it is in is marked. Without one it is the table alone.
    """
    way = _Way(history)
    lines = ["stateDiagram-v2", f"    [*] --> {INITIAL.value}"]
    lines += [
        f"    {arrow.source.value} --> {arrow.dest.value}: {way.label(arrow, '<br/>')}"
        for arrow in way.arrows
    ]
    if way.here is not None:
        lines += [f"    {_CLASS}", f"    class {way.here.value} here"]
    return "\n".join(lines)


def graphviz(history: Sequence[Transition] | None = None) -> str:
    """The same in the language of `dot` (Graphviz documentation, "DOT Language")."""
    way = _Way(history)
    lines = ["digraph lifecycle {", "    node [shape=box, style=rounded]"]
    for state in State:
        here = ' [style="rounded,filled,bold", fillcolor="#ffcc66"]' if state is way.here else ""
        lines.append(f"    {state.value}{here}")
    for arrow in way.arrows:
        taken = ", style=bold" if way.counts[arrow] else "" if history is None else ", color=gray"
        label = way.label(arrow, "\\n")
        lines.append(f'    {arrow.source.value} -> {arrow.dest.value} [label="{label}"{taken}]')
    return "\n".join([*lines, "}"])


FORMATS = {"mermaid": mermaid, "graphviz": graphviz}


def draw(history: Sequence[Transition] | None, format: str) -> str:  # noqa: A002 - as users call it
    """In one of the `FORMATS`.

    :raises ConfigError: for another one.
    """
    if not isinstance(format, str) or format not in FORMATS:
        raise ConfigError(f"format must be one of {', '.join(FORMATS)}, not {format!r}", field="format")
    return FORMATS[format](history)
