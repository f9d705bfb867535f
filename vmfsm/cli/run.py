"""`vmfsm run`: a machine, a script, an exit status."""

import shlex
from typing import Any

import click

from vmfsm import ConfigError, Machine

from .command import Command, no_color
from .running.arguments import refuse_stdio, remarks
from .running.options import console_options, environment, kinds_of, plugin_options, verdict_rules
from .running.outcome import MEANINGS, Outcome, RunStatus, of_run
from .running.parameters import COMMAND, SECTIONS
from .running.result import document, dump
from .running.session import Script, Session
from .running.steps import KINDS, Step, check_steps, parse
from .terminal.raw import is_ours

_STDIN = 0
_ORDER = "vmfsm.cli.run.order"


class _Run(Command):
    """Steps count in the order of the command line, whatever their kind; help has its options in sections."""

    def __init__(self, *args: Any, **parameters: Any) -> None:
        super().__init__(*args, **parameters)
        self.context_settings = {**self.context_settings, "allow_interspersed_args": False}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        _, _, order = self.make_parser(ctx).parse_args(list(args))
        ctx.meta[_ORDER] = [parameter.name for parameter in order]
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[click.Parameter]] = {title: [*found] for title, found in SECTIONS.items()}
        inside = {id(option) for options in SECTIONS.values() for option in options}
        others = [parameter for parameter in self.get_params(ctx) if id(parameter) not in inside]
        sections["Other options"] = [one for one in others if isinstance(one, click.Option)]
        for title, options in sections.items():
            with formatter.section(title):
                formatter.write_dl([row for one in options if (row := one.get_help_record(ctx))])


def _run(**given: Any) -> None:
    context = click.get_current_context()
    machine, script = _prepare(context, given)
    session = Session(machine, script, status=not given["no_status"], quiet=given["quiet"])
    for remark in remarks(given["command"][1:], console=given["console"] != ("none",)):
        session.display.message(f"vmfsm run: {remark}")
    outcome = session.run()
    status = of_run(machine, outcome, pass_on=given["pass_status"])
    result = document(session, outcome, status)
    if given["result"]:
        try:
            _write(given["result"], dump(result, indent=2) + "\n")
        except OSError as error:
            if not status:
                status, outcome = RunStatus.FAILED, Outcome(RunStatus.FAILED, f"--result: {error}")
            else:
                session.display.verdict(f"vmfsm run: --result: {error}")
    good = "ok" if outcome.good else f"FAILED ({outcome.word})"
    where = f"; recorded in {session.recording}" if session.recording else ""
    session.display.verdict(
        f"vmfsm run: {good}: {outcome.message} [{machine.name}, {session.seconds:.1f} s]{where}"
    )
    if given["json"]:
        session.display.verdict(dump(result))
    session.display.close()
    context.exit(status)


def _prepare(context: click.Context, given: dict[str, Any]) -> tuple[Machine, Script]:
    steps = _steps(context, given)
    try:
        stdin = _stdin(given)
        options, block = _plugins(given)
        machine = _machine(given, options, block)
        check_steps(steps, machine)
    except ValueError as error:
        raise click.UsageError(str(error), context) from None
    except ConfigError as error:
        where = f" ({error.field})" if error.field else ""
        raise click.UsageError(f"{error}{where}", context) from None
    if given["result"]:
        try:
            _write(given["result"], "")  # that of another run is not taken for this one's
        except OSError as error:
            raise click.UsageError(f"--result: {error}", context) from None
    script = Script(
        steps,
        timeout=given["timeout"],
        total_timeout=given["total_timeout"],
        launch_timeout=given["launch_timeout"],
        then=given["then"] or ("shutdown" if steps and stdin != "pipe" else "wait"),
        ask_guest=given["ask_guest"],
        stop_timeout=given["stop_timeout"],
        hold=given["hold_on_failure"],
        stdin="none" if "console" in block else stdin,
        allowed=frozenset(kind for name in given["allow"] for kind in kinds_of(name)),
    )
    return machine, script


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _steps(context: click.Context, given: dict[str, Any]) -> list[Step]:
    left = {kind: list(given[kind.replace("-", "_")]) for kind in KINDS}
    steps = []
    for name in context.meta[_ORDER]:
        kind = name.replace("_", "-")
        if kind in left:
            text = left[kind].pop(0)
            try:
                steps.append(parse(kind, text))
            except ValueError as error:
                raise click.UsageError(f"--{kind} {shlex.quote(text)}: {error}", context) from None
    return steps


def _plugins(given: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Their options, and the names of those not to load."""
    options = plugin_options(given["plugin_option"])
    block = list(given["block"])
    consoles = console_options(given["console"], given["console_file"], options.pop("console", {}))
    if consoles is None:
        block.append("console")
    elif "console" not in block:
        refuse_stdio(given["command"][1:])
        options["console"] = consoles
    if rules := verdict_rules(given["fail_on"], given["allow"]):
        verdicts = options.setdefault("verdicts", {})
        verdicts["rules"] = {**verdicts.get("rules", {}), **rules}
    if given["record"]:
        options.setdefault("recorder", {})["directory"] = given["record"]
    return options, block


def _machine(given: dict[str, Any], options: dict[str, dict[str, Any]], block: list[str]) -> Machine:
    binary, *args = given["command"]
    return Machine(
        binary,
        args,
        name=given["name"],
        wrapper=shlex.split(given["wrapper"] or ""),
        env=environment(given["env"]),
        cwd=given["cwd"],
        display=given["display"] or None,
        accel=given["accel"],
        log_dir=given["log_dir"],
        base_dir=given["base_dir"],
        expected_exits=(0, *given["expected_exit"]),
        block=block,
        options=options,
    )


def _stdin(given: dict[str, Any]) -> str:
    """How it is used: see `Script`.

    :raises ValueError: where that can't be.
    """
    if given["no_stdin"]:
        if given["stdin"] or given["interactive"]:
            raise ValueError("--no-stdin, and something that wants it")
        return "none"
    if is_ours(_STDIN):
        return "raw" if given["interactive"] else "terminal"
    if given["interactive"]:
        raise ValueError("--interactive: stdin is no terminal, or another job's")
    return "pipe" if given["stdin"] else "none"


run = _Run(
    "run",
    callback=_run,
    params=[*(option for options in SECTIONS.values() for option in options), COMMAND, no_color()],
    help="""Run a virtual machine: console, script, exit status by reason.

    The first console is on stdout, byte for byte. What you type goes to it; Ctrl-C stops the machine, a
    second one kills it, and Ctrl-] ? shows which other keys there are. Everything else is said on stderr.

    It is a harness like any other: 'vmfsm ps', 'inspect', 'qmp' and the others see the machine meanwhile.""",
    examples=(
        (
            "vmfsm run -- qemu-system-x86_64 -m 512 -kernel vmlinuz -append console=ttyS0",
            "a machine on the terminal",
        ),
        (
            "vmfsm run --expect 'all tests passed' --timeout 600 -- qemu-system-x86_64 ...",
            "a test: status 0 if the guest says so, and does not panic",
        ),
        (
            r"vmfsm run --expect login: --send 'root\n' --expect '# ' --send 'make check\n' ...",
            "log in, and have something done",
        ),
        (
            "vmfsm run --then wait --total-timeout 900 --record recordings -- qemu-system-x86_64 ...",
            "until the guest powers off; 'vmfsm inspect recordings/...' tells what happened",
        ),
        (
            "vmfsm run --pass-status -- qemu-system-x86_64 -device isa-debug-exit ...",
            "with the status that the guest gives",
        ),
    ),
    exits=MEANINGS,
)
