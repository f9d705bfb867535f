"""The options of `vmfsm run`, in the sections of its help."""

from typing import Any

import click
from click.shell_completion import CompletionItem


class _Seconds(click.FloatRange):
    def _describe_range(self) -> str:
        return ""  # nothing for the help


def _option(*names: str, **attributes: Any) -> click.Option:
    return click.Option(list(names), **attributes)


def _several(name: str, metavar: str, text: str, **attributes: Any) -> click.Option:
    return _option(name, multiple=True, metavar=metavar, help=text, **attributes)


def _text(name: str, metavar: str, text: str, **attributes: Any) -> click.Option:
    if metavar in {"DIR", "FILE"}:
        attributes["shell_complete"] = _complete_file
    return _option(name, metavar=metavar, help=text, **attributes)


def _complete_file(_: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """As the shell does."""
    return [CompletionItem(incomplete, type="dir" if parameter.metavar == "DIR" else "file")]


def _complete_command(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """QEMUs, else files: kernels, images."""
    from vmfsm.cli.health import qemus

    found = [name for name in qemus() if incomplete and name.startswith(incomplete)]
    return [CompletionItem(name) for name in found] or _complete_file(context, parameter, incomplete)


def _flag(*names: str, text: str) -> click.Option:
    return _option(*names, is_flag=True, help=text)


def _seconds(name: str, text: str, default: float | None = None) -> click.Option:
    kind = _Seconds(min=0, max=1e9)
    return _option(
        name, type=kind, metavar="SECONDS", help=text, default=default, show_default=default is not None
    )


SECTIONS: dict[str, list[click.Option]] = {
    "Steps, taken in their order": [
        _several("--expect", "REGEX", "Wait until the console says this; ^ and $ match at lines."),
        _several("--expect-text", "TEXT", "The same with plain text, escapes as of --send."),
        _several("--send", "TEXT", r"Send this to the console. Escapes: \n \r \t \e \b \0 \\ \xHH \uHHHH."),
        _several("--event", "'NAME [JSON]'", "Wait for this event of QEMU's, with this in its data."),
        _several("--qmp", "'COMMAND [ARG=VALUE]...'", "Execute a command of the monitor, print its value."),
        _several("--on", "CONSOLE", "The steps after this one are about that console."),
        _option(
            "--then",
            type=click.Choice(["shutdown", "wait", "keep"]),
            help="After the last step: end the machine (the default with steps), wait for the guest to end "
            "(the default without), or keep it until somebody ends it.",
        ),
    ],
    "How long it may take": [
        _seconds("--timeout", "For each step (60), and for the guest to end (no limit)."),
        _seconds("--total-timeout", "For all of it, from the launch on, without the stopping."),
        _seconds("--launch-timeout", "Until QEMU is up.", 30),
        _seconds("--stop-timeout", "For QEMU to go when it is asked to; it is killed then.", 30),
        _flag("--ask-guest", text="Stop by the power button first."),
    ],
    "What is a failure": [
        _several(
            "--fail-on",
            "KIND|PATTERN",
            "This text on a console or in QEMU's output, * for anything within a line. Panics, oopses and "
            "their like (KIND) are failures anyway.",
        ),
        _several(
            "--allow",
            "KIND",
            "Not on this: panic, oops, lockup, sanitizer, all, or a kind of docs/verdicts.md.",
        ),
        _several("--expected-exit", "STATUS", "A status of QEMU's that is a good ending, too.", type=int),
        _flag("--hold-on-failure", text="Keep the machine then, until 'vmfsm release' or Ctrl-C."),
        _flag("--pass-status", text="Where QEMU ended by itself, exit with its status."),
    ],
    "The machine": [
        _text("--name", "NAME", "For messages, files, and the other commands."),
        _text("--accel", "ACCEL", "For QEMU's -accel; 'best' is the best one that works."),
        _text("--display", "DISPLAY", "For QEMU's -display; '' leaves it out.", default="none"),
        _several("--env", "NAME[=VALUE]", "Set a variable of its environment, or take it away."),
        _text("--cwd", "DIR", "Its working directory."),
        _text("--wrapper", "COMMAND", "Words to put before QEMU's command line."),
        _several("--block", "PLUGIN", "Do not load this plugin."),
        _option(
            "-o",
            "--plugin-option",
            multiple=True,
            metavar="PLUGIN.OPTION=VALUE",
            help="An option of a plugin; the value as JSON, or else text.",
        ),
    ],
    "Consoles, files": [
        _several(
            "--console",
            "NAME[=DEVICE]",
            "A console: a serial port, or this device. The first is on stdout. 'none': there is none.",
        ),
        _several("--console-file", "[NAME=]FILE", "Write what the console says to this file, too."),
        _text("--log-dir", "DIR", "An existing directory for what consoles and QEMU say."),
        _text("--base-dir", "DIR", "Where the private directory is made, which is removed at the end."),
        _text("--record", "DIR", "Record everything that happens, for 'vmfsm inspect'."),
        _text("--result", "FILE", "Write how it ended to this file, as JSON."),
        _flag("--json", text="The last line on stderr is that, too."),
    ],
    "The terminal": [
        _flag(
            "-i", "--interactive", text="Ctrl-C is for the guest, like every key; Ctrl-] q ends the machine."
        ),
        _flag("--stdin", text="Send stdin to the console where it is no terminal, too: after the last step."),
        _flag("--no-stdin", text="Leave stdin alone where it is a terminal."),
        _flag("--no-status", text="No status line."),
        _flag("-q", "--quiet", text="Nothing on stderr but how it ended."),
    ],
}

COMMAND = click.Argument(
    ["command"],
    nargs=-1,
    required=True,
    type=click.UNPROCESSED,
    metavar="[--] QEMU [ARG]...",
    shell_complete=_complete_command,
)
