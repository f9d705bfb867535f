"""`vmfsm plugins`: which plugins every machine gets here, and which are broken."""

import contextlib
import inspect
import re
import sys
from collections.abc import Collection, Iterable, Iterator
from importlib import metadata
from typing import NamedTuple

import click

from vmfsm import hooks
from vmfsm import plugins as loading
from vmfsm.errors import ConfigError, PluginLoadError, VMError, printable

from .command import command
from .output import one_line, print_json
from .status import ExitStatus, Failure
from .table import Cell, Column, print_table


class Option(NamedTuple):
    """An option of a plugin: a parameter of its class."""

    name: str
    type: str
    default: str
    """As Python writes it."""


class Plugin(NamedTuple):
    """An installed plugin."""

    name: str
    status: str
    """`loaded`, `broken`, or `not loaded`, where `VMFSM_PLUGIN_AUTOLOAD=0` leaves it alone."""
    distribution: str | None
    version: str | None
    module: str
    """And the class: `module:name`."""
    path: str | None = None
    error: str | None = None
    """Why it is broken."""
    about: str = ""
    hooks: tuple[str, ...] = ()
    """Those that it implements, in the order of a machine's life."""
    needs: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    options: tuple[Option, ...] = ()


class Survey(NamedTuple):
    """All of them."""

    plugins: tuple[Plugin, ...]
    """Those that are loaded first, in the order of set-up."""
    order: dict[str, tuple[str, ...]]
    """By hook: the plugins that implement it, in the order in which they are called."""


_COLUMNS = (
    Column("NAME"),
    Column("FROM", rank=1),
    Column("CLASS", rank=2),
    Column("HOOKS"),
)


def _complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    names = {entry.name for entry in metadata.entry_points(group=loading.GROUP)}
    return sorted(name for name in names if name.startswith(incomplete))


@command(
    json="Print one JSON document: {plugins: [...], order: {HOOK: [NAME, ...]}}.",
    exits={
        ExitStatus.FAILED: "a plugin is broken (no machine can be made then), or there is none of the name"
    },
    examples=(
        ("vmfsm plugins", "what every machine gets, in the order of set-up"),
        ("vmfsm plugins console", "one of them: its options, its hooks and its place in each"),
        ("vmfsm plugins --json", "the same for programs"),
    ),
)
@click.argument("name", required=False, shell_complete=_complete)
def plugins(name: str | None, as_json: bool) -> None:
    """Show what plugins are loaded, and from where.

    All plugins that are installed beside vmfsm, with their hooks, are shown in the order of set-up; clean-up
    is the reverse. A broken one is shown with its error. NAME: one of them, with its options, and its place
    among the others in each hook.
    """
    survey = _survey()
    found = [plugin for plugin in survey.plugins if name in {None, plugin.name}]
    if not found:
        names = ", ".join(one_line(plugin.name) for plugin in survey.plugins)
        raise Failure(f"no plugin is named {name!r}", hint=f"there are: {names}")
    if as_json:
        order = {hook: names for hook, names in survey.order.items() if name is None or name in names}
        print_json({"plugins": [_as_dict(plugin) for plugin in found], "order": order})
    elif name is None:
        _print_all(survey)
    else:
        _print_one(found[0], survey.order)
    broken = [plugin for plugin in found if plugin.error is not None]
    if broken:
        names = ", ".join(one_line(plugin.name) for plugin in broken)
        hint = (
            "no machine can be made with it: mend or uninstall it, or leave it out: Machine(..., block=[...])"
        )
        raise Failure(f"broken: {names}", hint=hint)


# -- finding out --------------------------------------------------------------------------------------------


def _survey() -> Survey:
    """:raises VMError: where it can't even be told which plugins count."""
    broken: dict[str, VMError] = {}
    with contextlib.redirect_stdout(sys.stderr):  # what plugins print when they are imported is no answer
        installed = loading.installed()
        loaded = _load(installed.keys(), broken)
    found = [_loaded(name, loaded.get(name), installed[name]) for name in loaded]
    found += [
        _unloaded(installed[name], "broken")._replace(error=str(error))
        for name, error in sorted(broken.items())
    ]
    found += [
        _unloaded(entry, "not loaded")
        for entry in sorted(metadata.entry_points(group=loading.GROUP))
        if entry.name not in installed
    ]
    order = {}
    for hook in _in_order_of_life(hooks.ALL_HOOKS):
        names = [one.plugin for one in loaded.implementations(hook)]
        if names:
            order[hook] = tuple(reversed(names) if hook in _CLEAN_UP else names)
    return Survey(tuple(found), order)


def _load(installed: Collection[str], broken: dict[str, VMError]) -> loading.PluginSet:
    """All that can be loaded together; the others, with why not, are added to `broken`."""
    while True:
        try:
            return loading.load((), tuple(broken), {})
        except PluginLoadError as error:
            further = [one for one in error.errors if isinstance(one, PluginLoadError)]
            news: dict[str, VMError] = {one.plugin: one for one in (error, *further)}
            if not news.keys() - broken.keys():
                raise
        except ConfigError as error:
            news = {name: error for name in installed if f"[{name!r}]" in (error.field or "")}
            if not news:
                raise
        broken |= news


_CLEAN_UP = {"early_cleanup", "post_shutdown"}


def _in_order_of_life(names: Iterable[str]) -> list[str]:
    order = list(vars(hooks))  # that of their definitions
    return sorted(names, key=order.index)


def _unloaded(entry: metadata.EntryPoint, status: str) -> Plugin:
    distribution, version = (entry.dist.name, entry.dist.version) if entry.dist else (None, None)
    return Plugin(entry.name, status, distribution, version, entry.value)


def _loaded(name: str, plugin: object, entry: metadata.EntryPoint) -> Plugin:
    factory = type(plugin)
    with contextlib.suppress(TypeError, OSError):
        path = inspect.getsourcefile(factory)
    return _unloaded(entry, "loaded")._replace(
        path=path,
        about=(inspect.getdoc(factory) or "").partition("\n\n")[0],
        hooks=tuple(_in_order_of_life(hook for hook in hooks.ALL_HOOKS if hasattr(plugin, hook))),
        needs=tuple(getattr(plugin, "needs", ())),
        before=tuple(getattr(plugin, "before", ())),
        after=tuple(getattr(plugin, "after", ())),
        options=tuple(_options(factory)),
    )


def _options(factory: type) -> Iterator[Option]:
    for parameter in inspect.signature(factory).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            yield Option(f"**{parameter.name}", "any others", "")
        else:
            kind = "any" if parameter.annotation is parameter.empty else _type(parameter.annotation)
            default = "" if parameter.default is parameter.empty else repr(parameter.default)
            yield Option(parameter.name, kind, default)


def _type(annotation: object) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b(?:typing|collections\.abc)\.", "", text)


# -- showing it ---------------------------------------------------------------------------------------------


def _as_dict(plugin: Plugin) -> dict[str, object]:
    return {**plugin._asdict(), "options": [option._asdict() for option in plugin.options]}


def _source(plugin: Plugin) -> str:
    return one_line(f"{plugin.distribution or '?'} {plugin.version or ''}").strip()


def _print_all(survey: Survey) -> None:
    rows: list[list[str | Cell]] = []
    for plugin in survey.plugins:
        last = Cell(" ".join(plugin.hooks))
        if plugin.error is not None:
            last = Cell(f"broken: {one_line(plugin.error)}", fg="red")
        elif plugin.status != "loaded":
            last = Cell(f"not loaded: {loading.AUTOLOAD_VARIABLE}=0", fg="yellow")
        rows.append([one_line(plugin.name), _source(plugin), one_line(plugin.module), last])
    print_table(_COLUMNS, rows)


def _print_one(plugin: Plugin, order: dict[str, tuple[str, ...]]) -> None:
    click.echo(
        f"{click.style(one_line(plugin.name), bold=True)}  {one_line(plugin.module)} of {_source(plugin)}"
    )
    if plugin.path:
        click.echo(one_line(plugin.path))
    if plugin.about:
        click.echo(printable(plugin.about))
    if plugin.error is not None:
        click.secho(f"broken: {printable(plugin.error)}", fg="red")
        return
    for word in ("needs", "before", "after"):
        if names := getattr(plugin, word):
            click.echo(f"{word}: {one_line(', '.join(names))}")
    click.echo("\nhooks:" if plugin.hooks else "\nno hooks")
    columns = (Column(""), Column("", right=True), Column(""))
    rows: list[list[str | Cell]] = []
    for hook in plugin.hooks:
        names = order[hook]
        line = " ".join(one_line(name) for name in names)
        rows.append([hook, f"{names.index(plugin.name) + 1} of {len(names)}", Cell(line, dim=True)])
    print_table(columns, rows, indent="  ")
    click.echo("\noptions:" if plugin.options else "\nno options")
    options: list[list[str | Cell]] = [
        [option.name, one_line(f"{option.type} = {option.default}" if option.default else option.type)]
        for option in plugin.options
    ]
    print_table((Column(""), Column("")), options, indent="  ")
