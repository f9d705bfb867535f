"""Writes the generated parts of the documentation: what the table of the lifecycle and the command line say.

    python docs/generate.py            rewrites them
    python docs/generate.py --check    only says whether they are up to date; status 1 where not

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`.
"""

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from vmfsm import TABLE, State, diagram
from vmfsm.cli.command import Command
from vmfsm.cli.commands import ALIASES, SECTIONS
from vmfsm.cli.program import program
from vmfsm.cli.status import MEANINGS

DOCS = Path(__file__).parent
_PART = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def _mermaid(lines: list[str]) -> str:
    return "\n".join(["```mermaid", *lines, "```"])


def states() -> str:
    """The states and what leads from one to another."""
    return _mermaid([diagram.mermaid()])


def table() -> str:
    """The rows of the table."""
    lines = ["| event | from | to | hook |", "| --- | --- | --- | --- |"]
    for event, sources, dest, hook, runs in TABLE:
        names = ", ".join(f"`{source.value}`" for source in sources)
        lines.append(f"| `{event.value}` | {names} | `{dest.value}` | `{hook}`, {runs} it |")
    return "\n".join(lines)


def hooks() -> str:
    """The life of a machine as a chain of its states (round) and its hooks (square)."""
    after = {row.dest: row.hook for row in TABLE if row.hook_runs == "after"}

    def end(state: State) -> str:
        """What comes last in a state."""
        return after.get(state, state.value)

    nodes = [f"{state.value}([{state.value}])" for state in State]
    arrows = [f"{state.value} --> {hook}" for state, hook in after.items()]
    for event, sources, dest, hook, runs in TABLE:
        arrows += [f"{end(source)} --> {hook}" for source in sources if runs == "before"]
        starts = [hook] if runs == "before" else [end(source) for source in sources]
        arrows += [f"{start} -- {event.value} --> {dest.value}" for start in starts]
    return _mermaid(["flowchart TB", *(f"    {line}" for line in dict.fromkeys(nodes + arrows))])


def commands() -> str:
    """All commands of the program, as their `--help` has them."""
    parts = []
    context = click.Context(program, info_name=program.name)
    for section, rows in SECTIONS.items():
        parts.append(f"## {section}")
        for row in rows:
            command = program.get_command(context, row.name)
            assert isinstance(command, Command)
            parts += _command(command, click.Context(command, info_name=row.name, parent=context))
    return "\n".join(["", "\n\n".join(parts), ""])


def _command(command: Command, context: click.Context) -> Iterator[str]:
    yield f"### `{context.command_path}`"
    aliases = [alias for alias, name in ALIASES.items() if name == context.info_name]
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield f"`{usage}`" + "".join(f"; also `vmfsm {alias}`" for alias in aliases)
    yield inspect.cleandoc(command.help or "").replace("\b\n", "")
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    records = [option.get_help_record(context) for option in options]
    lines = []
    for names, meaning in filter(None, records):
        if names != "--no-color":
            escaped = " ".join(meaning.split()).replace("|", "\\|")
            shown = names.replace("|", "\\|")
            lines.append(f"| `{shown}` | {escaped} |")
    if lines:
        yield "\n".join(["| option | |", "| --- | --- |", *lines])
    yield "\n".join(f"* `{line}`: {purpose}" for line, purpose in command.examples)
    meanings = "; ".join(f"{int(status)} {meaning}" for status, meaning in command.exits.items())
    yield f"Exit status: {meanings}."


def statuses() -> str:
    """The exit statuses that commands have in common."""
    lines = ["| status | meaning |", "| --- | --- |"]
    return "\n".join([*lines, *(f"| {int(status)} | {meaning} |" for status, meaning in MEANINGS.items())])


PARTS: dict[str, Callable[[], str]] = {
    "states": states,
    "table": table,
    "hooks": hooks,
    "commands": commands,
    "statuses": statuses,
}


def generate(text: str) -> str:
    """`text` with its generated parts made anew."""
    return _PART.sub(lambda part: f"{part[1]}{PARTS[part[2]]()}\n{part[3]}", text)


def main(*args: str) -> int:
    """Rewrite, or with `--check` name, the pages whose generated parts are not up to date."""
    if args not in {(), ("--check",)}:
        sys.exit(f"usage: {sys.argv[0]} [--check]")
    stale = 0
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        new = generate(text)
        if new != text:
            stale += 1
            print(f"{page.relative_to(DOCS.parent)}: {'is not up to date' if args else 'rewritten'}")
            if not args:
                page.write_text(new, encoding="utf-8")
    return 1 if args and stale else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
